"""DFT behind the contract of a potential, and two properties of a metal or semiconductor by the same steps for both.

Each evaluation is a label in a label store, so that nothing is computed twice, whoever stops in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from aldriver.core.errors import AldriverError
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.potentials.base import Potential, Prediction
from aldriver.testing.real_cells import with_vacancy

if TYPE_CHECKING:
    from aldriver.benchmark.eos import EOSFit

VOLUMES = (0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06)
"""Of the E–V curve, over that of the start cell."""
RECENTRED = 5
"""Attempts at having the minimum amid them."""
FORCE_TOLERANCE, MOST_STEPS = 0.02, 60
"""Of the relaxed vacancy, eV/Å and steps."""
START_RATTLE_A = 0.02
"""Symmetric sites would forbid the neighbours of a vacancy to pair up."""
CONSTANTS = {"volumes": VOLUMES, "vacancy_fmax_eV_A": FORCE_TOLERANCE, "vacancy_rattle_A": START_RATTLE_A}


class Labelled(Potential):
    """The label engine of a recipe as a potential.

    Parameters
    ----------
    settings
        The recipe's label block.
    store
        Folder of the labels.
    """

    family = "dft"

    def __init__(self, settings: LabelBlock, elements: Sequence[str], store: Path) -> None:
        from aldriver.label import make_labeler

        self.settings, self.store = settings, store
        self.labeler, self.spec = make_labeler(settings, list(elements))
        self.name, self.elements, self.fingerprint = self.spec.level, frozenset(elements), self.spec.digest()
        if problems := self.labeler.preflight():
            raise AldriverError("cannot label here: " + "; ".join(problems))
        store.mkdir(parents=True, exist_ok=True)

    def evaluate(
        self, frames: Sequence[Atoms], *, stress: bool = True, features: bool = False, batch_atoms: int | None = None
    ) -> list[Prediction]:
        """Label each frame.

        Raises
        ------
        AldriverError
            When a frame gets no label.
        """
        from aldriver.label import LabelLimits
        from aldriver.label.cache import label_frame

        limits, found = LabelLimits.of(self.settings), []
        for frame in frames:
            label = label_frame(frame, self.labeler, self.spec, self.store, limits=limits)
            if not label.ok or label.energy is None or label.forces is None:
                raise AldriverError(f"{self.name} gave {frame.get_chemical_formula()} no label: {label.reason}")
            found.append(Prediction(energy=label.energy, forces=label.forces, stress=label.stress))
        return found


@dataclass(frozen=True, kw_only=True)
class Properties:
    """What a potential, or DFT, says of the campaign's cells.

    Attributes
    ----------
    lattice_constant
        Of the cubic cell, Å.
    bulk_modulus
        GPa; both from a Birch–Murnaghan fit.
    vacancy_unrelaxed, vacancy_relaxed
        Formation energy at that lattice constant, eV.
    vacancy_steps, vacancy_converged
        Of the relaxation.
    """

    lattice_constant: float
    bulk_modulus: float
    vacancy_unrelaxed: float
    vacancy_relaxed: float
    vacancy_steps: int
    vacancy_converged: bool


def properties(potential: Potential, bulk: Atoms, a: float) -> Properties:
    """E–V curve and vacancy in the campaign's cell of `bulk`, whose cubic lattice constant is `a` (Å).

    E_f = E(N−1) − (N−1)/N E(N), in the fixed cell of the perfect crystal.
    """
    from aldriver.benchmark.relax import relax_positions

    fit = equation_of_state(potential, bulk)
    factor = (fit.volume / bulk.get_volume()) ** (1 / 3)
    perfect = _scaled(bulk, round(factor, 5))  # rounded: the last digits of the fit must not ask for a new label
    ideal = with_vacancy(perfect)
    start = ideal.copy()
    start.rattle(START_RATTLE_A, seed=0)
    energies = [p.energy for p in potential.evaluate([perfect, ideal], stress=False)]
    relaxed = relax_positions(potential, start, fmax=FORCE_TOLERANCE, max_steps=MOST_STEPS)
    share = (len(bulk) - 1) / len(bulk)
    return Properties(
        lattice_constant=a * factor,
        bulk_modulus=fit.bulk_modulus * EV_A3_TO_GPA,
        vacancy_unrelaxed=energies[1] - share * energies[0],
        vacancy_relaxed=relaxed.energy - share * energies[0],
        vacancy_steps=relaxed.steps,
        vacancy_converged=relaxed.converged,
    )


def equation_of_state(potential: Potential, bulk: Atoms) -> EOSFit:
    """Birch–Murnaghan fit to :data:`VOLUMES`, about another centre where the lowest lies at an end (other functionals).

    Raises
    ------
    AldriverError
        When no minimum is found in a few steps.
    """
    from aldriver.benchmark.eos import fit_birch_murnaghan

    centre = 1.0
    for _ in range(RECENTRED):
        cells = [_scaled(bulk, (centre * ratio) ** (1 / 3)) for ratio in VOLUMES]
        energies = [p.energy for p in potential.evaluate(cells, stress=False)]
        lowest = int(np.argmin(energies))
        if 2 <= lowest < len(VOLUMES) - 2:
            return fit_birch_murnaghan([c.get_volume() for c in cells], energies)
        centre *= VOLUMES[lowest]
    raise AldriverError(f"{potential.name}: no equilibrium volume near that of the campaign's cell")


def convergence(settings: LabelBlock, variants: dict[str, dict[str, Any]], frame: Atoms, store: Path) -> dict[str, Any]:
    """What other settings than the recipe's change on one frame: forces (RMS, meV/Å) and stress (largest, GPa)."""
    elements = sorted(set(frame.get_chemical_symbols()))
    usual = Labelled(settings, elements, store).evaluate([frame])[0]
    rows: dict[str, Any] = {}
    for name, change in variants.items():
        engine = settings.espresso.model_copy(update=change) if settings.espresso is not None else None
        other = Labelled(settings.model_copy(update={"espresso": engine}), elements, store).evaluate([frame])[0]
        assert usual.stress is not None and other.stress is not None
        rows[name] = {
            "forces_rms_meV_A": float(1e3 * np.sqrt(np.mean((other.forces - usual.forces) ** 2))),
            "stress_max_GPa": float(EV_A3_TO_GPA * np.abs(other.stress - usual.stress).max()),
        }
    return {"frame": frame.get_chemical_formula(), "forces_rms_meV_A": _rms(usual), "changes": rows}


def _rms(prediction: Prediction) -> float:
    return float(1e3 * np.sqrt(np.mean(prediction.forces**2)))


def _scaled(atoms: Atoms, factor: float) -> Atoms:
    out = atoms.copy()
    out.set_cell(np.asarray(atoms.cell) * factor, scale_atoms=True)
    return out
