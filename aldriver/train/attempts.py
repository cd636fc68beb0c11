"""One strategy after another until a result is accepted. What acceptance means is ``train()``'s business."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.train import TrainResult, train

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Attempt, Train
    from aldriver.potentials.base import Potential


def train_attempts(
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
) -> tuple[TrainResult, list[dict[str, Any]]]:
    """Train with ``settings.strategy``; while the result is refused, with each of ``settings.fallbacks`` in turn.

    The k-th attempt keeps its files in ``out/attempt-k``. Called again after an interruption, finished attempts are
    read back, not repeated. Parameters and errors are those of :func:`aldriver.train.train`.

    Returns
    -------
    tuple
        The accepted result, or the last one; and per attempt ``strategy``, ``learning_rate``, ``epochs``, ``accepted``,
        ``reason`` and ``numbers`` (validation loss before and after, and what the guards measured).
    """
    told = []
    for k, tried in enumerate(attempt_settings(settings)):
        result = train(
            start,
            train_frames,
            valid_frames,
            tried,
            Path(out) / f"attempt-{k}",
            seed=seed,
            foundation=foundation,
            on_epoch=on_epoch,
            name=name,
        )
        told.append(
            {
                "strategy": tried.strategy,
                "learning_rate": tried.learning_rate,
                "epochs": tried.epochs,
                "accepted": result.accepted,
                "reason": result.reason,
                "numbers": {"before": result.before["loss"], "after": result.after["loss"], **result.guards},
            }
        )
        if result.accepted:
            break
    return result, told


def attempt_settings(settings: Train) -> list[Train]:
    """The settings of each attempt, in order."""
    return [settings, *(with_attempt(settings, a) for a in settings.fallbacks)]


def with_attempt(settings: Train, attempt: Attempt) -> Train:
    """The settings with what an attempt changes."""
    changes = {key: getattr(attempt, key) for key in attempt.model_fields_set if getattr(attempt, key) is not None}
    return settings.model_copy(update=changes)
