"""Learning-rate study: one training per rate on the same data, and which of them to take.

The learning rate decides first how much is forgotten; the strategy only after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import InputError
from aldriver.core.records import dumps, jsonable
from aldriver.core.store import atomic_write
from aldriver.train import TrainResult, train

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Train
    from aldriver.potentials.base import Potential

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
"""Tried where none are given."""
TABLE = "study.json"


@dataclass(frozen=True, kw_only=True)
class Study:
    """A table of trainings and the best of them.

    Attributes
    ----------
    rows
        Per rate: ``learning_rate``, ``accepted``, ``reason``, ``loss`` and the other validation errors, ``drift`` (as
        the last line of the history has it, at the best epoch), ``best_epoch`` and ``cpu_s``.
    best
        Learning rate of the accepted row with the lowest validation loss; None when no row is accepted.
    result
        The training of that row.
    """

    rows: list[dict[str, Any]]
    best: float | None
    result: TrainResult | None


def study_learning_rates(
    start: Potential,
    train_frames: Sequence[Atoms],
    valid_frames: Sequence[Atoms],
    settings: Train,
    out: Path,
    *,
    rates: Sequence[float] = RATES,
    seed: int,
    foundation: Potential | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Study:
    """Train with each rate in ``out/lr-RATE`` and write ``study.json``; an interrupted call goes on where it was.

    A row beyond ``settings.guard`` (the drift limit among others) is refused by its training, so the best one keeps it.

    Raises
    ------
    InputError
        When no rate is given, one is given twice, or one is not a positive number.
    """
    if not rates or len(set(rates)) < len(rates) or not all(math.isfinite(r) and r > 0 for r in rates):
        raise InputError(f"learning rates {list(rates)}: give different positive numbers")
    rows: list[dict[str, Any]] = []
    results: dict[float, TrainResult] = {}
    for rate in rates:
        result = train(
            start,
            train_frames,
            valid_frames,
            settings.model_copy(update={"learning_rate": rate}),
            Path(out) / f"lr-{rate:g}",
            seed=seed,
            foundation=foundation,
            on_epoch=on_epoch,
        )
        results[rate] = result
        drift = result.history[result.best_epoch - 1]["drift"] if result.best_epoch else {}
        rows.append(
            {
                "learning_rate": rate,
                "accepted": result.accepted,
                "reason": result.reason,
                **result.after,
                "drift": drift,
                "best_epoch": result.best_epoch,
                "cpu_s": result.cpu_s,
            }
        )
    good = [row for row in rows if row["accepted"]]
    best = min(good, key=lambda row: row["loss"])["learning_rate"] if good else None
    atomic_write(Path(out) / TABLE, dumps(jsonable({"rows": rows, "best": best})))
    return Study(rows=rows, best=best, result=None if best is None else results[best])
