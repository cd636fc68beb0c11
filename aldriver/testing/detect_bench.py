"""How well each signal finds the frames and atoms a potential gets wrong, what it costs, and whether promises hold.

CHGNet is refined on the cool part of public DFT data (elastic cells, and the MD frames with the smaller half of forces)
and judged on held-out frames: hot and liquid MD, vacancies, surfaces, and some like those it knows. Each run is one
element and one split; it trains a committee of three, scores the held-out frames with every signal and keeps what it
found, so that the script may be interrupted and started again, and several processes may share the work
(``--part 1/2`` and ``--part 2/2``). Results in ``docs/detection_bench.json``, tables in ``docs/detection_bench.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import frame_hash, label_of, read_frames
from aldriver.core.recipe_detect import Detect
from aldriver.core.recipe_train import Train
from aldriver.testing import detect_page, runs
from aldriver.testing.detect_scored import FUSED, HEADS, SIZE, SPLITS, TOLERANCES_MEV_A, Scored, coverage, ranking
from aldriver.testing.learning_curves import cool

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.detect import Detector
    from aldriver.potentials import Potential
    from aldriver.train import TrainResult

START = "chgnet:0.2.0"
ELEMENTS = ("Mo", "Si", "Cu")
FILES = {
    e: (f"mlearn/{e}_train{'_from_snap' if e == 'Cu' else ''}.extxyz", f"mlearn/{e}_test.extxyz") for e in ELEMENTS
}
REPEATS = 3
KNOWN = {"Elastic": 10, "cool": 22}
VALID = {"Elastic": 2, "cool": 6}
HELD_OUT = {"Elastic": 12, "cool": 16, "hot": 44, "Vacancy": 24, "Surface": 8}
"""Frames of each kind: trained on, to choose the best epoch, and scored."""
STEPS, BATCH, MEMBERS = 160, 2, 3
SIGNALS = ("soap_q", "soap_t2", "feature_q", "feature_t2", "feature_distance", "feature_neighbour")
TRAIN = {"strategy": "naive", "ewc": 0.0, "replay": {"source": "none"}, "batch_size": BATCH}
COST = "cost"
TIMES, COST_FRAMES = 5, 3
CONSTANTS = {
    "start": START,
    "known": KNOWN,
    "valid": VALID,
    "held_out": HELD_OUT,
    "steps": STEPS,
    "members": MEMBERS,
    "train": TRAIN,
    "fused": FUSED,
    "splits": SPLITS,
    "tolerances": TOLERANCES_MEV_A,
}


def names() -> list[str]:
    """All runs: a split of every element before the next split, then the costs."""
    return [f"{element}-{split}" for split in range(REPEATS) for element in ELEMENTS] + [COST]


def sides(frames: Sequence[Atoms], *, seed: int) -> tuple[list[Atoms], list[Atoms], list[Atoms]]:
    """Frames to train on, to validate on and to score, drawn by kind; no frame is on two sides.

    Where there are too few of a kind, all that are left are scored.
    """
    coolest = {frame_hash(f) for f in cool(frames)}
    kinds: dict[str, dict[str, Atoms]] = {}
    for frame in frames:
        kind = str(frame.info["group"])
        if kind == "AIMD-NVT":
            kind = "cool" if frame_hash(frame) in coolest else "hot"
        frame.info["kind"] = kind
        kinds.setdefault(kind, {})[frame_hash(frame)] = frame
    rng = np.random.default_rng(seed)
    found: tuple[list[Atoms], list[Atoms], list[Atoms]] = ([], [], [])
    for kind in sorted(kinds):
        same = [kinds[kind][name] for name in sorted(kinds[kind])]
        left = iter([same[i] for i in rng.permutation(len(same))])
        for side, wanted in zip(found, (KNOWN, VALID, HELD_OUT), strict=True):
            side.extend(islice(left, wanted.get(kind, 0)))
    return found


def settings_of(n_frames: int) -> Train:
    """Plain refinement of about :data:`STEPS` steps."""
    return Train.model_validate(TRAIN | {"epochs": max(1, round(STEPS / -(-n_frames // BATCH)))})


def compute(name: str, data: Path | None, work: Path) -> dict[str, Any]:
    """One run: train, score, rank and calibrate; what was scored is kept beside the trainings."""
    if name == COST:
        return {"costs": costs()}
    element, _, split = name.partition("-")
    work.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"element": element, "split": int(split)}
    path = work / "scored.npz"
    if not path.is_file():
        assert data is not None  # the study says that it needs data
        _trained(element, int(split), data, work).save(path)
    scored = Scored.load(path)
    kinds = {str(k): float(np.sqrt(np.mean(scored.errors[scored.kinds == k] ** 2))) for k in np.unique(scored.kinds)}
    return facts | {
        "n_frames": len(scored.sizes),
        "n_atoms": int(scored.sizes.sum()),
        "rmse_meV_A": 1e3 * float(np.sqrt(np.mean(scored.differences**2))),
        "error_by_kind_eV_A": kinds,
        "ranking": ranking(scored, seed=int(split)),
        "coverage": coverage(scored, seed=int(split)),
    }


def _trained(element: str, split: int, data: Path, work: Path) -> Scored:
    """Train until a committee is together; its best member (of the validation loss) is the potential that is judged.

    Raises
    ------
    InputError
        When the data are missing.
    AldriverError
        When twice as many trainings as the committee needs do not make one.
    """
    from aldriver.potentials import load
    from aldriver.train import train
    from aldriver.train.committee import choose

    frames = []
    for file in FILES[element]:
        if not (data / file).is_file():
            raise InputError(f"{data / file}: missing; give the folder that holds mlearn/ with --data")
        frames += read_frames(data / file, labelled=True)
    known, valid, held_out = sides(frames, seed=split)
    foundation, settings = load(START), settings_of(len(known))
    results: dict[str, TrainResult] = {}
    for k in range(2 * MEMBERS):
        out = work / f"member-{k}"
        results[out.name] = train(foundation, known, valid, settings, out, seed=2 * MEMBERS * split + k)
        if len(fit := choose(results).members) == MEMBERS:
            return score(fit[0].potential, [one.potential for one in fit[1:]], known, held_out)
    raise AldriverError(f"{element}, split {split}: of {len(results)} trainings only {len(fit)} make a committee")


def score(potential: Potential, members: Sequence[Potential], known: list[Atoms], frames: list[Atoms]) -> Scored:
    """All signals of labelled frames, with a detector fitted on known ones."""
    from aldriver.detect import Detector

    settings = Detect.model_validate({"signals": [*SIGNALS, "committee"]})
    detector = Detector.fit(known, potential, settings, members=members)
    predictions = potential.evaluate(frames, stress=False, features=True)
    measured = [s for s, _ in detector.signals.of_atoms(frames, potential, [p.features for p in predictions])]
    signals = {name: np.concatenate([s[name] for s in measured]) for name in detector.signals.names}
    signals[SIZE] = np.concatenate([np.linalg.norm(p.forces, axis=1) for p in predictions])
    labels = [np.asarray(label_of(a, "forces"), dtype=float) for a in frames]
    return Scored(
        sizes=np.array([len(a) for a in frames]),
        kinds=np.array([str(a.info["kind"]) for a in frames]),
        differences=np.concatenate([f - p.forces for f, p in zip(labels, predictions, strict=True)]),
        signals=signals,
        layer=np.concatenate([potential.last_layer_forces([a])[0] for a in frames]).astype(np.float32),
        known_layer=np.concatenate([potential.last_layer_forces([a])[0] for a in known]).astype(np.float32),
        typical={name: float(np.median(values)) for name, values in detector.train_scores.items()},
    )


def costs() -> dict[str, float]:
    """CPU time that each signal adds to an MD step of 108 Cu atoms, as a share of the step; and the step, in ms.

    The step asks for energy and forces; the features a signal needs are part of its cost.
    """
    from aldriver.detect import Detector
    from aldriver.potentials import load
    from aldriver.testing.bench import rattled_copper

    potential, atoms = load(START), rattled_copper()
    known = []
    for seed in range(COST_FRAMES):
        frame = atoms.copy()
        frame.rattle(0.1, seed=seed)
        known.append(frame)
    step = potential.stepper(atoms)
    positions, cell = atoms.positions, np.asarray(atoms.cell)
    features = potential.features([atoms])
    plain, with_features = _quickest(
        lambda: step(positions, cell, stress=False), lambda: step(positions, cell, stress=False, features=True)
    )
    found = {"step_ms": 1e3 * plain, "committee": (MEMBERS - 1.0)}
    for name in (*SIGNALS, "last_layer", f"last_layer, {HEADS} samples"):
        plain_name, _, samples = name.partition(",")
        layer = {"heads": HEADS if samples else 0}
        detector = Detector.fit(known, potential, Detect.model_validate({"signals": [plain_name], "last_layer": layer}))
        (taken,) = _quickest(_scorer(detector, potential, atoms, features))
        extra = max(0.0, with_features - plain) if name.startswith("feature") else 0.0
        found[name] = (taken + extra) / plain
    return found


def _scorer(detector: Detector, potential: Potential, atoms: Atoms, features: list[Any]) -> Callable[[], Any]:
    return lambda: detector.signals.of_atoms([atoms], potential, features)


def _quickest(*functions: Callable[[], Any]) -> list[float]:
    """Least CPU seconds of each, called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for k in range(TIMES + 1):
        for function, found in zip(functions, times, strict=True):
            start = time.process_time()
            function()
            if k:
                found.append(time.process_time() - start)
    return [min(found) for found in times]


def study() -> runs.Study:
    """The study, for :func:`aldriver.testing.runs.main`."""
    return runs.Study(
        name="detection_bench",
        what=__doc__ or "",
        constants=CONSTANTS,
        runs=names(),
        compute=compute,
        summary=detect_page.summary,
        sections=detect_page.sections,
        needs_data=True,
        printed=("verdict", "ranking", "coverage"),
    )


if __name__ == "__main__":
    raise SystemExit(runs.main(study()))
