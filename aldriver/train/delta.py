"""Δ-learning: the foundation stays as it is, a small network learns what is missing between it and the labels.

The correction is trained by the ordinary ``train()`` on labels minus base; what is judged is the sum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from aldriver.core.frames import label_of, with_labels
from aldriver.core.recipe_train import Delta, Guard, Replay, Train
from aldriver.potentials.base import Potential
from aldriver.potentials.delta import DeltaPotential
from aldriver.potentials.neighbours import NeighbourList
from aldriver.potentials.network import NetworkPotential
from aldriver.train import TrainResult, judge, prepare, train
from aldriver.train.base import BatchPrediction, TrainAdapter
from aldriver.train.energies import energy_shift, shift_of, shifted_energy
from aldriver.train.guard import Probe, judge_forgetting
from aldriver.train.loss import make_example
from aldriver.train.metrics import Metrics, measure

SMALLEST_SCALE_EV_A = 1e-3
"""The correction is scaled by the forces the base misses (RMS), and by no less than this."""
CHGNET_BOND_CUTOFF_A = 3.0


def train_delta(
    start: Potential,
    train_frames: Sequence[Atoms],
    valid_frames: Sequence[Atoms],
    settings: Train,
    out: Path,
    *,
    seed: int,
    foundation: Potential | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    name: str | None = None,
) -> TrainResult:
    """Train a correction to `start`; arguments, result and errors are those of :func:`aldriver.train.train`.

    A start that is a sum already keeps its base; its correction is trained further where it knows all elements. Replay
    and consolidation do not apply: the base is not changed. Metrics are those of the sum; the loss before is that of
    `start`. The result knows the elements of the training frames only.
    """
    started, cpu = time.perf_counter(), time.process_time()
    prepare.check_sides(train_frames, valid_frames)
    foundation = start if foundation is None else foundation
    base = start.base if isinstance(start, DeltaPotential) else start
    scaled = prepare.on_scale_of(base, [*train_frames, *valid_frames])  # together: all are corrected, or none
    train_frames, valid_frames = scaled[: len(train_frames)], scaled[len(train_frames) :]
    shift = energy_shift(train_frames, base, settings)
    missing = residual_frames(base, train_frames, shift)
    unseen = residual_frames(base, valid_frames, shift)
    correction = _correction_to_start_from(start, missing, settings, seed)
    inner = settings.model_copy(
        update={
            "strategy": "naive",
            "replay": Replay(source="none"),
            "ewc": 0.0,
            "guard": Guard(),
            "e0_shift": "never",
            "proxies": {},
            "weights": settings.weights.model_copy(update={"magmoms": 0.0}),
        }
    )
    result = train(correction, missing, unseen, inner, Path(out), seed=seed, on_epoch=on_epoch)
    before = result.before if _continues(start, missing) else errors_of_nothing(unseen, inner)
    accepted, reason = judge(before["loss"], result.after["loss"], result.best_epoch)
    accepted = accepted and result.accepted  # a network kept as it came in corrects nothing
    refined = DeltaPotential(
        base, result.potential, elements=_trained_elements(start, missing), name=name or f"{base.name} corrected"
    )
    guards: dict[str, Any] = {}
    if result.best_epoch > 0:
        probe = Probe(foundation, exclude=prepare.elements_of(train_frames))
        kept, why, guards = judge_forgetting(settings.guard, foundation, refined, probe)
        guards = {**guards, "reason": why}
        accepted, reason = accepted and kept, reason if kept else f"{reason}; {why}"
    return TrainResult(
        potential=refined if accepted else start,
        accepted=accepted,
        reason=reason,
        history=result.history,
        e0_shift=shift,
        before=before,
        after=result.after,
        seconds=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu,
        best_epoch=result.best_epoch,
        checks=result.checks,
        trainable=result.trainable,
        guards=guards,
        strategy=settings.strategy,
    )


def residual_frames(base: Potential, frames: Sequence[Atoms], shift: dict[str, float] | None) -> list[Atoms]:
    """The frames with labels minus what `base` says of them; frame weights are kept."""
    missing = []
    for atoms, p in zip(frames, base.evaluate(frames), strict=True):
        stress = label_of(atoms, "stress")
        rest = with_labels(
            atoms,
            energy=shifted_energy(atoms, label_of(atoms, "energy"), shift) - p.energy,
            forces=np.asarray(label_of(atoms, "forces")) - p.forces,
            stress=None if stress is None or p.stress is None else np.asarray(stress) - p.stress,
        )
        rest.info |= {key: atoms.info[key] for key in ("weight", "level") if key in atoms.info}
        missing.append(rest)
    return missing


def errors_of_nothing(frames: Sequence[Atoms], settings: Train) -> Metrics:
    """Metrics of a correction that is zero everywhere: on residual labels, those of the base alone."""
    nothing = cast("TrainAdapter", _Nothing())
    return measure(nothing, [make_example(nothing, atoms, None) for atoms in frames], settings)


class _Nothing:
    """Predicts zero; a graph is the number of atoms."""

    module = torch.nn.Linear(1, 1).double()

    def graph(self, atoms: Atoms) -> int:
        return len(atoms)

    def predict(self, graphs: Sequence[int], *, training: bool) -> BatchPrediction:
        zeros = next(self.module.parameters()).new_zeros
        return BatchPrediction(
            energy=zeros(len(graphs)), forces=zeros(sum(graphs), 3), stress=zeros(len(graphs), 3, 3), magmoms=None
        )


# ---- networks to start from ------------------------------------------------------------------------------------------


def _continues(start: Potential, missing: Sequence[Atoms]) -> bool:
    """Whether the correction of the start knows all that is to be learnt."""
    return isinstance(start, DeltaPotential) and prepare.elements_of(missing) <= start.elements


def _trained_elements(start: Potential, missing: Sequence[Atoms]) -> set[str]:
    return prepare.elements_of(missing) | (set(start.elements) if _continues(start, missing) else set())


def _correction_to_start_from(
    start: Potential, missing: Sequence[Atoms], settings: Train, seed: int
) -> NetworkPotential:
    if isinstance(start, DeltaPotential) and _continues(start, missing):
        return cast("NetworkPotential", start.correction)
    base = start.base if isinstance(start, DeltaPotential) else start
    device = str(getattr(base, "device", "cpu"))
    return fresh_correction(missing, settings.delta, seed=seed, dtype=settings.dtype, device=device)


def fresh_correction(
    missing: Sequence[Atoms], settings: Delta, *, seed: int, dtype: str = "float32", device: str = "cpu"
) -> NetworkPotential:
    """A small untrained network for residual labels.

    Its reference energies are the least-squares constant per element of the residual energies (zero after a shift of
    the labels); MACE's output is scaled by the RMS of the residual forces, as mace's own ``rms_forces_scaling`` does.
    """
    counts = np.array([len(atoms) for atoms in missing])
    energies = np.array([label_of(atoms, "energy") for atoms in missing])
    references = shift_of(missing, energies / counts)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if settings.family == "chgnet":
            return _fresh_chgnet(references, settings, dtype, device)
        return _fresh_mace(missing, references, settings, dtype, device)


def _fresh_mace(
    missing: Sequence[Atoms], references: dict[str, float], settings: Delta, dtype: str, device: str
) -> NetworkPotential:
    from aldriver.potentials.mace import MACEPotential
    from aldriver.potentials.mace_arch import E0, SCALE, SHIFT, build_module

    channels = settings.channels
    numbers = sorted(atomic_numbers[symbol] for symbol in references)
    arch: dict[str, Any] = {
        "r_max": settings.cutoff_A,
        "num_bessel": 8,
        "num_polynomial_cutoff": 5,
        "max_ell": 2,
        "interaction_cls": "RealAgnosticResidualInteractionBlock",
        "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
        "num_interactions": 2,
        "hidden_irreps": f"{channels}x0e+{channels}x1o",
        "MLP_irreps": f"{max(4, channels // 2)}x0e",
        "gate": "silu",
        "avg_num_neighbors": average_neighbours(missing, settings.cutoff_A),
        "atomic_numbers": numbers,
        "correlation": 2,
        "radial_type": "bessel",
        "radial_MLP": [32, 32],
        "heads": ["Default"],
    }
    forces = np.concatenate([np.asarray(label_of(atoms, "forces")) for atoms in missing])
    scale = max(float(np.sqrt(np.mean(forces**2))), SMALLEST_SCALE_EV_A)
    state = {
        E0: torch.tensor([[references[chemical_symbols[z]] for z in numbers]], dtype=torch.float64),
        SCALE: torch.tensor([scale], dtype=torch.float64),
        SHIFT: torch.zeros(1, dtype=torch.float64),
    }
    module = build_module(arch, state, only_references=True)
    return MACEPotential(module, name=f"mace correction of {channels} channels", dtype=dtype, device=device)


def _fresh_chgnet(references: dict[str, float], settings: Delta, dtype: str, device: str) -> NetworkPotential:
    import contextlib
    import io

    from chgnet.model import CHGNet

    from aldriver.potentials.chgnet import CHGNetPotential

    width = settings.channels
    with contextlib.redirect_stdout(io.StringIO()):
        module = CHGNet(
            atom_fea_dim=width,
            bond_fea_dim=width,
            angle_fea_dim=width,
            n_conv=2,
            atom_conv_hidden_dim=width,
            bond_conv_hidden_dim=width,
            angle_layer_hidden_dim=0,
            mlp_hidden_dims=(width, width),
            atom_graph_cutoff=settings.cutoff_A,
            bond_graph_cutoff=min(CHGNET_BOND_CUTOFF_A, settings.cutoff_A),
            composition_model="MPtrj",
        )
    with torch.no_grad():
        weight = cast("Any", module.composition_model).fc.weight
        weight.zero_()
        for symbol, energy in references.items():
            weight[0, atomic_numbers[symbol] - 1] = energy
    return CHGNetPotential(module, name=f"chgnet correction of {width} channels", dtype=dtype, device=device)


def average_neighbours(frames: Sequence[Atoms], cutoff_A: float) -> float:
    """Mean number of neighbours of an atom within the cutoff; at least 1."""
    pairs = [len(NeighbourList(cutoff_A, pbc=a.pbc)(a.positions, np.asarray(a.cell)).i) for a in frames]
    return max(1.0, sum(pairs) / sum(len(atoms) for atoms in frames))
