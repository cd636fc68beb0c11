"""Training without a campaign: labelled frames in, a folder with the refined potential and all that was measured out.

The folder is the truth: called again it goes on where it was. What a training does is ``train()``'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash, write_frames
from aldriver.core.records import dumps, jsonable
from aldriver.core.store import atomic_write, disk_errors
from aldriver.train import TrainResult, train
from aldriver.train.splits import group_split

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Train
    from aldriver.potentials.base import Potential

CHECKPOINT, HISTORY, POTENTIAL, RESULT = "checkpoint.pt", "history.jsonl", "potential", "result.json"
Epoch = Callable[[dict[str, Any]], None]


def sides(
    frames: Sequence[Atoms], valid: Sequence[Atoms] | None, settings: Train, *, seed: int
) -> tuple[list[Atoms], list[Atoms], str]:
    """Training and validation frames, and one line on how they were told apart.

    Parameters
    ----------
    valid
        Frames to validate on; None takes whole groups of `frames` (``settings.valid_fraction``).

    Raises
    ------
    InputError
        When a frame is on both sides, or there are too few.
    """
    if valid is None:
        split = group_split(frames, settings.valid_fraction, seed, cut_single_group=True)
        return [frames[i] for i in split.train], [frames[i] for i in split.valid], split.message
    both = {frame_hash(atoms) for atoms in frames} & {frame_hash(atoms) for atoms in valid}
    if both:
        raise InputError(
            f"{len(both)} of the {len(valid)} validation frames are training frames too: their errors would say "
            "nothing. Take them out of one of the files"
        )
    return list(frames), list(valid), f"{len(frames)} training frames, {len(valid)} validation frames of their own file"


def refine(
    start: Potential,
    known: Sequence[Atoms],
    valid: Sequence[Atoms],
    settings: Train,
    out: Path,
    *,
    seed: int,
    foundation: Potential | None = None,
    on_epoch: Epoch | None = None,
) -> dict[str, Any]:
    """Refine one potential, trying ``settings.fallbacks`` in turn while the result is refused.

    Forgetting is measured against `foundation` (by default `start`), which also labels what is replayed.

    Returns
    -------
    dict
        As in ``result.json``: ``accepted``, ``reason``, ``strategy``, ``path`` (of the saved potential, or None),
        ``fingerprint``, ``before``, ``after`` (validation errors), ``guards``, ``attempts``, ``e0_shift``,
        ``best_epoch``, ``epochs``, ``trainable``, ``checks``, ``seconds``, ``cpu_s``.

    Raises
    ------
    InputError, AldriverError
        As :func:`aldriver.train.train`.
    """
    from aldriver.train.attempts import train_attempts, with_attempt

    counts = _open(out, known, valid)
    attempts: list[dict[str, Any]] = []
    if settings.fallbacks:
        result, attempts = train_attempts(
            start, known, valid, settings, out, seed=seed, foundation=foundation, on_epoch=on_epoch
        )
        if len(attempts) > 1:
            settings = with_attempt(settings, settings.fallbacks[len(attempts) - 2])
    else:
        result = train(start, known, valid, settings, out, seed=seed, foundation=foundation, on_epoch=on_epoch)
    return _close(out, facts_of(result, out / POTENTIAL, start, settings, counts) | {"attempts": attempts})


def refine_committee(
    start: Potential,
    known: Sequence[Atoms],
    valid: Sequence[Atoms],
    settings: Train,
    out: Path,
    *,
    size: int,
    seed: int,
    foundation: Potential | None = None,
    on_epoch: Epoch | None = None,
) -> dict[str, Any]:
    """Refine a committee: ``members`` (each as of :func:`refine`, best first) and ``refused`` (name: why).

    Raises
    ------
    AldriverError
        When a member is not fit for the committee, naming it.
    """
    from aldriver.train.committee import train_committee

    counts = _open(out, known, valid)
    committee = train_committee(
        start, known, valid, settings, out, size=size, seed=seed, foundation=foundation, on_epoch=on_epoch
    )
    members = []
    for result in committee.members:
        name = result.potential.name.rsplit(" ", 1)[-1]
        members.append({"member": name} | facts_of(result, out / name / POTENTIAL, start, settings, counts))
    reason = f"{len(members)} members"
    return _close(out, {"accepted": True, "reason": reason, "members": members, "refused": committee.refused})


def study(
    start: Potential,
    known: Sequence[Atoms],
    valid: Sequence[Atoms],
    settings: Train,
    out: Path,
    *,
    rates: Sequence[float],
    seed: int,
    foundation: Potential | None = None,
    on_epoch: Epoch | None = None,
) -> dict[str, Any]:
    """Train with each learning rate: ``rows``, and the best accepted one as of :func:`refine`."""
    from aldriver.train.study import study_learning_rates

    counts = _open(out, known, valid)
    found = study_learning_rates(
        start, known, valid, settings, out, rates=rates, seed=seed, foundation=foundation, on_epoch=on_epoch
    )
    facts: dict[str, Any] = {"rows": found.rows, "learning_rate": found.best}
    if found.result is None:
        return _close(
            out, facts | {"accepted": False, "path": None, "reason": "no learning rate gave an accepted result"}
        )
    settings = settings.model_copy(update={"learning_rate": found.best})
    return _close(out, facts | facts_of(found.result, out / POTENTIAL, start, settings, counts))


def finished_epochs(out: Path) -> int:
    """Epochs that lie in the folder, of all its trainings."""
    return sum(len(path.read_text().splitlines()) for path in sorted(out.rglob(HISTORY)))


def facts_of(
    result: TrainResult, folder: Path, start: Potential, settings: Train, counts: dict[str, int]
) -> dict[str, Any]:
    """What came of a training, as JSON; an accepted potential is saved in `folder`."""
    from aldriver.potentials.bundle import save_bundle

    facts: dict[str, Any] = {
        "accepted": result.accepted,
        "reason": result.reason,
        "strategy": result.strategy,
        "potential": result.potential.name,
        "family": result.potential.family,
        "start": {"name": start.name, "fingerprint": start.fingerprint},
        "path": None,
        "fingerprint": result.potential.fingerprint,
        "before": result.before,
        "after": result.after,
        "guards": result.guards,
        "e0_shift": result.e0_shift,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "trainable": result.trainable,
        "checks": result.checks,
        "seconds": result.seconds,
        "cpu_s": result.cpu_s,
    }
    facts |= counts
    if result.accepted:
        keep = ("strategy", "before", "after", "guards", "e0_shift", "best_epoch", "start", *counts)
        extra = {key: facts[key] for key in keep} | {"settings": settings.model_dump(mode="json")}
        save_bundle(result.potential, folder, parent=start.fingerprint, extra=jsonable(extra))
        facts["path"] = folder
    return facts


def _open(out: Path, known: Sequence[Atoms], valid: Sequence[Atoms]) -> dict[str, int]:
    """Make the folder; refuse one that holds the result of another training before any time is spent."""
    if (out / POTENTIAL).exists() and not any(out.rglob(CHECKPOINT)):
        raise InputError(
            f"{out / POTENTIAL}: a refined potential lies here already, without the checkpoint of its training. "
            "Name another folder; it is never overwritten"
        )
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_frames(out / "train.extxyz", known)
        write_frames(out / "valid.extxyz", valid)
    return {"n_train": len(known), "n_valid": len(valid)}


def _close(out: Path, facts: dict[str, Any]) -> dict[str, Any]:
    atomic_write(out / RESULT, dumps(jsonable(facts)))
    return facts
