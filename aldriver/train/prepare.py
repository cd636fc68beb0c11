"""What a training needs before its first step: checked frames, an adapter, general frames, and its identity."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.calculators.singlepoint import SinglePointCalculator

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash, label_of
from aldriver.core.records import dumps
from aldriver.train.base import TrainAdapter, make_adapter
from aldriver.train.energies import energy_on_scale, energy_shift, refuse_mixed_levels
from aldriver.train.mp2020 import on_mp2020_scale, scale_of_labels

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Train
    from aldriver.potentials.base import Potential
    from aldriver.train.ewc import Consolidation

NO_MATTER = {"memory_limit_GB", "valid_fraction", "start", "fallbacks", "guard"}
"""Settings that do not change the weights a training ends with."""
PROBE_BATCH = 16
"""Cells of the probe in a batch."""


def check_sides(train_frames: Sequence[Atoms], valid_frames: Sequence[Atoms]) -> None:
    """Refuse empty sides, frames without energy or forces, and labels of several levels of theory."""
    for side, frames in (("training", train_frames), ("validation", valid_frames)):
        if not frames:
            raise InputError(f"no {side} frames: label more frames, or change train.valid_fraction")
        for key in ("energy", "forces"):
            if any(label_of(atoms, key) is None for atoms in frames):
                raise InputError(f"a {side} frame has no {key}: leave failed labels out of the dataset")
    refuse_mixed_levels([*train_frames, *valid_frames])


def elements_of(frames: Sequence[Atoms]) -> set[str]:
    """Symbols in any of the frames."""
    return {symbol for atoms in frames for symbol in atoms.get_chemical_symbols()}


def on_scale_of(potential: Potential, frames: Sequence[Atoms]) -> list[Atoms]:
    """The frames with the energies this potential is to be compared with (``energies.reference_energy``)."""
    return on_scale(frames, potential.energy_scale, settled="energy_scale" in getattr(potential, "arch", {}))


def on_scale(frames: Sequence[Atoms], scale: str, *, settled: bool = False) -> list[Atoms]:
    """The frames with the energies of a scale: on ``mp2020`` corrected ones (``mp2020.py``, also on `settled`)."""
    scaled = []
    for atoms in on_mp2020_scale(frames, settled=settled) if scale == "mp2020" else frames:
        energy = energy_on_scale(atoms, scale)
        if energy != label_of(atoms, "energy"):
            labels, atoms = atoms.calc.results, atoms.copy()
            atoms.calc = SinglePointCalculator(atoms, **labels | {"energy": energy})
        scaled.append(atoms)
    return scaled


def settle_scale(refined: Potential, frames: Sequence[Atoms]) -> None:
    """Note in a refined CHGNet whether labels that could be corrected were: later frames are put on the same scale."""
    scale = scale_of_labels(frames)
    if scale is not None and refined.energy_scale == "mp2020" and refined.family == "chgnet":
        refined.module.model_args["energy_scale"] = scale  # type: ignore[attr-defined]


def trainer_elsewhere(start: Potential, settings: Train) -> Callable[..., Any] | None:
    """The function that does this training where the loop of this package does not; None otherwise."""
    if settings.strategy == "delta":
        from aldriver.train.delta import train_delta

        return train_delta
    if getattr(start, "remote", False):
        from aldriver.train.remote import train_remotely

        return train_remotely
    return None


def adapter_for(start: Potential, settings: Train, frames: Sequence[Atoms], *, seed: int) -> TrainAdapter:
    """A trainable copy in the precision of the settings, with proxy elements and the strategy's weights trainable.

    Raises
    ------
    InputError
        When the family or strategy cannot be trained, or an element is unknown.
    """
    adapter = make_adapter(in_precision(start, settings.dtype))
    if settings.proxies:
        adapter.proxy(settings.proxies)
    adapter.check_elements(frames)
    heads = sorted({head for atoms in frames if (head := head_of(atoms))})
    if settings.replay.heads == "separate" and settings.replay.source != "none":
        adapter.separate_heads()
    elif heads:
        adapter.separate_heads(heads, refined=any(not head_of(atoms) for atoms in frames))
    adapter.set_trainable(settings, seed=seed)
    return adapter


def head_of(atoms: Atoms) -> str:
    """Head a frame belongs to (``info['head']``); empty: the one that is refined."""
    return str(atoms.info.get("head") or "")


def energy_shifts(
    adapter: TrainAdapter, start: Potential, frames: Sequence[Atoms], settings: Train
) -> dict[str, dict[str, float] | None]:
    """Shift of the reference energies (eV by element) of each head: every head has the scale of its own level."""
    shifts: dict[str, dict[str, float] | None] = {"": None}
    for head in sorted({head_of(atoms) for atoms in frames}):
        members = [atoms for atoms in frames if head_of(atoms) == head]
        predicted = None
        if settings.e0_shift in ("auto", "always"):
            graphs = [adapter.graph(atoms) for atoms in members]
            predicted = [
                float(adapter.predict([g], training=False).energy) * len(a)
                for g, a in zip(graphs, members, strict=True)
            ]
        shifts[head] = energy_shift(members, start, settings, predicted=predicted)
    return shifts


def in_precision(potential: Potential, dtype: str = "", *, like: Potential | None = None) -> Potential:
    """The same network in another precision, or in that of another potential (itself where nothing changes)."""
    from aldriver.potentials.network import NetworkPotential

    dtype = like.precision if isinstance(like, NetworkPotential) else dtype
    if not isinstance(potential, NetworkPotential) or potential.precision == dtype:
        return potential
    return potential.astype(dtype)


def refuse_mixed_devices(start: Potential, foundation: Potential) -> None:
    """All weights must lie where their potential computes, and both potentials on one device.

    Raises
    ------
    InputError
        Naming what lies elsewhere.
    """
    from aldriver.potentials.network import NetworkPotential

    networks = [p for p in (start, foundation) if isinstance(p, NetworkPotential)]
    for potential in networks:
        for name, tensor in potential.module.state_dict().items():
            if tensor.device.type != potential.device.type:
                raise InputError(
                    f"{potential.name} computes on {potential.device}, but its weights '{name}' lie on "
                    f"{tensor.device}: load it again, on one device"
                )
    devices = {p.device.type for p in networks}
    if len(devices) > 1:
        raise InputError(
            f"{start.name} computes on {networks[0].device}, the foundation {foundation.name} on "
            f"{networks[1].device}: load both on one device"
        )


def energy_reader(adapter: TrainAdapter) -> Callable[[list[Atoms]], list[float]]:
    """A function that reads energies (eV/atom) of frames with the weights of the moment; it keeps their graphs."""
    graphs: dict[int, tuple[Atoms, Any]] = {}

    def read(frames: list[Atoms]) -> list[float]:
        for atoms in frames:
            if id(atoms) not in graphs:
                graphs[id(atoms)] = (atoms, adapter.graph(atoms))
        energies: list[float] = []
        for k in range(0, len(frames), PROBE_BATCH):
            batch = [graphs[id(atoms)][1] for atoms in frames[k : k + PROBE_BATCH]]
            energies += adapter.predict(batch, training=False).energy.tolist()
        return energies

    return read


def general_frames(
    foundation: Potential, train_frames: Sequence[Atoms], settings: Train, out: Path, *, seed: int
) -> list[Atoms]:
    """Labelled frames of general knowledge for replay and consolidation; none where neither is on."""
    replay = settings.replay
    if not replays(settings) and not consolidates(settings):
        return []
    from aldriver.train.replay import replay_frames

    out.mkdir(parents=True, exist_ok=True)
    elements, cache = elements_of(train_frames), out / "replay.extxyz"
    if replay.source not in ("auto", "none"):
        return replay_frames(foundation, elements, replay, seed=seed, cache=cache)
    try:
        return replay_frames(foundation, elements, replay.model_copy(update={"source": "auto"}), seed=seed, cache=cache)
    except InputError:
        return []  # a potential without a single crystal near equilibrium has no general knowledge to hold on to


def replays(settings: Train) -> bool:
    """Whether general frames are in the loss; by default not for ``scratch``, which has nothing to keep."""
    replay = settings.replay
    off = replay.source == "none" or (replay.source == "auto" and settings.strategy == "scratch")
    return replay.weight > 0 and not off


def consolidates(settings: Train) -> bool:
    """Whether weights are held near those of the start; ``scratch`` has nothing to keep."""
    return settings.ewc > 0 and settings.strategy != "scratch"


def consolidation(
    adapter: TrainAdapter, general: Sequence[Atoms], settings: Train, *, seed: int
) -> Consolidation | None:
    """The penalty of elastic weight consolidation, where it is on and there is something to keep."""
    if not general or not consolidates(settings):
        return None
    from aldriver.train.ewc import consolidate

    return consolidate(adapter, [adapter.graph(atoms) for atoms in general], settings, seed=seed)


def training_key(
    start: Potential,
    foundation: Potential,
    train_frames: Sequence[Atoms],
    valid_frames: Sequence[Atoms],
    general: Sequence[Atoms],
    settings: Train,
    seed: int,
) -> str:
    """Identity of a training: start, foundation, frames with labels and weights, settings, seed."""
    h = hashlib.sha256(f"{start.fingerprint} {foundation.fingerprint}".encode())
    h.update(dumps(settings.model_dump(mode="json", exclude=NO_MATTER)).encode())
    h.update(f"{seed} {len(train_frames)} {len(valid_frames)}".encode())
    for atoms in [*train_frames, *valid_frames, *general]:
        labels = [label_of(atoms, key) for key in ("energy", "forces", "stress", "magmoms")]
        extra = [atoms.info.get("weight", 1.0), atoms.info.get("head")]
        h.update(dumps([frame_hash(atoms), extra, labels], indent=None).encode())
    return h.hexdigest()[:24]
