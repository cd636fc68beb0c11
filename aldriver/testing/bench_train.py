"""CHGNet beside chgnet's own ``Trainer``: loss, CPU time and memory at equal data, epochs and batch.

Run by ``aldriver.testing.bench``. Each side trains in a process of its own (``python -m aldriver.testing.bench_train
SIDE FRAMES RESULT``), from the same weights on the same labels, with the loss both know: Huber, weights 1, 1 and 0.1.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.errors import AldriverError
from aldriver.core.frames import label_of, read_frames, with_labels, write_frames
from aldriver.core.recipe_train import Replay, Train
from aldriver.core.units import EV_A3_TO_GPA, voigt_to_matrix
from aldriver.testing.bench import BenchResult, Skipped, bench

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mlearn"
VERSION = "0.3.0"
SETTINGS = Train(
    epochs=5,
    batch_size=4,
    learning_rate=1e-3,
    memory_limit_GB=64.0,
    e0_shift="never",
    ewc=0.0,
    replay=Replay(source="none"),
)
PER_ELEMENT = (12, 4)
"""Training and validation frames of Mo and of Si."""
NO_WORSE = 1 / 1.1
"""Of the ratio theirs to ours: up to 1.1 times as much."""
SCATTER = 1.02
"""Of the loss, from one order of the frames to another: what is within it is as good."""


@bench("chgnet_training")
def chgnet_training(repeats: int = 1) -> BenchResult:
    """CPU time of an epoch; loss and memory are checked beside it. One training of each side, whatever `repeats` says.

    Raises
    ------
    Skipped
        Without the labelled frames.
    AldriverError
        When our validation loss is above theirs, or our memory above 1.1 times theirs.
    """
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.extxyz"
        write_frames(frames, mo_and_si())
        theirs, ours = (_side(side, frames, Path(folder)) for side in ("theirs", "ours"))
    notes = {
        "validation_loss": {"start": ours["before"], "theirs": theirs["loss"], "ours": ours["loss"]},
        "peak_memory_GB": {"theirs": theirs["peak_GB"], "ours": ours["peak_GB"]},
    }
    if ours["loss"] > SCATTER * theirs["loss"]:
        raise AldriverError(f"our validation loss is above that of chgnet's Trainer: {notes['validation_loss']}")
    if ours["peak_GB"] * NO_WORSE > theirs["peak_GB"]:
        raise AldriverError(f"our memory is above 1.1 times that of chgnet's Trainer: {notes['peak_memory_GB']}")
    return BenchResult(
        name="chgnet_training",
        what=f"epoch of 24 Mo and Si cells, batch 4, E, F and stress, CHGNet {VERSION}: chgnet's Trainer / aldriver",
        ratios=[t / o for t, o in zip(theirs["epochs_s"], ours["epochs_s"], strict=True)],
        baseline_ms=1e3 * statistics.median(theirs["epochs_s"]),
        ours_ms=1e3 * statistics.median(ours["epochs_s"]),
        target=NO_WORSE,
        notes=notes,
    )


def mo_and_si() -> list[Atoms]:
    """Training frames, then validation frames, evenly picked from the published sets; energies on CHGNet's scale."""
    if not DATA.is_dir():
        raise Skipped("the published frames of Mo and Si are not here")
    from aldriver import load
    from aldriver.train import fit_e0_shift, shifted_energy

    sides: tuple[list[Atoms], list[Atoms]] = ([], [])
    for element in ("Mo", "Si"):
        known = read_frames(DATA / f"{element}_train.extxyz", labelled=True)
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


def _side(side: str, frames: Path, folder: Path) -> dict[str, Any]:
    result = folder / f"{side}.json"
    command = [sys.executable, "-W", "ignore", "-m", "aldriver.testing.bench_train", side, str(frames), str(result)]
    child = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if child.returncode != 0:
        raise AldriverError(f"the training of {side} failed: {child.stderr.strip()[-500:]}")
    return json.loads(result.read_text())


def train_ours(known: Sequence[Atoms], unseen: Sequence[Atoms], folder: Path) -> dict[str, Any]:
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
        seed=0,
        on_epoch=lambda line: times.append(time.process_time()),
    )
    return {"times": times, "loss": result.after["loss"], "before": result.before["loss"]}


def train_theirs(known: Sequence[Atoms], unseen: Sequence[Atoms], folder: Path) -> dict[str, Any]:
    """chgnet's training; the loss is the best of its files, by our measure."""
    from chgnet.data.dataset import StructureData, get_loader
    from chgnet.model import CHGNet
    from chgnet.trainer import Trainer
    from pymatgen.io.ase import AseAtomsAdaptor

    def loader(frames: Sequence[Atoms]) -> Any:
        data = StructureData(
            structures=[
                AseAtomsAdaptor.get_structure(Atoms(a.symbols, a.positions, cell=a.cell, pbc=True)) for a in frames
            ],
            energies=[a.get_potential_energy() / len(a) for a in frames],
            forces=[a.get_forces() for a in frames],
            stresses=[
                (-10.0 * EV_A3_TO_GPA * voigt_to_matrix(a.get_stress())).tolist() for a in frames
            ],  # kbar, VASP's sign
            shuffle=False,
        )
        return get_loader(data, batch_size=SETTINGS.batch_size, pin_memory=False)

    model = CHGNet.load(model_name=VERSION, use_device="cpu", verbose=False)
    trainer = Trainer(
        model=model,
        targets="efs",
        criterion="Huber",
        delta=SETTINGS.huber_delta,
        epochs=SETTINGS.epochs,
        learning_rate=SETTINGS.learning_rate,
        use_device="cpu",
        torch_seed=0,
        data_seed=1,
    )
    times, save = [], trainer.save_checkpoint
    losses: list[float] = []

    def timed(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        times.append(time.process_time())
        losses.append(_loss(trainer.model, unseen))

    trainer.save_checkpoint = timed  # type: ignore[method-assign]
    trainer.train(loader(known), loader(unseen), save_dir=str(folder))
    return {"times": times, "loss": min(losses), "losses": losses}


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
    side, frames, result = arguments[0], read_frames(arguments[1], labelled=True), Path(arguments[2])
    n = len(frames) * PER_ELEMENT[0] // sum(PER_ELEMENT)
    folder = result.with_suffix("")
    folder.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        told = (train_ours if side == "ours" else train_theirs)(frames[:n], frames[n:], folder)
    times = told.pop("times")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0**2
    told |= {"epochs_s": [b - a for a, b in pairwise(times)], "peak_GB": peak}
    result.write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
