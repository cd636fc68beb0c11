"""MACE beside mace itself: an epoch of training, its memory, and an evaluation. Run by ``aldriver.testing.bench``."""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aldriver.core.errors import AldriverError
from aldriver.core.frames import label_of, with_labels
from aldriver.testing.bench import BenchResult, bench, paired, rattled_copper

BATCH = 4
SLOWER = 0.909
"""Of the ratio theirs to ours: 1.1 times as much."""
SETTINGS = {"batch_size": BATCH, "epochs": 1000, "learning_rate": 1e-3, "ema_decay": 0.99, "schedule": "constant"}


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


def their_epoch(potential: Any, train: Sequence[Atoms], valid: Sequence[Atoms], folder: Path) -> Callable[[int], Any]:
    """One epoch as ``mace_run_train`` does it, with validation and checkpoint."""
    import torch

    from aldriver.potentials.mace_arch import build_module
    from aldriver.potentials.mace_library import mace_library

    arch = {key: value for key, value in potential.arch.items() if key != "head"}
    module: Any = build_module(arch, potential.module.state_dict(), scripted=True).to(potential.dtype)
    with mace_library():
        from mace import modules, tools
        from mace.tools.train import evaluate, train_one_epoch
        from torch_ema import ExponentialMovingAverage

        loaders = [their_loader(side, potential, shuffle=k == 0) for k, side in enumerate((train, valid))]
        loss = modules.UniversalLoss(energy_weight=1.0, forces_weight=10.0, stress_weight=10.0)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, amsgrad=True)
    schedule: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    ema = ExponentialMovingAverage(module.parameters(), decay=0.99)
    handler = tools.CheckpointHandler(directory=str(folder), tag="bench", keep=False)
    metrics = tools.MetricsLogger(directory=str(folder), tag="bench")
    common: dict[str, Any] = {
        "model": module,
        "loss_fn": loss,
        "output_args": {"forces": True, "virials": False, "stress": True},
        "device": torch.device("cpu"),
    }

    def epoch(k: int) -> None:
        options = {"optimizer": optimizer, "ema": ema, "logger": metrics, "max_grad_norm": 10.0, "epoch": k}
        train_one_epoch(data_loader=loaders[0], distributed=False, **options, **common)
        with ema.average_parameters():
            evaluate(data_loader=loaders[1], **common)
            handler.save(tools.CheckpointState(module, optimizer, schedule), epochs=k, keep_last=False)

    return epoch


def their_loader(frames: Sequence[Atoms], potential: Any, *, shuffle: bool) -> Any:
    """mace's loader of labelled frames."""
    from mace import data
    from mace.tools import torch_geometric, utils

    table = utils.AtomicNumberTable(potential.numbers)
    configs = []
    for atoms in frames:
        plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        plain.info = {"REF_energy": label_of(atoms, "energy"), "REF_stress": label_of(atoms, "stress")}
        plain.arrays["REF_forces"] = np.asarray(label_of(atoms, "forces"))
        keys = data.KeySpecification(
            info_keys={"energy": "REF_energy", "stress": "REF_stress"}, arrays_keys={"forces": "REF_forces"}
        )
        configs.append(data.config_from_atoms(plain, key_specification=keys))
    graphs: Any = [data.AtomicData.from_config(c, z_table=table, cutoff=potential.cutoff) for c in configs]
    return torch_geometric.dataloader.DataLoader(graphs, batch_size=BATCH, shuffle=shuffle, drop_last=False)


def _both(folder: Path) -> tuple[Any, Any]:
    from aldriver.testing.small_mace import small_mace

    logging.getLogger().setLevel(logging.WARNING)
    potential = small_mace(("Cu",), atomic_energies={"Cu": -3.0}, avg_num_neighbors=18.0)
    train, valid = copper_frames(24), copper_frames(8, seed=1)
    theirs = their_epoch(potential, train, valid, folder / "theirs")
    return theirs, our_epoch(potential, train, valid, folder / "ours")


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
        target=SLOWER,
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
        target=SLOWER,
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
