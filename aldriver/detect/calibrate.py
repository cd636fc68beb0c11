"""Thresholds from held-out frames, with what they promise: of scores alone, and of scores with known force errors.

Knows numbers only; which frames are held out is the caller's choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from aldriver.core.errors import InputError

SMALLEST = 1e-12
"""A threshold is never below this, so that a ratio can always be formed."""
_TIE = 1e-9


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


# ------------------------------------------------------------------------------------- promises about force errors


Outcome = Literal["certified", "accurate", "uncertified", "quantile"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """From which score on a frame counts as unknown, and what that promises.

    Attributes
    ----------
    value
        A frame is flagged when ``score / value > 1``; 0 flags every frame.
    outcome
        ``certified``: at most `promise` of the frames above the tolerance stay unnoticed. ``accurate``: frames above
        the tolerance are too rare to certify that, and rarer than the miss rate: only scores beyond the calibrated
        range are flagged. ``uncertified``: too few frames for either, every frame is flagged. ``quantile``: no errors
        were known.
    frames, above
        Calibration frames with a score, n, and those of them with an error above the tolerance, b.
    rank
        k: `value` is (just below) the k-th smallest score of the b frames.
    promise
        k/(b + 1), bound of P(not flagged | error above the tolerance); None unless certified.
    share_upper
        Clopper–Pearson 95 % upper bound of the share of frames above the tolerance.
    false_alarms
        Calibration frames within the tolerance that are flagged.
    largest
        Largest score of a calibration frame.
    sentence
        All this in words.
    """

    value: float
    outcome: Outcome
    frames: int
    above: int
    rank: int
    promise: float | None
    share_upper: float
    false_alarms: int
    largest: float
    sentence: str

    def ratio(self, score: float) -> float:
        """Score in units of the limit: above 1 is flagged. Where every frame is flagged, 1 + score/largest."""
        if self.value > 0 or math.isnan(score):
            return score / self.value if self.value > 0 else math.nan
        return max(1.0 + score / (self.largest or 1.0), math.nextafter(1.0, 2.0))


def limit(scores: ArrayLike, errors: ArrayLike, *, tolerance: float, miss_rate: float) -> Limit:
    """Limit of a score, from frames that had no part in making it.

    With b exchangeable frames above the tolerance, a new such frame scores below the k-th smallest of their scores
    with probability at most k/(b + 1), k = ⌊α(b + 1)⌋; so frames that score at least that are flagged. This is split
    conformal prediction within the class of bad frames (Vovk, ACML 2012; Angelopoulos & Bates, Found. Trends Mach.
    Learn. 16, 494 (2023), section 4). Ties count on the safe side.

    Parameters
    ----------
    scores, errors
        (n,) of each calibration frame; the error in the unit of `tolerance`, infinite where the prediction is no
        number. Frames whose score is NaN are quarantined in use, and left out here.
    miss_rate
        α.

    Raises
    ------
    InputError
        When lengths differ, an error is NaN, or a score is infinite.
    """
    s, e = np.asarray(scores, dtype=float).ravel(), np.asarray(errors, dtype=float).ravel()
    if len(s) != len(e):
        raise InputError(f"{len(s)} scores for {len(e)} errors")
    s, e = s[~np.isnan(s)], e[~np.isnan(s)]
    if np.isnan(e).any():
        raise InputError("a calibration frame has no finite force label")
    if np.isinf(s).any():
        raise InputError("a calibration frame holds an element that the fitted frames lack")
    bad = np.sort(s[e > tolerance])
    n, b = len(s), len(bad)
    k, outcome = rank_of(b, miss_rate), outcome_of(b, n, miss_rate)
    largest = float(s.max()) if n else 0.0
    if outcome == "certified":
        value = float(bad[k - 1]) * (1.0 - _TIE)
    else:
        value = max(largest, SMALLEST) if outcome == "accurate" else 0.0
    good = s[e <= tolerance]
    flagged = good > value if value > 0 else np.ones(len(good), dtype=bool)
    return Limit(
        value=value,
        outcome=outcome,
        frames=n,
        above=b,
        rank=k,
        promise=k / (b + 1) if outcome == "certified" else None,
        share_upper=upper_bound(b, n),
        false_alarms=int(flagged.sum()),
        largest=largest,
        sentence=_sentence(outcome, n, b, k, miss_rate),
    )


def rank_of(above: int, miss_rate: float) -> int:
    """k = ⌊α(b + 1)⌋."""
    return math.floor(miss_rate * (above + 1) + 1e-9)  # the 1e-9 undoes the rounding of e.g. 0.1 · 30


def outcome_of(above: int, frames: int, miss_rate: float) -> Outcome:
    """What b of n calibration frames above the tolerance can promise; their scores do not enter."""
    if rank_of(above, miss_rate) >= 1:
        return "certified"
    return "accurate" if upper_bound(above, frames) <= miss_rate else "uncertified"


def upper_bound(count: int, n: int, level: float = 0.95) -> float:
    """One-sided Clopper–Pearson upper bound of a share (Biometrika 26, 404 (1934)); 1 without any trial."""
    from scipy.special import betaincinv

    return 1.0 if count >= n else float(betaincinv(count + 1, n - count, level))


def interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided Clopper–Pearson interval of a share; (0, 1) without any trial."""
    from scipy.special import betaincinv

    tail = (1.0 - level) / 2.0
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, tail))
    return low, upper_bound(count, n, 1.0 - tail)


def _sentence(outcome: Outcome, n: int, b: int, k: int, miss_rate: float) -> str:
    counted = f"{b} of {n} calibration frames are above the tolerance"
    if outcome == "certified":
        return f"certified: {counted}; at most {k / (b + 1):.3g} of such frames go unnoticed"
    share = f"{counted}, their share is at most {upper_bound(b, n):.3g} with 95 % confidence"
    if outcome == "accurate":
        return f"accurate: {share}; only frames beyond the calibrated scores are flagged"
    more = math.ceil(1.0 / miss_rate - 1e-9) - 1 - b
    others = frames_needed(b, miss_rate) - n
    return (
        f"uncertified: {counted}, too few for a miss rate of {miss_rate:g}; every frame is flagged until there are "
        f"{more} more of them, or {others} more calibration frames that are all within it"
    )


def frames_needed(above: int, miss_rate: float) -> int:
    """Fewest calibration frames, `above` of them beyond the tolerance, that make the outcome ``accurate``."""
    low, high = above, above + 1
    while upper_bound(above, high) > miss_rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if upper_bound(above, middle) > miss_rate else (low, middle)
    return high


def limits_by_set(
    scores: ArrayLike, errors: ArrayLike, sets: Sequence[str], *, tolerance: float, miss_rate: float
) -> tuple[Limit, dict[str, Limit], list[str]]:
    """Limit of all frames together, of each element set that can stand alone, and which cannot.

    A set that is ``uncertified`` by itself gets no limit of its own: the one of all frames is used for it, which
    promises something about the mixture only.
    """
    s, e = np.asarray(scores, dtype=float), np.asarray(errors, dtype=float)
    pooled = limit(s, e, tolerance=tolerance, miss_rate=miss_rate)
    names = sorted(set(sets))
    if len(names) < 2:
        return pooled, dict.fromkeys(names, pooled), []
    own: dict[str, Limit] = {}
    notes = []
    for name in names:
        mine = np.array([one == name for one in sets])
        found = limit(s[mine], e[mine], tolerance=tolerance, miss_rate=miss_rate)
        if found.outcome == "uncertified":
            notes.append(
                f"{name}: {found.frames} calibration frames are too few alone, the limit of all frames is used"
            )
        else:
            own[name] = found
    return pooled, own, notes
