"""Periodic against naive fine-tuning, after Wong & Yang (arXiv:2603.10159), with equal labels and MD time.

*Naive*: several trajectories of the foundation, all labels at once. *Periodic*: one trajectory, refined after each
interval on all labels so far and continued with the refined potential. On the quickstart's iron with a vacancy, where
an EAM potential is the exact truth. Each run is one seed and is computed once; the script may be interrupted and
started again, and several processes may share the work (``--part 1/2`` and ``--part 2/2``). Results in
``docs/periodic.json``, tables and figure on ``docs/periodic.md``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.testing import periodic_page, runs
from aldriver.testing.closed_loop import HELD_BACK, MOST_EPOCHS, Loop, Refined, errors

if TYPE_CHECKING:
    from ase import Atoms

SEEDS = 2
SYSTEM, TEMPERATURE_K = "vacancy", 900.0
INTERVALS, LABELS = 5, 10
"""Trajectories (naive) or intervals of the trajectory (periodic), and labels of each."""
SETTLE, EVERY = 100, 40
"""MD steps before the first label of each, and between two."""
LONG = 1500
"""Steps of the last trajectory of the two final potentials."""
TRAINING_STEPS = 200
STEPS = SETTLE + LABELS * EVERY
CONSTANTS = {
    "system": SYSTEM,
    "temperature_K": TEMPERATURE_K,
    "intervals": INTERVALS,
    "labels": LABELS,
    "settle": SETTLE,
    "every": EVERY,
    "long": LONG,
    "training_steps": TRAINING_STEPS,
    "most_epochs": MOST_EPOCHS,
    "held_back": HELD_BACK,
}


def compute(name: str, data: Path | None, work: Path) -> dict[str, Any]:
    """One seed: both ways of collecting labels, then errors on independent frames, in MD, and in a longer MD."""
    seed = int(name.rpartition("-")[2])
    shutil.rmtree(work, ignore_errors=True)
    loop = Loop()
    test = loop.test_frames()
    unrefined = loop.unrefined(test)
    models = {"U": unrefined, **naive(loop, unrefined, work, seed=seed), **periodic(loop, unrefined, work, seed=seed)}
    start = start_cell(loop, seed=1000 + seed)
    in_md = {}
    for k, (label, model) in enumerate(models.items()):
        frames = settled(loop, model, start, steps=STEPS, seed=100 * seed + k)
        in_md[label] = measured(loop, model, frames)
    last = {label: models[label] for label in (f"N-{INTERVALS * LABELS}", f"FT{INTERVALS}")}
    own = {label: settled(loop, model, start, steps=LONG, seed=100 * seed) for label, model in last.items()}
    return {
        "seed": seed,
        "independent": {label: errors(model, test) for label, model in models.items()},
        "in_md": in_md,
        "long": {
            f"{judged} on {walked}": measured(loop, model, frames)
            for walked, frames in own.items()
            for judged, model in last.items()
        },
    }


def naive(loop: Loop, unrefined: Refined, work: Path, *, seed: int) -> dict[str, Refined]:
    """Potentials N-X: X labels of the foundation's own trajectories, each from a start of its own."""
    known: list[Atoms] = []
    found = {}
    for k in range(INTERVALS):
        start = start_cell(loop, seed=100 * seed + k)
        frames = settled(loop, unrefined, start, steps=STEPS, seed=100 * seed + 10 + k)
        known += loop.labelled(frames[:LABELS])
        label = f"N-{(k + 1) * LABELS}"
        found[label] = loop.refine(known, TRAINING_STEPS, work / label, seed=seed)
    return found


def periodic(loop: Loop, unrefined: Refined, work: Path, *, seed: int) -> dict[str, Refined]:
    """Potentials FT1, FT2, ...: one trajectory, continued with the last of them after each interval."""
    known: list[Atoms] = []
    found: dict[str, Refined] = {}
    model, start = unrefined, start_cell(loop, seed=100 * seed)
    for k in range(INTERVALS):
        frames = settled(loop, model, start, steps=STEPS, seed=100 * seed + 10 + k)
        known += loop.labelled(frames[:LABELS])
        start = frames[-1] if frames else start_cell(loop, seed=100 * seed + k + 1)
        model = found[f"FT{k + 1}"] = loop.refine(known, TRAINING_STEPS, work / f"FT{k + 1}", seed=seed)
    return found


def start_cell(loop: Loop, *, seed: int) -> Atoms:
    """The system, rattled."""
    from aldriver.explore.perturb import rattle

    return rattle(loop.systems[SYSTEM], max(loop.recipe.explore.rattle_A, 0.02), seed=seed)


def settled(loop: Loop, model: Refined, start: Atoms, *, steps: int, seed: int) -> list[Atoms]:
    """Frames of a trajectory after its first steps; fewer when it leaves physics."""
    result = loop.walk(
        model.potential, start, temperature_K=TEMPERATURE_K, steps=steps, every=EVERY, seed=seed, group=f"walk-{seed}"
    )
    return [frame for frame in result.frames if frame.info["step"] > SETTLE]


def measured(loop: Loop, model: Refined, frames: Sequence[Atoms]) -> dict[str, Any]:
    """Errors on frames of an MD, and the mean of E − E_truth (meV/atom); only the count when there is no frame."""
    from aldriver.benchmark.evaluate import reference_energy

    if not frames:
        return {"n_frames": 0}
    told = loop.labelled(frames)
    predicted = model.potential.evaluate(told, stress=False)
    off = [(p.energy - reference_energy(f, model.e0_shift)) / len(f) for f, p in zip(told, predicted, strict=True)]
    return {"residual_meV_atom": 1e3 * float(np.mean(off)), **errors(model, told)}


def study() -> runs.Study:
    """The study, for :func:`aldriver.testing.runs.main`."""
    return runs.Study(
        name="periodic",
        what=__doc__ or "",
        constants=CONSTANTS,
        runs=[f"seed-{seed}" for seed in range(SEEDS)],
        compute=compute,
        summary=periodic_page.summary,
        sections=periodic_page.sections,
        figure=periodic_page.draw,
    )


if __name__ == "__main__":
    raise SystemExit(runs.main(study()))
