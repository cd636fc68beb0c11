"""Learning curves on public DFT data: what each strategy learns from how many frames, and what it forgets.

Each run trains once, is written to its own file and never computed twice; the script may be interrupted and started
again, and several processes may share the work (``--part 1/2`` and ``--part 2/2``). At the end all files are gathered
into one JSON and one figure (``docs/learning_curves.json``, ``docs/learning_curves.png``).

The elements learn from the cool part of the data (elastic cells, and the MD frames with the smaller half of forces), as
a campaign does; the published test frames hold hot and liquid ones, vacancies and surfaces too, and both errors are
given. Every fraction gets the same number of optimizer steps, so that few frames are seen more often.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.errors import InputError
from aldriver.core.frames import label_of, read_frames
from aldriver.core.recipe_train import Train
from aldriver.core.records import dumps, read_json
from aldriver.core.store import atomic_write

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.potentials import Potential

POOL, VALID, SEED = 40, 10, 11
"""Frames that are 100 %, frames the best epoch is chosen on, and the seed of everything."""
STEPS, BATCH = 240, 2
OTHERS = 5
STAND_IN_FRAMES = 12
"""Test frames of each other element on which the drift is measured."""
FRACTIONS = (0.1, 0.2, 1.0)
CHGNET, STAND_IN = "chgnet:0.2.0", "stand-in"
"""Where runs start; the second is a small MACE that learnt from CHGNet (:func:`stand_in`)."""
DATA: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Cu": (("mlearn/Cu_train_from_snap.extxyz",), ("mlearn/Cu_test.extxyz",)),
    "Mo": (("mlearn/Mo_train.extxyz",), ("mlearn/Mo_test.extxyz",)),
    "Si": (("mlearn/Si_train.extxyz",), ("mlearn/Si_test.extxyz",)),
    "Mo-Nb,W": (
        ("monbtaw/NbMo_SS.extxyz", "monbtaw/MoW_SS.extxyz", "monbtaw/Mo_Elastic.extxyz"),
        ("monbtaw/NbMo_Test.extxyz", "monbtaw/MoW_Test.extxyz"),
    ),
}
"""Name: files of training frames, files of test frames."""
ALONE: dict[str, Any] = {"ewc": 0.0, "replay": {"source": "none"}}
"""Nothing keeps what the foundation knows."""
STRATEGIES: dict[str, dict[str, Any]] = {
    "default": {},
    "scratch": {"strategy": "scratch", "learning_rate": 3e-3} | ALONE,
    "naive": {"strategy": "naive"} | ALONE,
    "naive-slow": {"strategy": "naive", "learning_rate": 1e-4} | ALONE,
    "model-5": {"strategy": "model-5"} | ALONE,
    "f4": {"strategy": "f4"} | ALONE,
    "replay": {"strategy": "naive", "ewc": 0.0, "replay": {"source": "self"}},
    "ewc": {"strategy": "naive", "ewc": 0.2, "replay": {"source": "none"}},
}
"""Name in the study: keys of the recipe's ``train`` block."""
OF_CHGNET = ("default", "scratch", "naive", "model-5", "replay", "ewc")
PROBES = {
    "Cu": "mlearn/Cu_test.extxyz",
    "Mo": "mlearn/Mo_test.extxyz",
    "Si": "mlearn/Si_test.extxyz",
    "Nb": "monbtaw/Nb_Test.extxyz",
    "W": "monbtaw/W_Test.extxyz",
}
"""Element: frames on which the drift from the foundation is measured (no label is used)."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Attributes
    ----------
    start
        As in ``aldriver.load``.
    data
        A key of :data:`DATA`.
    fraction
        Of the pool.
    leave_out
        Dopant the test is about: no frame with it is trained on (``strict``), or a few are (``relaxed``).
    """

    start: str
    data: str
    strategy: str
    fraction: float = 1.0
    leave_out: str = ""
    rule: str = ""

    @property
    def name(self) -> str:
        """Also the name of its file."""
        start = self.start.replace(":", "-").rpartition("/")[2]
        parts = [start, self.data.replace(",", "-"), self.strategy, f"{100 * self.fraction:g}"]
        return "_".join(parts + ([f"without-{self.leave_out}-{self.rule}"] if self.leave_out else []))


def runs() -> list[Run]:
    """All trainings of the study, the most telling first."""
    found = list[Run]()
    for start, data, strategies, fractions in (
        (CHGNET, "Si", OF_CHGNET, FRACTIONS),
        (CHGNET, "Mo", OF_CHGNET, FRACTIONS),
        (STAND_IN, "Mo", ("default", "scratch", "naive", "f4", "replay", "ewc"), FRACTIONS),
        (CHGNET, "Mo-Nb,W", OF_CHGNET, FRACTIONS),
        (CHGNET, "Cu", ("default", "naive", "replay", "model-5", "scratch"), (1.0,)),
        (CHGNET, "Si", ("naive-slow",), (1.0,)),
        (CHGNET, "Mo", ("naive-slow",), (1.0,)),
        (STAND_IN, "Mo", ("naive-slow",), (1.0,)),
    ):
        if (zero := Run(start=start, data=data, strategy="zero-shot")) not in found:
            found.append(zero)
        found += [
            Run(start=start, data=data, strategy=strategy, fraction=fraction)
            for fraction in reversed(fractions)
            for strategy in strategies
        ]
    for dopant in ("Nb", "W"):
        found += [
            Run(start=CHGNET, data="Mo-Nb,W", strategy=strategy, leave_out=dopant, rule=rule)
            for rule in ("strict", "relaxed")
            for strategy in ("scratch", "naive", "model-5")
        ]
    return found


def settings_of(run: Run, n_frames: int) -> Train:
    """Defaults of the recipe, with the same number of steps for every run."""
    values = dict(STRATEGIES.get(run.strategy, {"strategy": run.strategy}))
    steps_per_epoch = -(-n_frames // BATCH)
    epochs = max(1, round(STEPS / steps_per_epoch))
    return Train.model_validate({"epochs": epochs, "batch_size": BATCH} | values)


def frames_of(run: Run, data: Path) -> tuple[list[Atoms], list[Atoms], list[Atoms]]:
    """Training, validation and test frames of a run; smaller fractions are part of larger ones."""
    from aldriver.train.splits import iid_split, leave_one_dopant_out, nested_subsets

    known, test = ([f for file in files for f in _read(data, file)] for files in DATA[run.data])
    known = cool(known)
    if run.leave_out:
        known += _read(data, "monbtaw/NbW_SS.extxyz")
        test = [f for f in test if run.leave_out in f.get_chemical_symbols()]
        sides = leave_one_dopant_out(known, "Mo", run.leave_out, rule=run.rule, seed=SEED)  # type: ignore[arg-type]
    else:
        sides = iid_split(known, seed=SEED)
    pool = _some([known[i] for i in sides.train], POOL)
    valid = _some([known[i] for i in sides.valid], VALID)
    chosen = nested_subsets(pool, [run.fraction], seed=SEED, by="frame")[0]
    return [pool[i] for i in chosen], valid, test


def cool(frames: Sequence[Atoms]) -> list[Atoms]:
    """Elastic cells, and of the MD frames the half with the smaller RMS forces; other data sets are taken whole."""
    md = [f for f in frames if f.info["group"] == "AIMD-NVT"]
    if not md:
        return list(frames)
    sizes = {id(f): float(np.sqrt(np.mean(label_of(f, "forces") ** 2))) for f in md}
    limit = float(np.median(list(sizes.values())))
    return [f for f in frames if f.info["group"] == "Elastic" or sizes.get(id(f), np.inf) <= limit]


def stand_in(data: Path, folder: Path) -> Potential:
    """A small MACE that learnt the energies, forces and stresses CHGNet gives for cool frames of five elements.

    No foundation model of MACE can be shipped or fetched here: this one shows what strategies do to a network of that
    kind, not how good a real foundation is. It is made once and kept in `folder`.
    """
    from aldriver.core.frames import with_labels
    from aldriver.potentials import load
    from aldriver.potentials.bundle import save_bundle
    from aldriver.testing.small_mace import taught_mace

    if not (folder / "config.json").is_file():
        files = ("mlearn/Cu_train_from_snap", "mlearn/Mo_train", "mlearn/Si_train", "monbtaw/Nb_AIMD", "monbtaw/W_AIMD")
        frames = [f for file in files for f in _some(cool(_read(data, f"{file}.extxyz")), STAND_IN_FRAMES)]
        frames += [
            f for file in ("Nb", "W") for f in _some(_read(data, f"monbtaw/{file}_Elastic.extxyz"), STAND_IN_FRAMES)
        ]
        frames = [frames[i] for i in np.random.default_rng(SEED).permutation(len(frames))]
        told = load(CHGNET).evaluate(frames)
        labelled = [
            with_labels(f, energy=p.energy, forces=p.forces, stress=p.stress) for f, p in zip(frames, told, strict=True)
        ]
        elements = sorted({s for f in frames for s in f.get_chemical_symbols()})
        energies = {
            e: float(np.mean([label_of(f, "energy") / len(f) for f in labelled if e in f.symbols])) for e in elements
        }
        save_bundle(taught_mace(labelled, epochs=40, atomic_energies=energies, hidden_irreps="32x0e+32x1o"), folder)
    return load(folder)


def compute(run: Run, data: Path, work: Path) -> dict[str, Any]:
    """Train and measure: errors on the published test frames, drift on other elements and on the general probe."""
    from aldriver.benchmark.evaluate import evaluate
    from aldriver.potentials import load
    from aldriver.train import train

    foundation = stand_in(data, work.parent / "stand-in") if run.start == STAND_IN else load(run.start)
    known, valid, test = frames_of(run, data)
    settings = settings_of(run, len(known))
    result = train(foundation, known, valid, settings, work, seed=SEED, name=run.name)
    potential = result.trained or result.potential
    shift = result.e0_shift
    return {
        "name": run.name,
        **asdict(run),
        "n_train": len(known),
        "n_valid": len(valid),
        "n_test": len(test),
        "epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "accepted": result.accepted,
        "reason": result.reason,
        "trainable": result.trainable,
        "valid_before": result.before,
        "valid_after": result.after,
        "test": dict(evaluate(potential, test, e0_shift=shift)),
        "test_cool": dict(evaluate(potential, cool(test), e0_shift=shift)),
        "probe": {k: v for k, v in result.guards.items() if k != "reason"},
        "others": drift_on_others(foundation, potential, run, data),
        "cpu_s": round(result.cpu_s, 1),
    }


def drift_on_others(foundation: Potential, potential: Potential, run: Run, data: Path) -> dict[str, float]:
    """RMS change of the energy (meV/atom) on DFT-sampled frames of elements that were not trained on, and the mean."""
    trained = set(run.data.replace(",", "-").split("-"))
    found = {}
    for element, file in PROBES.items():
        if element in trained:
            continue
        frames = _some(_read(data, file), OTHERS)
        pairs = zip(potential.evaluate(frames, stress=False), foundation.evaluate(frames, stress=False), strict=True)
        change = [1e3 * (a.energy - b.energy) / len(f) for f, (a, b) in zip(frames, pairs, strict=True)]
        found[element] = float(np.sqrt(np.mean(np.square(change))))
    return found | {"mean": float(np.mean(list(found.values())))}


def _read(data: Path, file: str) -> list[Atoms]:
    if not (data / file).is_file():
        raise InputError(f"{data / file}: missing; give the folder that holds mlearn/ and monbtaw/ with --data")
    return read_frames(data / file, labelled=True)


def _some(frames: Sequence[Atoms], count: int) -> list[Atoms]:
    order = np.random.default_rng(SEED).permutation(len(frames))[:count]
    return [frames[i] for i in sorted(order)]


def published(path: Path, constants: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Runs of an earlier results file, by name; none where it was made with other constants."""
    if not path.is_file():
        return {}
    found = read_json(path)
    return {run["name"]: run for run in found["runs"]} if found["settings"] == constants else {}


def main(argv: Sequence[str] | None = None) -> int:
    """Compute what is missing, then gather all results and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mlearn/ and monbtaw/")
    parser.add_argument("--work", type=Path, default=Path("campaigns/learning-curves"))
    parser.add_argument("--part", default="1/1", help="k/n: every n-th run, from the k-th")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--results", type=Path, default=Path("docs/learning_curves.json"))
    options = parser.parse_args(argv)
    part, parts = (int(x) for x in options.part.split("/"))
    chosen = [run for run in runs() if options.only in run.name][part - 1 :: parts]
    constants = {"pool": POOL, "steps": STEPS, "batch": BATCH, "seed": SEED}
    known = published(options.results, constants)
    for k, run in enumerate(chosen, start=1):
        path = options.work / f"{run.name}.json"
        if path.is_file() or run.name in known:
            continue
        started = time.time()
        print(f"[{k}/{len(chosen)}] {run.name}", end="", flush=True)
        facts = compute(run, options.data, options.work / run.name)
        atomic_write(path, dumps(facts))
        error = facts["test"]["forces_rmse_meV_A"]
        print(
            f": {error:.0f} meV/Å, drift {facts['others']['mean']:.1f} meV/atom, {time.time() - started:.0f} s",
            flush=True,
        )
    files = {run.name: options.work / f"{run.name}.json" for run in runs()}
    known |= {name: read_json(path) for name, path in files.items() if path.is_file()}
    gathered = [known[name] for name in files if name in known]
    atomic_write(options.results, dumps({"what": __doc__, "settings": constants, "runs": gathered}))
    from aldriver.report.learning_curves import draw, write_tables

    draw(gathered, options.results.with_suffix(".png"))
    if (page := options.results.with_suffix(".md")).is_file():
        write_tables(page, gathered)
    print(f"{len(gathered)} of {len(runs())} runs in {options.results}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
