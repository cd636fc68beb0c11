"""Thresholds from held-out frames: a finite-sample quantile with its promise written beside it.

Knows numbers only; which frames are held out is the caller's choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from aldriver.core.errors import InputError

SMALLEST = 1e-12
"""A threshold is never below this, so that a ratio can always be formed."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Largest value that still counts as known.

    Attributes
    ----------
    value
        In the unit of the signal.
    quantile
        Wanted share of exchangeable new frames at or below `value`.
    coverage
        Share that the number of held-out frames can promise: rank/(n + 1).
    frames
        Held-out frames with a finite value, n.
    rank
        `value` is the rank-th smallest of them.
    note
        Empty, or why the promise is weaker than asked for.
    """

    value: float
    quantile: float
    coverage: float
    frames: int
    rank: int
    note: str = ""


def needed(quantile: float) -> int:
    """Fewest held-out frames that can promise `quantile`."""
    # the 1e-9 undoes the rounding of e.g. 0.95/0.05 = 18.999999999999982
    return math.ceil(quantile / (1.0 - quantile) - 1e-9)


def threshold(values: ArrayLike, quantile: float) -> Threshold:
    """Threshold from frame scores of held-out frames.

    With n exchangeable scores, a new one exceeds the ⌈(n + 1)q⌉-th smallest with probability at most 1 − q (split
    conformal prediction: Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018), section 2.2). With fewer than q/(1 − q)
    frames no such rank exists; then the largest held-out score is taken and `note` says so.

    Raises
    ------
    InputError
        When no held-out score is a number, or one is infinite (an element that the fitted frames lack).
    """
    scores = np.asarray(values, dtype=float).ravel()
    dropped = int(np.isnan(scores).sum())
    scores = np.sort(scores[~np.isnan(scores)])
    n = len(scores)
    if n == 0:
        raise InputError("no held-out frame has a score: a threshold needs at least one usable held-out frame")
    if np.isinf(scores[-1]):
        raise InputError(
            "a held-out frame holds an element that the fitted frames lack: fit on frames with that element"
        )
    rank = math.ceil((n + 1) * quantile - 1e-9)
    notes = []
    if rank > n:
        rank = n
        notes.append(
            f"too few held-out frames: {n} can promise {n / (n + 1):.3g}, {needed(quantile)} are needed for "
            f"{quantile:g}; the largest held-out score is used"
        )
    if dropped:
        notes.append(f"{dropped} held-out frame(s) without a finite score left out")
    return Threshold(
        value=max(float(scores[rank - 1]), SMALLEST),
        quantile=quantile,
        coverage=rank / (n + 1),
        frames=n,
        rank=rank,
        note="; ".join(notes),
    )
