"""Training: refine a potential on labelled frames; the result replaces what came in only where it is better.

``train()`` owns the order of the steps, the no-regress rule and the guards. Labels, the split into sides
(``splits.py``) and what becomes of the potential are the caller's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.train.energies import fit_e0_shift, shifted_energy
from aldriver.train.splits import Split, group_split

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Train
    from aldriver.potentials.base import Potential


__all__ = ["Split", "TrainResult", "fit_e0_shift", "group_split", "shifted_energy", "train"]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came of a training.

    Attributes
    ----------
    potential
        The refined potential when `accepted`, else the one that came in, unchanged.
    accepted, reason
        Whether validation got better and no guard objects, and the numbers that decided it in one line.
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
    guards
        Numbers of the guards against forgetting (``guard.judge_forgetting``) and their ``reason``; empty when nothing
        was trained to an end.
    strategy
        As in the settings.
    trained
        What training gave, accepted or not (for a study of what was refused); None when nothing was trained.
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
    guards: dict[str, Any] = field(default_factory=dict)
    strategy: str = "naive"
    trained: Potential | None = None


def train(
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
    """Refine a potential.

    Called again with the same arguments after an interruption, it goes on from the last complete epoch and ends with
    the weights an uninterrupted run gives (bit for bit on a CPU with the same number of threads).

    Parameters
    ----------
    start
        The potential to refine; it is not changed.
    train_frames, valid_frames
        Labelled frames (energy and forces; stress where there is one, eV/Å³ Voigt; moments, µB); ``info['weight']``
        scales a frame in the loss. The best epoch is chosen on `valid_frames`.
    out
        Receives ``checkpoint.pt`` and ``history.jsonl``.
    foundation
        What forgetting is measured against, and what labels self-replay; by default `start`.
    on_epoch
        Called after each epoch with its line of the history.
    name
        Of the refined potential.

    Raises
    ------
    InputError
        When a side is empty, labels are missing or of mixed energy references, the family or strategy cannot be
        trained, devices are mixed, or `out` holds a checkpoint of another training.
    AldriverError
        When a loss term moves no weight, or a single frame does not fit into ``memory_limit_GB``.
    """
    from aldriver.train import prepare

    prepare.check_sides(train_frames, valid_frames)
    run = prepare.trainer_elsewhere(start, settings) or _train_here
    return run(
        start,
        train_frames,
        valid_frames,
        settings,
        Path(out),
        seed=seed,
        foundation=start if foundation is None else foundation,
        on_epoch=on_epoch,
        name=name,
    )


def _train_here(
    start: Potential,
    train_frames: Sequence[Atoms],
    valid_frames: Sequence[Atoms],
    settings: Train,
    out: Path,
    *,
    seed: int,
    foundation: Potential,
    on_epoch: Callable[[dict[str, Any]], None] | None,
    name: str | None,
) -> TrainResult:
    """In this process, with the shared loop."""
    from aldriver.train import prepare
    from aldriver.train.guard import Probe, judge_forgetting
    from aldriver.train.loop import TrainingLoop
    from aldriver.train.loss import make_example
    from aldriver.train.metrics import measure

    started, cpu = time.perf_counter(), time.process_time()
    prepare.refuse_mixed_devices(start, foundation)
    scaled = prepare.on_scale_of(start, [*train_frames, *valid_frames])  # together: all are corrected, or none
    train_frames, valid_frames = scaled[: len(train_frames)], scaled[len(train_frames) :]
    adapter = prepare.adapter_for(start, settings, [*train_frames, *valid_frames], seed=seed)
    shifts = prepare.energy_shifts(adapter, start, train_frames, settings)
    shift = shifts[""]
    examples = [make_example(adapter, atoms, shifts[prepare.head_of(atoms)]) for atoms in train_frames]
    unseen = [make_example(adapter, atoms, shifts[prepare.head_of(atoms)]) for atoms in valid_frames]
    before = measure(adapter, unseen, settings)
    if settings.strategy == "zero-shot":
        return _zero_shot(start, shift, before, started, cpu)
    if settings.strategy == "scratch":
        adapter.reset(seed)
    trainable = adapter.set_trainable(settings)
    general = prepare.general_frames(foundation, train_frames, settings, out, seed=seed)
    probe = Probe(foundation, exclude=prepare.elements_of(train_frames))
    energies = prepare.energy_reader(adapter)
    loop = TrainingLoop(
        adapter,
        examples,
        unseen,
        settings,
        out,
        seed=seed,
        key=prepare.training_key(start, foundation, train_frames, valid_frames, general, settings, seed),
        replay=[make_example(adapter, atoms, None) for atoms in general] if prepare.replays(settings) else [],
        consolidation=prepare.consolidation(adapter, general, settings, seed=seed),
        drift=lambda: probe.drift(energies, adapter.elements),
        on_epoch=on_epoch,
    )
    state = loop.run()
    if len(shifts) > 1:
        state.checks["e0_shift_by_head"] = {head: by for head, by in shifts.items() if head}
    after = measure(adapter, unseen, settings)
    accepted, reason = judge(before["loss"], after["loss"], state.best_epoch, state.stopped)
    refined = prepare.in_precision(adapter.potential(name or _refined_name(start.name)), like=start)
    prepare.settle_scale(refined, [*train_frames, *valid_frames])
    guards: dict[str, Any] = {}
    if state.best_epoch > 0:
        kept, why, guards = judge_forgetting(settings.guard, foundation, refined, probe)
        guards = {**guards, "reason": why}
        accepted, reason = accepted and kept, reason if kept else f"{reason}; {why}"
    return TrainResult(
        potential=refined if accepted else start,
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
        guards=guards,
        strategy=settings.strategy,
        trained=refined if state.best_epoch > 0 else None,
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


def _zero_shot(
    start: Potential, shift: dict[str, float] | None, metrics: dict[str, float | None], started: float, cpu: float
) -> TrainResult:
    return TrainResult(
        potential=start,
        accepted=False,
        reason="zero-shot: nothing is trained; these are the errors of the incoming potential",
        history=[],
        e0_shift=shift,
        before=metrics,
        after=metrics,
        seconds=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu,
        strategy="zero-shot",
    )


def _refined_name(name: str) -> str:
    return name if name.endswith(" refined") else f"{name} refined"
