"""How many labels three samplers need for the same error: fixed interval, random, and aldriver's detector.

On the quickstart's iron, where an EAM potential is the exact truth. All samplers get the same MD budget, the same
number of labels in each generation and the same training; they differ in which frames of their MD they label. Each run
is one sampler with one seed and is computed once; the script may be interrupted and started again, and several
processes may share the work (``--part 1/2`` and ``--part 2/2``). Results in ``docs/labels_saved.json``, table and
figure on ``docs/labels_saved.md``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.testing import labels_page, runs
from aldriver.testing.closed_loop import HELD_BACK, MOST_EPOCHS, Loop, Refined, errors

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.detect import Detector

SAMPLERS = ("interval", "random", "aldriver")
SEEDS = 4
GENERATIONS, LABELS, AUDIT = 7, 4, 1
STEPS, EVERY = 200, 10
"""MD steps of each walker in each generation, and steps between candidates."""
STRAIN = 0.005
TRAINING_STEPS = 160
CONSTANTS = {
    "generations": GENERATIONS,
    "labels": LABELS,
    "audit": AUDIT,
    "steps": STEPS,
    "every": EVERY,
    "strain": STRAIN,
    "training_steps": TRAINING_STEPS,
    "most_epochs": MOST_EPOCHS,
    "held_back": HELD_BACK,
}


def names() -> list[str]:
    """All runs, one seed after the other."""
    return [f"{sampler}-{seed}" for seed in range(SEEDS) for sampler in SAMPLERS]


def compute(name: str, data: Path | None, work: Path) -> dict[str, Any]:
    """One run: in each generation MD with the newest potential, labels, a training from the foundation, its errors."""
    sampler, _, number = name.partition("-")
    seed = int(number)
    shutil.rmtree(work, ignore_errors=True)
    loop = Loop()
    test = loop.test_frames()
    refined = loop.unrefined(test)
    points = [{"labels": 0, **errors(refined, test)}]
    walkers = start_cells(loop, seed=seed)
    known: list[Atoms] = []
    reasons: dict[str, int] = {}
    for generation in range(1, GENERATIONS + 1):
        candidates = []
        for k, (group, (start, temperature)) in enumerate(list(walkers.items())):
            plan: dict[str, Any] = {"steps": STEPS, "every": EVERY, "seed": 1000 * seed + 10 * generation + k}
            result = loop.walk(refined.potential, start, temperature_K=temperature, group=group, **plan)
            reasons[result.reason] = reasons.get(result.reason, 0) + 1
            candidates += result.frames
            walkers[group] = (result.last if result.reason == "completed" else _fresh(loop, group, seed), temperature)
        chosen = pick(sampler, candidates, loop, refined, known, seed=1000 * seed + generation)
        order = np.random.default_rng(1000 * seed + generation).permutation(len(chosen))
        known += loop.labelled([candidates[chosen[i]] for i in order])
        out = work / f"generation-{generation}"
        refined = loop.refine(known, TRAINING_STEPS, out, seed=1000 * seed + generation)
        points.append({"labels": len(known), **errors(refined, test)})
    return {"sampler": sampler, "seed": seed, "points": points, "walkers_ended": reasons}


def start_cells(loop: Loop, *, seed: int) -> dict[str, tuple[Atoms, float]]:
    """Walkers by name: rattled start cell and temperature; the same for every sampler."""
    found = {}
    for name in loop.systems:
        for temperature in loop.recipe.explore.temperatures_K:
            group = f"{name}-{temperature:g}"
            found[group] = (_fresh(loop, group, seed), float(temperature))
    return found


def _fresh(loop: Loop, group: str, seed: int) -> Atoms:
    from aldriver.explore.perturb import rattle, strain

    cell = strain(loop.systems[group.rpartition("-")[0]], STRAIN)
    return rattle(cell, loop.recipe.explore.rattle_A, seed=seed)


def pick(
    sampler: str, candidates: Sequence[Atoms], loop: Loop, refined: Refined, known: Sequence[Atoms], *, seed: int
) -> list[int]:
    """Which candidates get a label; they come walker by walker, oldest first."""
    if sampler == "interval":
        return at_intervals(len(candidates), LABELS)
    if sampler == "random":
        rng = np.random.default_rng(seed)
        return sorted(int(i) for i in rng.permutation(len(candidates))[:LABELS])
    return by_detector(candidates, loop, refined, known, seed=seed)


def at_intervals(n: int, labels: int) -> list[int]:
    """The last of each of `labels` equal pieces of the MD, as periodic fine-tuning labels it (Wong & Yang 2026)."""
    pieces = min(n, labels)
    return [(k + 1) * n // pieces - 1 for k in range(pieces)]


def by_detector(
    candidates: Sequence[Atoms], loop: Loop, refined: Refined, known: Sequence[Atoms], *, seed: int
) -> list[int]:
    """As a campaign's select stage does: worst first, unlike each other, an audit, the budget filled up."""
    from aldriver.core.frames import frame_hash
    from aldriver.detect import Selector

    potential = refined.potential
    detector = fitted_detector(loop, refined, known, seed=seed)
    scores = detector.score(candidates, potential)
    selector = Selector(seed=seed, audit=AUDIT)
    selector.add(
        [frame_hash(frame) for frame in candidates],
        [one.ratio for one in scores],
        detector.frame_vectors(candidates, potential=potential),
        refused=["unphysical" if one.unphysical else "" for one in scores],
    )
    vectors = detector.frame_vectors(known, potential=potential) if known else None
    return selector.select(budget=LABELS, known=vectors, fill=True).indices


def fitted_detector(loop: Loop, refined: Refined, known: Sequence[Atoms], *, seed: int) -> Detector:
    """Detector of the recipe: of perturbed copies while there are no labels, then of the labels trained on."""
    from aldriver.detect import Detector

    settings = loop.recipe.detect
    if not known:
        copies, others = loop.copies(seed=seed)
        return Detector.fit(copies, refined.potential, settings, heldout=others)
    seen = [frame for i, frame in enumerate(known) if i % HELD_BACK]
    return Detector.fit(seen, refined.potential, settings, heldout=list(known[::HELD_BACK]))


def study() -> runs.Study:
    """The study, for :func:`aldriver.testing.runs.main`."""
    return runs.Study(
        name="labels_saved",
        what=__doc__ or "",
        constants=CONSTANTS,
        runs=names(),
        compute=compute,
        summary=labels_page.summary,
        sections=labels_page.sections,
        figure=labels_page.draw,
    )


if __name__ == "__main__":
    raise SystemExit(runs.main(study()))
