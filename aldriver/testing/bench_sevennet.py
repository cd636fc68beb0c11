"""SevenNet's training beside sevenn's own trainer: loss reached, time per epoch, memory.

The measurement runs in the Python that has sevenn (``python -m aldriver.testing.bench_sevennet FILE`` there); the
benches registered here, for ``aldriver.testing.bench``, start it and read its numbers.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aldriver.core.config import backend_python
from aldriver.core.errors import AldriverError
from aldriver.core.frames import label_of, with_labels
from aldriver.core.recipe_train import LossWeights, Train
from aldriver.core.records import dumps
from aldriver.testing.bench import BenchResult, Skipped, bench, paired
from aldriver.testing.vendors import NO_WORSE, LoopOrder, as_good, published

BATCH, EPOCHS, RATE, DELTA = 2, 3, 1e-3, 0.01
SEEDS = (0, 1, 2)
CASES = {"": "10 cells of 16 Fe atoms", "_mixed": "12 cells of 2 to 54 Mo atoms"}
"""Ending of a bench's name: what it is measured on."""


# ---- in the Python that has sevenn -----------------------------------------------------------------------------------


def iron_frames(n: int, *, seed: int = 0) -> list[Atoms]:
    """Distorted bcc cells of 16 atoms, labelled by an EAM potential (energies on the foundation's scale)."""
    from aldriver import load

    teacher, rng, frames = load("eam:Fe_mm.eam.fs"), np.random.default_rng(seed), []
    perfect = bulk("Fe", "bcc", a=2.86)
    shift = _foundation().evaluate([perfect])[0].energy - teacher.evaluate([perfect])[0].energy
    for _ in range(n):
        atoms = bulk("Fe", "bcc", a=2.86, cubic=True) * (2, 2, 2)
        atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        p = teacher.evaluate([atoms])[0]
        frames.append(with_labels(atoms, energy=p.energy + len(atoms) * shift, forces=p.forces, stress=p.stress))
    return frames


def molybdenum_frames() -> tuple[list[Atoms], list[Atoms]]:
    """Published cells of all sizes to train on, and four to validate; energies on the foundation's scale."""
    from aldriver.train import fit_e0_shift, shifted_energy

    pool = sorted(published("Mo_train"), key=len)  # a stable sort: of equal ones the first
    by_size = {len(a): a for a in reversed(pool)}
    known = [*by_size.values(), pool[-1]]
    unseen = [*published("Mo_test")[::8][:3], next(a for a in pool if len(a) == 22 and a is not by_size[22])]
    shift = fit_e0_shift(known, _foundation())

    def shifted(atoms: Atoms) -> Atoms:
        energy = shifted_energy(atoms, label_of(atoms, "energy"), shift)
        return with_labels(atoms, energy=energy, forces=label_of(atoms, "forces"), stress=label_of(atoms, "stress"))

    return [shifted(a) for a in known], [shifted(a) for a in unseen]


class Theirs:
    """sevenn's trainer as ``sevenn train`` sets it up from its ``fine_tune`` preset, but for the learning rate.

    The frames come in the order in which our loop takes them.
    """

    def __init__(
        self, train: Sequence[Atoms], valid: Sequence[Atoms], folder: Path, *, seed: int = 0, stress: bool = True
    ) -> None:
        import sevenn.util
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.error_recorder import ErrorRecorder
        from sevenn.train.dataload import atoms_to_graph
        from sevenn.train.trainer import Trainer
        from torch_geometric.loader import DataLoader

        checkpoint = sevenn.util.load_checkpoint("7net-0")
        self.config = checkpoint.config | {
            "loss": "huber",
            "loss_param": {"delta": DELTA},
            "optimizer": "adam",
            "optim_param": {"lr": RATE},
            "scheduler": "exponentiallr",
            "scheduler_param": {"gamma": 0.99},
            "force_loss_weight": 1.0,
            "stress_loss_weight": 0.01,
            "is_train_stress": stress,
            "error_record": [["Energy", "RMSE"], ["Force", "RMSE"], ["Stress", "RMSE"], ["TotalLoss", "None"]],
            "device": "cpu",
            "is_ddp": False,
        }
        self.trainer = Trainer.from_config(checkpoint.build_model(), self.config)
        self.recorder = ErrorRecorder.from_config(self.config, self.trainer.loss_functions)
        cutoff, self.folder = self.config["cutoff"], folder

        def loader(frames: Sequence[Atoms], order: Any) -> Any:
            graphs = [atoms_to_graph(a, cutoff, transfer_info=False, y_from_calc=True) for a in frames]
            data: Any = [AtomGraphData.from_numpy_dict(g) for g in graphs]
            return DataLoader(data, batch_size=BATCH, sampler=order)

        self.loaders = loader(train, LoopOrder(len(train), seed=seed)), loader(valid, range(len(valid)))

    def epoch(self, k: int = 0) -> None:
        """One epoch: training, validation, checkpoint."""
        self.trainer.run_one_epoch(self.loaders[0], is_train=True, error_recorder=self.recorder)
        self.recorder.epoch_forward()
        self.trainer.run_one_epoch(self.loaders[1], error_recorder=self.recorder)
        self.recorder.epoch_forward()
        self.trainer.scheduler_step()
        self.trainer.write_checkpoint(str(self.folder / "checkpoint.pth"), config=self.config, epoch=k)

    def step(self, batch: Sequence[int]) -> None:
        """One step on these frames."""
        loader: Any = type(self.loaders[0])(self.loaders[0].dataset, batch_size=len(batch), sampler=batch)
        self.trainer.run_one_epoch(loader, is_train=True, error_recorder=self.recorder)


class Ours:
    """The training loop with the same batch, loss and constant learning rate, and like sevenn's without averages.

    An average over so few steps would say more of the first weights than of the last.
    """

    def __init__(
        self, train: Sequence[Atoms], valid: Sequence[Atoms], folder: Path, *, epochs: int, seed: int = 0
    ) -> None:
        from aldriver.train.base import make_adapter
        from aldriver.train.loop import TrainingLoop
        from aldriver.train.loss import make_example

        self.settings = Train(
            batch_size=BATCH,
            epochs=epochs,
            learning_rate=RATE,
            schedule="constant",
            weights=LossWeights(energy=1.0, forces=1.0, stress=0.1),  # theirs: 0.01 per kbar
            huber_delta=DELTA,
            ema_decay=0.0,
            e0_shift="never",
            ewc=0.0,
        )
        self.adapter = make_adapter(_foundation())
        self.adapter.set_trainable(self.settings)
        known, self.unseen = ([make_example(self.adapter, a, None) for a in side] for side in (train, valid))
        folder.mkdir(parents=True, exist_ok=True)
        self.loop = TrainingLoop(self.adapter, known, self.unseen, self.settings, folder, seed=seed, key="bench")
        self.loop.state.micro_batch = BATCH

    def epoch(self, k: int = 0) -> None:
        """One epoch: training, validation, checkpoint."""
        self.loop._epoch()

    def step(self, batch: Sequence[int]) -> None:
        """One step on these frames."""
        self.loop._step([self.loop.train[i] for i in batch])
        self.loop._update()

    def errors(self, state: Any = None) -> dict[str, float | None]:
        """Validation errors, of other weights where given."""
        from aldriver.train.base import make_adapter
        from aldriver.train.metrics import measure

        adapter = self.adapter
        if state is not None:
            adapter = make_adapter(_foundation())
            adapter.module.load_state_dict(state)
        return measure(adapter, self.unseen, self.settings)


@functools.cache
def _foundation() -> Any:
    from aldriver import load

    return load("sevennet:7net-0")


def losses(train: Sequence[Atoms], valid: Sequence[Atoms], folder: Path, seed: int) -> dict[str, Any]:
    """Validation errors before training, and the best of each side within :data:`EPOCHS`."""
    theirs = Theirs(train, valid, folder, seed=seed)
    ours = Ours(train, valid, folder / f"ours-{seed}", epochs=EPOCHS, seed=seed)
    before, same = ours.errors(), ours.errors(theirs.trainer.model.state_dict())
    if not np.isclose(float(same["loss"] or 0.0), float(before["loss"] or 0.0), rtol=1e-4):
        raise AldriverError("the two sides do not start from the same loss: nothing to compare")
    found = []
    for k in range(EPOCHS):
        theirs.epoch(k)
        found.append(ours.errors(theirs.trainer.model.state_dict()))
    ours.loop.run()
    return {"before": before, "theirs": min(found, key=lambda e: e["loss"] or np.inf), "ours": ours.errors()}


def measurement(train: Sequence[Atoms], valid: Sequence[Atoms], folder: Path, repeats: int) -> dict[str, Any]:
    """Losses after equal epochs, and time and memory of an epoch in pairs."""
    from aldriver.train.memory import process_peak_GB

    loss = [losses(train, valid, folder, seed) for seed in SEEDS]
    theirs, ours = Theirs(train, valid, folder), Ours(train, valid, folder / "timed", epochs=1000)
    ratios, theirs_ms, ours_ms = paired(theirs.epoch, ours.epoch, repeats)

    def taken(epoch: Callable[[int], Any]) -> float:
        low, peak = process_peak_GB(lambda: epoch(0))
        return 1024.0 * (peak - low)

    memory = [(taken(theirs.epoch), taken(ours.epoch)) for _ in range(repeats)]
    largest = sorted(range(len(train)), key=lambda i: len(train[i]))[-BATCH:]
    tensors = {"theirs": tensors_MB(theirs.step, largest), "ours": tensors_MB(ours.step, largest)}
    times = {"ratios": ratios, "theirs_ms": theirs_ms, "ours_ms": ours_ms}
    return {"loss": loss, **times, "memory_MB": memory, "tensors_MB": tensors}


def tensors_MB(step: Callable[[Sequence[int]], Any], batch: Sequence[int]) -> float:
    """Most memory that torch has allocated at once in a step: without what the system's allocator adds, exact."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step(batch)
    events: Any = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return float(np.cumsum([size for _, size in changes]).max()) / 1024.0**2


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write the numbers as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", choices=CASES, default="")
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    frames = molybdenum_frames() if options.case else (iron_frames(10), iron_frames(4, seed=1))
    with tempfile.TemporaryDirectory() as folder:  # sevenn writes beside itself
        found = measurement(*frames, Path(folder), options.repeats)
    options.json.write_text(dumps(found))
    return 0


# ---- in any Python ---------------------------------------------------------------------------------------------------


@functools.cache
def measured(case: str, repeats: int) -> dict[str, Any]:
    """What the Python that has sevenn measures.

    Raises
    ------
    Skipped
        When there is none, or the frames are not here.
    """
    python = backend_python("sevennet")
    if python is None:
        raise Skipped("there is no Python for SevenNet here (make setup-sevennet)")
    if case:
        published("Mo_train")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.json"
        module = [str(python), "-m", "aldriver.testing.bench_sevennet"]
        command = [*module, str(path), "--repeats", str(repeats), f"--case={case}"]
        done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
        if done.returncode:
            raise AldriverError(f"the measurement in {python} failed: {done.stderr[-1000:]}")
        return dict(json.loads(path.read_text()))


def epoch_bench(repeats: int, *, case: str) -> BenchResult:
    """An epoch, with validation on four cells and a checkpoint: sevenn's trainer against our loop."""
    found = measured(case, repeats)
    return BenchResult(
        name=f"sevennet_epoch{case}",
        what=f"epoch of {CASES[case]}, batch 2, E, F and stress, 7net-0: sevenn's trainer / aldriver",
        ratios=found["ratios"],
        baseline_ms=found["theirs_ms"],
        ours_ms=found["ours_ms"],
        target=NO_WORSE,
    )


def memory_bench(repeats: int, *, case: str) -> BenchResult:
    """What an epoch of the same takes of memory, above what was there before it; as a note, a step on large cells."""
    found = measured(case, repeats)
    pairs = found["memory_MB"]
    return BenchResult(
        name=f"sevennet_training_memory{case}",
        what=f"memory of an epoch (columns in MB), batch 2 of {CASES[case]}, 7net-0: sevenn's trainer / aldriver",
        ratios=[t / o for t, o in pairs],
        baseline_ms=statistics.median(t for t, _ in pairs),
        ours_ms=statistics.median(o for _, o in pairs),
        target=NO_WORSE,
        notes={"tensors_MB": found["tensors_MB"]},
    )


def loss_bench(repeats: int, *, case: str) -> BenchResult:
    """Validation loss after the same epochs on the same frames: best of sevenn's trainer over best of our loop."""
    loss = measured(case, repeats)["loss"]
    ratios = [one["theirs"]["loss"] / one["ours"]["loss"] for one in loss]
    return BenchResult(
        name=f"sevennet_loss{case}",
        what=f"validation loss (columns: 1e-3), {EPOCHS} epochs of {CASES[case]}, 7net-0: sevenn's trainer / aldriver",
        ratios=ratios,
        baseline_ms=statistics.median(1e3 * one["theirs"]["loss"] for one in loss),
        ours_ms=statistics.median(1e3 * one["ours"]["loss"] for one in loss),
        target=as_good(ratios),
        by_mean=True,
        notes={"seeds": loss},
    )


for ending in CASES:
    bench(f"sevennet_epoch{ending}")(functools.partial(epoch_bench, case=ending))
    bench(f"sevennet_training_memory{ending}")(functools.partial(memory_bench, case=ending))
    bench(f"sevennet_loss{ending}")(functools.partial(loss_bench, case=ending))


if __name__ == "__main__":
    sys.exit(main())
