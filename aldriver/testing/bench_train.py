"""CHGNet beside chgnet's own ``Trainer``: loss, CPU time and memory at equal data, epochs and batch.

Run by ``aldriver.testing.bench``. Each side trains in a process of its own (``python -m aldriver.testing.bench_train
SIDE SEED FRAMES RESULT``), from the same weights on the same labels in the same order, with the loss both know: Huber,
weights 1, 1 and 0.1.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.errors import AldriverError
from aldriver.core.frames import label_of, read_frames, with_labels, write_frames
from aldriver.core.recipe_train import LossWeights, Replay, Train
from aldriver.core.units import EV_A3_TO_GPA, voigt_to_matrix
from aldriver.testing.bench import BenchResult, bench
from aldriver.testing.vendors import NO_WORSE, LoopOrder, as_good, published

VERSION = "0.3.0"
SETTINGS = Train(
    epochs=4,
    batch_size=2,
    learning_rate=1e-3,
    weights=LossWeights(energy=1.0, forces=1.0, stress=0.1),
    memory_limit_GB=64.0,
    e0_shift="never",
    ewc=0.0,
    replay=Replay(source="none"),
)
PER_ELEMENT = (12, 4)
"""Training and validation frames of Mo and of Si. An epoch has the ten batches that chgnet's cosine needs to end: with
fewer, its rate ends higher than asked for (batches of 4: at a third of the peak; its loss was then 8 % below ours)."""
SEEDS = (0, 1, 2)
WHAT = f"24 Mo and Si cells, batch 2, E, F and stress, CHGNet {VERSION}"


@functools.cache
def measured() -> dict[str, list[dict[str, Any]]]:
    """Trainings of each side, one for each of :data:`SEEDS`, in turn.

    Raises
    ------
    Skipped
        Without the labelled frames.
    """
    found: dict[str, list[dict[str, Any]]] = {"theirs": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.extxyz"
        write_frames(frames, mo_and_si())
        for seed in SEEDS:
            for side, told in found.items():
                told.append(_side(side, seed, frames, Path(folder)))
    return found


def compared(key: str) -> tuple[list[Any], list[Any]]:
    """A number of each training of theirs, and of ours."""
    found = measured()
    return [one[key] for one in found["theirs"]], [one[key] for one in found["ours"]]


@bench("chgnet_training")
def chgnet_training(repeats: int = 1) -> BenchResult:
    """CPU time of an epoch, with validation and checkpoint; here and below, `repeats` changes nothing."""
    theirs, ours = (list(chain.from_iterable(times)) for times in compared("epochs_s"))
    return BenchResult(
        name="chgnet_training",
        what=f"epoch of {WHAT}, CPU time: chgnet's Trainer / aldriver",
        ratios=[t / o for t, o in zip(theirs, ours, strict=True)],
        baseline_ms=1e3 * statistics.median(theirs),
        ours_ms=1e3 * statistics.median(ours),
        target=NO_WORSE,
    )


@bench("chgnet_training_memory")
def chgnet_training_memory(repeats: int = 1) -> BenchResult:
    """Peak of the whole process, libraries and data included."""
    theirs, ours = compared("peak_GB")
    return BenchResult(
        name="chgnet_training_memory",
        what=f"peak memory (columns in MB) of training on {WHAT}: chgnet's Trainer / aldriver",
        ratios=[t / o for t, o in zip(theirs, ours, strict=True)],
        baseline_ms=1024 * statistics.median(theirs),
        ours_ms=1024 * statistics.median(ours),
        target=NO_WORSE,
    )


@bench("chgnet_loss")
def chgnet_loss(repeats: int = 1) -> BenchResult:
    """Validation loss that is reached in equal epochs: the best of chgnet's files over ours."""
    theirs, ours = compared("loss")
    ratios = [t / o for t, o in zip(theirs, ours, strict=True)]
    return BenchResult(
        name="chgnet_loss",
        what=f"validation loss (columns: 1e-3), {SETTINGS.epochs} epochs of {WHAT}: chgnet's Trainer / aldriver",
        ratios=ratios,
        baseline_ms=1e3 * statistics.median(theirs),
        ours_ms=1e3 * statistics.median(ours),
        target=as_good(ratios),
        by_mean=True,
        notes={"start": measured()["ours"][0]["before"], "theirs": theirs, "ours": ours},
    )


def mo_and_si() -> list[Atoms]:
    """Training frames, then validation frames, evenly picked from the published sets; energies on CHGNet's scale."""
    from aldriver import load
    from aldriver.train import fit_e0_shift, shifted_energy

    sides: tuple[list[Atoms], list[Atoms]] = ([], [])
    for element in ("Mo", "Si"):
        known = published(f"{element}_train")
        picked = np.linspace(0, len(known) - 1, sum(PER_ELEMENT)).astype(int)
        for k, index in enumerate(picked):
            sides[k % 4 == 3].append(known[index])
    shift = fit_e0_shift(sides[0], load(f"chgnet:{VERSION}"))
    return [
        with_labels(
            a, energy=shifted_energy(a, label_of(a, "energy"), shift), forces=a.get_forces(), stress=a.get_stress()
        )
        for a in [*sides[0], *sides[1]]
    ]


def _side(side: str, seed: int, frames: Path, folder: Path) -> dict[str, Any]:
    result = folder / f"{side}-{seed}.json"
    module = [sys.executable, "-W", "ignore", "-m", "aldriver.testing.bench_train"]
    command = [*module, side, str(seed), str(frames), str(result)]
    child = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if child.returncode != 0:
        raise AldriverError(f"the training of {side} failed: {child.stderr.strip()[-500:]}")
    return json.loads(result.read_text())


def train_ours(known: Sequence[Atoms], unseen: Sequence[Atoms], folder: Path, seed: int) -> dict[str, Any]:
    """Our training: everything it does each epoch, drift and checkpoint included."""
    from aldriver import load
    from aldriver.train import train

    times = []
    result = train(
        load(f"chgnet:{VERSION}"),
        known,
        unseen,
        SETTINGS,
        folder,
        seed=seed,
        on_epoch=lambda line: times.append(time.process_time()),
    )
    return {"times": times, "loss": result.after["loss"], "before": result.before["loss"]}


def train_theirs(known: Sequence[Atoms], unseen: Sequence[Atoms], folder: Path, seed: int) -> dict[str, Any]:
    """chgnet's training, the frames in the order of ours; the loss is the best of its files, by our measure."""
    from chgnet.model import CHGNet

    model = CHGNet.load(model_name=VERSION, use_device="cpu", verbose=False)
    trainer = their_trainer(model, SETTINGS)
    times, save = [], trainer.save_checkpoint
    losses: list[float] = []

    def timed(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        times.append(time.process_time())
        losses.append(_loss(trainer.model, unseen))

    trainer.save_checkpoint = timed
    loaders = [
        their_loader(side, order, SETTINGS.batch_size)
        for side, order in ((known, LoopOrder(len(known), seed=seed)), (unseen, range(len(unseen))))
    ]
    trainer.train(*loaders, save_dir=str(folder))
    return {"times": times, "loss": min(losses), "losses": losses}


def their_trainer(model: Any, settings: Train, **options: Any) -> Any:
    """chgnet's trainer with the loss and the rate of our settings."""
    from chgnet.trainer import Trainer

    return Trainer(
        model=model,
        targets="efs",
        criterion="Huber",
        delta=settings.huber_delta,
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        use_device="cpu",
        **options,
    )


def their_loader(frames: Sequence[Atoms], order: Any, batch_size: int) -> Any:
    """chgnet's data set of labelled frames, in an order."""
    from chgnet.data.dataset import StructureData, collate_graphs
    from pymatgen.io.ase import AseAtomsAdaptor
    from torch.utils.data import DataLoader

    bare = [Atoms(a.symbols, a.positions, cell=a.cell, pbc=True) for a in frames]
    data: Any = StructureData(
        structures=[AseAtomsAdaptor.get_structure(atoms) for atoms in bare],
        energies=[a.get_potential_energy() / len(a) for a in frames],
        forces=[a.get_forces() for a in frames],
        stresses=[
            (-10.0 * EV_A3_TO_GPA * voigt_to_matrix(a.get_stress())).tolist() for a in frames
        ],  # kbar, VASP's sign
        shuffle=False,
    )
    return DataLoader(data, batch_size=batch_size, collate_fn=collate_graphs, sampler=order)


def _loss(model: Any, frames: Sequence[Atoms]) -> float:
    """Our validation loss of a network as it is now."""
    import copy

    from aldriver.potentials.chgnet import CHGNetPotential
    from aldriver.train.base import make_adapter
    from aldriver.train.loss import make_example
    from aldriver.train.metrics import measure

    adapter = make_adapter(CHGNetPotential(copy.deepcopy(model)))
    return float(measure(adapter, [make_example(adapter, a, None) for a in frames], SETTINGS)["loss"] or 0.0)


def main(arguments: Sequence[str]) -> None:
    """One side: train, and write loss, CPU seconds of the epochs after the first, and the peak of the process."""
    import resource

    import torch

    torch.set_num_threads(1)
    side, seed, path, result = arguments[0], int(arguments[1]), arguments[2], Path(arguments[3])
    frames = read_frames(path, labelled=True)
    n = len(frames) * PER_ELEMENT[0] // sum(PER_ELEMENT)
    folder = result.with_suffix("")
    folder.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        told = (train_ours if side == "ours" else train_theirs)(frames[:n], frames[n:], folder, seed)
    times = told.pop("times")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0**2
    told |= {"epochs_s": [b - a for a, b in pairwise(times)], "peak_GB": peak}
    result.write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
