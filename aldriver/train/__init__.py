"""Training: refine a potential on labelled frames; the result replaces what came in only where it is better.

``train()`` owns the order of the steps and the no-regress rule. Labels, the split into sides (``splits.py``) and what
becomes of the potential are the caller's business.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash, label_of
from aldriver.core.records import dumps
from aldriver.train.energies import fit_e0_shift, shifted_energy
from aldriver.train.splits import Split, group_split

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Train
    from aldriver.potentials.base import Potential
    from aldriver.train.base import TrainAdapter

__all__ = ["Split", "TrainResult", "fit_e0_shift", "group_split", "shifted_energy", "train"]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came of a training.

    Attributes
    ----------
    potential
        The refined potential when `accepted`, else the one that came in, unchanged.
    accepted, reason
        Whether validation got better, and the numbers that decided it in one line.
    history
        One dict per epoch, as in ``history.jsonl``.
    e0_shift
        Added to reference energies, by element, eV; None when not applied.
    before, after
        Validation metrics (``metrics.measure``) of the incoming and the trained weights.
    best_epoch
        Epoch whose averaged weights were kept; 0 when none was finite.
    checks
        Per loss term: active, value and gradient norm before the first step; and the memory measured.
    trainable
        Number of trained weights.
    """

    potential: Potential
    accepted: bool
    reason: str
    history: list[dict[str, Any]]
    e0_shift: dict[str, float] | None
    before: dict[str, float | None]
    after: dict[str, float | None]
    seconds: float
    cpu_s: float = 0.0
    best_epoch: int = 0
    checks: dict[str, Any] = field(default_factory=dict)
    trainable: int = 0


def train(
    start: Potential,
    train_frames: Sequence[Atoms],
    valid_frames: Sequence[Atoms],
    settings: Train,
    out: Path,
    *,
    seed: int,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    name: str | None = None,
) -> TrainResult:
    """Refine a potential.

    Called again with the same arguments after an interruption, it goes on from the last complete epoch and ends with
    the weights an uninterrupted run gives (bit for bit on a CPU with the same number of threads).

    Parameters
    ----------
    start
        The potential to refine; it is not changed.
    train_frames, valid_frames
        Labelled frames (energy and forces; stress where there is one, eV/Å³ Voigt); ``info['weight']`` scales a frame
        in the loss. The best epoch is chosen on `valid_frames`.
    out
        Receives ``checkpoint.pt`` and ``history.jsonl``.
    on_epoch
        Called after each epoch with its line of the history.
    name
        Of the refined potential.

    Raises
    ------
    InputError
        When a side is empty, labels are missing or of mixed energy references, the family or strategy cannot be
        trained, or `out` holds a checkpoint of another training.
    AldriverError
        When a loss term moves no weight, or a single frame does not fit into ``memory_limit_GB``.
    """
    from aldriver.train.base import make_adapter
    from aldriver.train.loop import TrainingLoop
    from aldriver.train.loss import make_example
    from aldriver.train.metrics import measure

    started, cpu = time.perf_counter(), time.process_time()
    _check_sides(start, train_frames, valid_frames)
    adapter = make_adapter(start)
    trainable = adapter.set_trainable(settings.strategy)
    predicted = _energies(adapter, train_frames, settings)
    shift = fit_e0_shift(train_frames, start, mode=settings.e0_shift, predicted=predicted)
    examples = [make_example(adapter, atoms, shift) for atoms in train_frames]
    unseen = [make_example(adapter, atoms, shift) for atoms in valid_frames]
    before = measure(adapter, unseen, settings)
    key = _key(start, train_frames, valid_frames, settings, seed)
    loop = TrainingLoop(adapter, examples, unseen, settings, Path(out), seed=seed, key=key, on_epoch=on_epoch)
    state = loop.run()
    after = measure(adapter, unseen, settings)
    accepted, reason = judge(before["loss"], after["loss"], state.best_epoch, state.stopped)
    return TrainResult(
        potential=adapter.potential(name or _refined_name(start.name)) if accepted else start,
        accepted=accepted,
        reason=reason,
        history=state.history,
        e0_shift=shift,
        before=before,
        after=after,
        seconds=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu,
        best_epoch=state.best_epoch,
        checks=state.checks,
        trainable=sum(p.numel() for n, p in adapter.module.named_parameters() if n in set(trainable)),
    )


def judge(before: float | None, after: float | None, best_epoch: int, stopped: str = "") -> tuple[bool, str]:
    """The no-regress rule: accept only a validation loss that is finite and below the incoming one.

    Both losses are the weighted training loss on the same frames and labels.
    """
    tail = f" (training {stopped})" if stopped else ""
    if best_epoch == 0 or after is None or not math.isfinite(after):
        return False, f"no epoch gave a finite validation loss{tail}: lower train.learning_rate; the potential is kept"
    numbers = f"validation loss {after:.4g} (epoch {best_epoch}) against {before:.4g} of the incoming potential"
    if before is not None and after >= before:
        return False, f"no better than what came in: {numbers}{tail}; the potential is kept"
    return True, numbers + tail


def _check_sides(start: Potential, train_frames: Sequence[Atoms], valid_frames: Sequence[Atoms]) -> None:
    for side, frames in (("training", train_frames), ("validation", valid_frames)):
        if not frames:
            raise InputError(f"no {side} frames: label more frames, or change train.valid_fraction")
        for key in ("energy", "forces"):
            if any(label_of(atoms, key) is None for atoms in frames):
                raise InputError(f"a {side} frame has no {key}: leave failed labels out of the dataset")
        start.check_elements(frames)


def _energies(adapter: TrainAdapter, frames: Sequence[Atoms], settings: Train) -> list[float] | None:
    """Total energies (eV) of the incoming potential, where a shift may need them."""
    if settings.e0_shift == "never":
        return None
    return [float(adapter.predict([adapter.graph(a)], training=False).energy) * len(a) for a in frames]


def _key(
    start: Potential, train_frames: Sequence[Atoms], valid_frames: Sequence[Atoms], settings: Train, seed: int
) -> str:
    """Identity of a training: start, frames with labels and weights, settings, seed."""
    h = hashlib.sha256(start.fingerprint.encode())
    h.update(dumps(settings.model_dump(mode="json", exclude={"memory_limit_GB", "valid_fraction", "start"})).encode())
    h.update(f"{seed} {len(train_frames)} {len(valid_frames)}".encode())
    for atoms in [*train_frames, *valid_frames]:
        labels = [label_of(atoms, key) for key in ("energy", "forces", "stress")]
        h.update(dumps([frame_hash(atoms), atoms.info.get("weight", 1.0), labels], indent=None).encode())
    return h.hexdigest()[:24]


def _refined_name(name: str) -> str:
    return name if name.endswith(" refined") else f"{name} refined"
