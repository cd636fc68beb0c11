"""MACE beside mace itself: an epoch of training, its memory, and an evaluation. Run by ``aldriver.testing.bench``."""

from __future__ import annotations

import logging
import os
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
from ase.io import write

from aldriver.core.errors import AldriverError
from aldriver.core.frames import label_of, with_labels
from aldriver.core.units import voigt_to_matrix
from aldriver.testing.bench import BenchResult, bench, paired, rattled_copper
from aldriver.testing.vendors import NO_WORSE, LoopOrder, as_good, published

BATCH = 4
STRESS = 10.0
"""Weight of the stress in mace's loss."""
SETTINGS: dict[str, Any] = {
    "batch_size": BATCH,
    "epochs": 1000,
    "learning_rate": 1e-3,
    "ema_decay": 0.99,
    "schedule": "constant",
}


SAME: dict[str, Any] = {
    "batch_size": BATCH,
    "epochs": 10,
    "learning_rate": 0.01,
    "ema_decay": 0.99,
    "schedule": "constant",  # theirs lowers the rate after 50 epochs without progress
    "huber_delta": 0.01,
    # of the same force as theirs at 1.5 GPa: their term is quadratic up to there, ours linear
    "weights": {"energy": 1.0, "forces": 10.0, "stress": 0.06},
    "e0_shift": "never",
    "ewc": 0.0,
    "replay": {"source": "none"},
}
"""Of our training beside ``mace_run_train`` (whose default learning rate it is)."""


def copper_frames(n: int, *, seed: int = 0) -> list[Atoms]:
    """Distorted cells of 32 atoms, labelled by an EAM potential."""
    from aldriver import load

    teacher, rng, frames = load("eam:AlCu.eam.alloy"), np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (2, 2, 2)
        atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        p = teacher.evaluate([atoms])[0]
        frames.append(with_labels(atoms, energy=p.energy, forces=p.forces, stress=p.stress))
    return frames


def our_epoch(potential: Any, train: Sequence[Atoms], valid: Sequence[Atoms], folder: Path) -> Callable[[int], Any]:
    """One epoch of the training loop, with validation and checkpoint."""
    from aldriver.core.recipe_train import Train
    from aldriver.train.base import make_adapter
    from aldriver.train.loop import TrainingLoop
    from aldriver.train.loss import make_example

    settings = Train.model_validate(SETTINGS)
    adapter = make_adapter(potential)
    adapter.set_trainable(settings)
    known, unseen = ([make_example(adapter, a, None) for a in side] for side in (train, valid))
    folder.mkdir(parents=True)
    loop = TrainingLoop(adapter, known, unseen, settings, folder, seed=0, key="bench")
    loop.state.micro_batch = BATCH
    return lambda k: loop._epoch()


class Theirs:
    """mace's own functions for one training, as ``mace_run_train`` calls them.

    Parameters
    ----------
    seed
        Of the order of the frames, which is that of our loop.
    """

    def __init__(
        self,
        potential: Any,
        train: Sequence[Atoms],
        valid: Sequence[Atoms],
        folder: Path,
        *,
        seed: int = 0,
        huber_delta: float = 0.01,
        amsgrad: bool = True,
        batch_size: int = BATCH,
    ) -> None:
        import torch

        from aldriver.potentials.mace_arch import build_module
        from aldriver.potentials.mace_library import mace_library

        arch = {key: value for key, value in potential.arch.items() if key != "head"}
        self.module: Any = build_module(arch, potential.module.state_dict(), scripted=True).to(potential.dtype)
        with mace_library(dtype=potential.dtype):
            from mace import modules, tools
            from torch_ema import ExponentialMovingAverage

            orders = (LoopOrder(len(train), seed=seed), range(len(valid)))
            sides = zip((train, valid), orders, strict=True)
            self.loaders = [their_loader(side, potential, order, batch_size) for side, order in sides]
            weights = {"energy_weight": 1.0, "forces_weight": 10.0, "stress_weight": STRESS}
            loss = modules.UniversalLoss(**weights, huber_delta=huber_delta)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=SETTINGS["learning_rate"], amsgrad=amsgrad)
        self.schedule: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer)
        self.ema = ExponentialMovingAverage(self.module.parameters(), decay=SETTINGS["ema_decay"])
        self.handler = tools.CheckpointHandler(directory=str(folder), tag="bench", keep=False)
        self.metrics = tools.MetricsLogger(directory=str(folder), tag="bench")
        self.common: dict[str, Any] = {
            "model": self.module,
            "loss_fn": loss,
            "output_args": {"forces": True, "virials": False, "stress": True},
            "device": torch.device("cpu"),
        }

    def epoch(self, k: int = 0) -> None:
        """One epoch: training, validation, checkpoint."""
        from mace import tools
        from mace.tools.train import evaluate, train_one_epoch

        options = {"optimizer": self.optimizer, "ema": self.ema, "logger": self.metrics, "max_grad_norm": 10.0}
        train_one_epoch(data_loader=self.loaders[0], distributed=False, epoch=k, **options, **self.common)
        with self.ema.average_parameters():
            evaluate(data_loader=self.loaders[1], **self.common)
            state = tools.CheckpointState(self.module, self.optimizer, self.schedule)
            self.handler.save(state, epochs=k, keep_last=False)

    def averaged(self) -> dict[str, Any]:
        """The averaged weights, by name."""
        with self.ema.average_parameters():
            return {name: p.detach().clone() for name, p in self.module.named_parameters()}


def their_loader(frames: Sequence[Atoms], potential: Any, order: Any, batch_size: int = BATCH) -> Any:
    """mace's loader of labelled frames, in an order."""
    from mace import data
    from mace.tools import torch_geometric, utils

    table = utils.AtomicNumberTable(potential.numbers)
    keys = data.KeySpecification(
        info_keys={"energy": "REF_energy", "stress": "REF_stress"}, arrays_keys={"forces": "REF_forces"}
    )
    configs = [data.config_from_atoms(named_as_theirs(atoms), key_specification=keys) for atoms in frames]
    graphs: Any = [data.AtomicData.from_config(c, z_table=table, cutoff=potential.cutoff) for c in configs]
    return torch_geometric.dataloader.DataLoader(graphs, batch_size=batch_size, sampler=order, drop_last=False)


def named_as_theirs(atoms: Atoms) -> Atoms:
    """A frame with its labels under the names mace reads."""
    plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    plain.info = {"REF_energy": label_of(atoms, "energy"), "REF_stress": label_of(atoms, "stress")}
    plain.arrays["REF_forces"] = np.asarray(label_of(atoms, "forces"))
    return plain


def _both(folder: Path) -> tuple[Any, Any]:
    from aldriver.testing.small_mace import small_mace

    logging.getLogger().setLevel(logging.WARNING)
    potential = small_mace(("Cu",), atomic_energies={"Cu": -3.0}, avg_num_neighbors=18.0)
    train, valid = copper_frames(24), copper_frames(8, seed=1)
    theirs = Theirs(potential, train, valid, folder / "theirs")
    return theirs.epoch, our_epoch(potential, train, valid, folder / "ours")


@bench("mace_epoch")
def mace_epoch(repeats: int = 7) -> BenchResult:
    """An epoch over 24 cells of 32 atoms with validation on 8 and a checkpoint: mace's functions against our loop."""
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = _both(Path(folder))
        ratios, baseline_ms, ours_ms = paired(theirs, ours, repeats)
    return BenchResult(
        name="mace_epoch",
        what="epoch of 24 cells of 32 Cu atoms, batch 4, E, F and stress: mace_run_train's functions / aldriver",
        ratios=ratios,
        baseline_ms=baseline_ms,
        ours_ms=ours_ms,
        target=NO_WORSE,
    )


@bench("mace_training_memory")
def mace_training_memory(repeats: int = 3) -> BenchResult:
    """What an epoch of the same takes of memory, above what was there before it."""
    from aldriver.train.memory import process_peak_GB

    def taken(epoch: Callable[[int], Any], k: int) -> float:
        before, peak = process_peak_GB(lambda: epoch(k))
        return 1024.0 * (peak - before)

    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = _both(Path(folder))
        theirs(-1), ours(-1)
        pairs = [(taken(theirs, k), taken(ours, k)) for k in range(repeats)]
    return BenchResult(
        name="mace_training_memory",
        what="memory of an epoch (columns in MB), batch 4 of 32 Cu atoms: mace_run_train's functions / aldriver",
        ratios=[t / o for t, o in pairs],
        baseline_ms=statistics.median(t for t, _ in pairs),
        ours_ms=statistics.median(o for _, o in pairs),
        target=NO_WORSE,
    )


# ---- the losses that are reached -------------------------------------------------------------------------------------


def silicon() -> tuple[Any, list[Atoms], list[Atoms]]:
    """A small network that has seen Mo and Si; 24 frames of Si to refine it on, and 12 of a file of their own."""
    from aldriver.testing.small_mace import taught_mace

    pool = [a for a in published("Si_train") if len(a) > 60]
    order = np.random.default_rng(0).permutation(len(pool))
    known, seen = ([pool[i] for i in part] for part in (order[:24], order[24:36]))
    both = [a for pair in zip(published("Mo_train")[::16], seen, strict=False) for a in pair]
    means = {a.get_chemical_symbols()[0]: label_of(a, "energy") / len(a) for a in both}
    start = taught_mace(both, epochs=8, atomic_energies=means, avg_num_neighbors=16.0)
    return start, known, published("Si_test")[::2][:12]


def with_mace_run_train(start: Any, known: Sequence[Atoms], unseen: Sequence[Atoms], folder: Path, seed: int) -> Any:
    """The potential that ``mace_run_train`` ends with: its best epoch, averaged."""
    from aldriver.potentials.mace_convert import convert_model
    from aldriver.potentials.mace_vendor import save_vendor

    folder.mkdir()
    save_vendor(start, folder / "start.model")
    write(folder / "train.xyz", [named_as_theirs(a) for a in known])
    write(folder / "valid.xyz", [named_as_theirs(a) for a in unseen])
    options = {
        "name": "theirs",
        "train_file": "train.xyz",
        "valid_file": "valid.xyz",
        "foundation_model": "start.model",
        "foundation_model_elements": True,
        "multiheads_finetuning": False,
        "E0s": "foundation",
        "loss": "universal",
        "energy_weight": 1,
        "forces_weight": 10,
        "stress_weight": STRESS,
        "batch_size": BATCH,
        "valid_batch_size": BATCH,
        "lr": SAME["learning_rate"],
        "max_num_epochs": SAME["epochs"],
        "ema_decay": SAME["ema_decay"],
        "seed": seed,
        "device": "cpu",
        "default_dtype": "float32",
        "plot": False,
        "work_dir": "work",
    }
    command = [sys.executable, "-m", "mace.cli.run_train", "--ema", *(f"--{k}={v}" for k, v in options.items())]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AldriverError(f"mace_run_train failed: {done.stderr[-1000:]}")
    return convert_model(folder / "work" / "theirs.model", trust_pickle=True)


def errors(potential: Any, frames: Sequence[Atoms]) -> dict[str, float]:
    """mace's own (universal) loss of a potential, and errors: eV/atom, eV/Å, eV/Å³ (RMSE)."""
    from torch import as_tensor
    from torch.nn.functional import huber_loss

    predictions = potential.evaluate(frames)
    residuals = {
        "energy": [(p.energy - label_of(a, "energy")) / len(a) for a, p in zip(frames, predictions, strict=True)],
        "forces": [p.forces - label_of(a, "forces") for a, p in zip(frames, predictions, strict=True)],
        "stress": [voigt_to_matrix(p.stress - label_of(a, "stress")) for a, p in zip(frames, predictions, strict=True)],
    }
    flat = {key: as_tensor(np.concatenate([np.ravel(v) for v in values])) for key, values in residuals.items()}
    weights = {"energy": 1.0, "forces": 10.0, "stress": STRESS}
    loss = sum(w * float(huber_loss(flat[k], 0 * flat[k], delta=SAME["huber_delta"])) for k, w in weights.items())
    return {"loss": loss} | {key: float(values.square().mean().sqrt()) for key, values in flat.items()}


@bench("mace_loss")
def mace_loss(repeats: int = 4) -> BenchResult:
    """Validation loss by mace's measure after equal epochs from the same weights: ``mace_run_train`` over ``train()``.

    As many seeds as repeats, at least three.
    """
    from aldriver.core.recipe_train import Train
    from aldriver.train import train

    logging.getLogger().setLevel(logging.WARNING)
    start, known, unseen = silicon()
    settings, found = Train.model_validate(SAME), []
    for seed in range(max(3, repeats)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            theirs = with_mace_run_train(start, known, unseen, folder / "theirs", seed)
            ours = train(start, known, unseen, settings, folder / "ours", seed=seed).trained
        found.append({"theirs": errors(theirs, unseen), "ours": errors(ours, unseen)})
    ratios = [one["theirs"]["loss"] / one["ours"]["loss"] for one in found]
    return BenchResult(
        name="mace_loss",
        what=f"validation loss (columns: 1e-3), {SAME['epochs']} epochs of 24 cells of Si: mace_run_train / aldriver",
        ratios=ratios,
        baseline_ms=statistics.median(1e3 * one["theirs"]["loss"] for one in found),
        ours_ms=statistics.median(1e3 * one["ours"]["loss"] for one in found),
        target=as_good(ratios),
        by_mean=True,
        notes={"start": errors(start, unseen), "seeds": found},
    )


@bench("mace_evaluation")
def mace_evaluation(repeats: int = 7) -> BenchResult:
    """Energy, forces and stress of 108 atoms: ours along a trajectory against mace's own ASE calculator."""
    from aldriver.potentials.mace_arch import build_module
    from aldriver.potentials.mace_library import mace_library
    from aldriver.testing.small_mace import small_mace

    potential = small_mace(("Cu",), hidden_irreps="32x0e+32x1o", correlation=3, max_ell=3, r_max=5.0)
    arch = {key: value for key, value in potential.arch.items() if key != "head"}
    module = build_module(arch, potential.module.state_dict(), scripted=True).to(potential.dtype)
    with mace_library():
        from mace.calculators import MACECalculator

        theirs = MACECalculator(models=module, device="cpu", default_dtype="float32")
    atoms = rattled_copper()
    stepper = potential.stepper(atoms)

    def frame(k: int) -> Atoms:
        moved = atoms.copy()
        moved.rattle(0.001, seed=k + 1)
        return moved

    def run_theirs(k: int) -> Any:
        theirs.calculate(frame(k))
        return theirs.results

    def run_ours(k: int) -> Any:
        moved = frame(k)
        return stepper(moved.positions, np.asarray(moved.cell))

    for k in range(3):  # TorchScript is optimised in the first calls
        off = float(np.abs(run_theirs(k)["forces"] - run_ours(k).forces).max())
    if off > 1e-4:
        raise AldriverError(f"forces differ from mace's by {off:.1e} eV/Å: nothing to compare")
    ratios, baseline_ms, ours_ms = paired(run_theirs, run_ours, repeats)
    return BenchResult(
        name="mace_evaluation",
        what="E, F and stress of 108 Cu atoms, MACE 32x0e+32x1o: MACECalculator / aldriver",
        ratios=ratios,
        baseline_ms=baseline_ms,
        ours_ms=ours_ms,
        notes={"max_force_difference_eV_A": off, "atoms": len(atoms)},
    )
