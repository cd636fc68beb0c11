"""Small closed loops on the quickstart's iron, where an EAM potential is the exact truth: MD, labels, training, errors.

What is studied with them is ``labels_saved.py``'s and ``periodic.py``'s; campaigns go through ``workflow/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.errors import AldriverError
from aldriver.core.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.explore import WalkerResult
    from aldriver.potentials import Potential

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
HELD_BACK = 6
"""Of the labels, every so many-th only chooses the best epoch."""
MOST_EPOCHS = 30
"""Of a training on few frames."""
COPIES, RATTLE_A, STRAIN = 12, 0.05, 0.02
"""Perturbed copies of each system that a first detector is fitted on, as in campaigns; 8 others calibrate it."""
HELD_OUT_COPIES = 8


@dataclass(frozen=True, kw_only=True)
class Refined:
    """A refined potential, and what brings reference energies to its scale (eV by element)."""

    potential: Potential
    e0_shift: dict[str, float] | None


class Loop:
    """Foundation, truth and recipe of the quickstart."""

    def __init__(self) -> None:
        self.recipe: Recipe = load_recipe(RECIPE)

    @cached_property
    def foundation(self) -> Potential:
        """What is refined."""
        from aldriver.potentials import load

        return load(self.recipe.potential)

    @cached_property
    def truth(self) -> Potential:
        """What labels."""
        from aldriver.potentials import load

        return load(str(self.recipe.label.reference))

    @cached_property
    def systems(self) -> dict[str, Atoms]:
        """Start cells by name."""
        from aldriver.core.systems import build_systems

        return {str(atoms.info["system"]): atoms for atoms in build_systems(self.recipe)}

    def labelled(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """Frames with energy, forces and stress of the truth."""
        from aldriver.core.frames import with_labels

        told = self.truth.evaluate(list(frames))
        return [
            with_labels(f, energy=p.energy, forces=p.forces, stress=p.stress) for f, p in zip(frames, told, strict=True)
        ]

    def walk(
        self,
        potential: Potential,
        start: Atoms,
        *,
        temperature_K: float,
        steps: int,
        every: int,
        seed: int,
        group: str = "walker",
        ensemble: str = "npt",
    ) -> WalkerResult:
        """MD with the recipe's time step, barostat and health limits."""
        from aldriver.explore import HealthLimits, MDProtocol, run_walker

        explore = self.recipe.explore
        protocol = MDProtocol(
            ensemble=ensemble,  # type: ignore[arg-type]
            flexible=explore.flexible,
            temperature_K=temperature_K,
            steps=steps,
            timestep_fs=explore.timestep_fs,
            sample_every=every,
            seed=seed,
        )
        health = HealthLimits(**explore.health.model_dump())
        return run_walker(potential, start, protocol, engine=explore.engine, health=health, group=group)

    def refine(self, frames: Sequence[Atoms], steps: int, out: Path, *, seed: int) -> Refined:
        """Refine the foundation on labelled frames with the recipe's settings, in about `steps` steps (fewer for few).

        Every :data:`HELD_BACK`-th frame is held back to choose the best epoch.
        """
        from aldriver.train import train

        valid, known = list(frames[::HELD_BACK]), [f for i, f in enumerate(frames) if i % HELD_BACK]
        settings = self.recipe.train
        epochs = min(MOST_EPOCHS, max(1, round(steps / -(-len(known) // settings.batch_size))))
        settings = settings.model_copy(update={"epochs": epochs})
        result = train(self.foundation, known, valid, settings, out, seed=seed)
        return Refined(potential=result.potential, e0_shift=result.e0_shift)

    def unrefined(self, frames: Sequence[Atoms]) -> Refined:
        """The foundation, its energies brought to the scale of labelled frames as well as possible."""
        from aldriver.train.energies import energy_shift

        shift = energy_shift(frames, self.foundation, self.recipe.train)
        return Refined(potential=self.foundation, e0_shift=shift)

    def test_frames(self) -> list[Atoms]:
        """Labelled frames of the truth's own MD, at the recipe's test temperatures, never trained on.

        Raises
        ------
        AldriverError
            When such a walker does not end in good health.
        """
        test = self.recipe.test
        assert test is not None
        every = test.steps // (test.frames_per_walker + 1)
        found: list[Atoms] = []
        for name, start in self.systems.items():
            for temperature in test.temperatures_K:
                label = f"{name}-{temperature:g}K"
                plan: dict[str, Any] = {"steps": test.steps, "every": every, "seed": len(found), "ensemble": "nvt"}
                result = self.walk(self.truth, start, temperature_K=temperature, group=f"test-{label}", **plan)
                if result.reason != "completed":
                    raise AldriverError(f"the truth's own MD of {label} ended early: {result.message}")
                found += result.frames[-test.frames_per_walker :]
        return self.labelled(found)

    def copies(self, *, seed: int) -> tuple[list[Atoms], list[Atoms]]:
        """Perturbed copies of the systems, to fit and to calibrate the detector of the foundation."""
        from aldriver.explore.perturb import rattle, strain

        rng = np.random.default_rng(seed)
        sides: tuple[list[Atoms], list[Atoms]] = ([], [])
        for atoms in self.systems.values():
            for i in range(COPIES + HELD_OUT_COPIES):
                moved = strain(atoms, STRAIN * rng.uniform(-1.0, 1.0))
                sides[i >= COPIES].append(rattle(moved, RATTLE_A, seed=int(rng.integers(2**31))))
        return sides


def errors(refined: Refined, frames: Sequence[Atoms]) -> dict[str, Any]:
    """Errors of a refined potential on labelled frames."""
    from aldriver.benchmark.evaluate import evaluate

    return dict(evaluate(refined.potential, frames, e0_shift=refined.e0_shift))
