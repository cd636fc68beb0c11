"""How well a detector kept its promise, measured on labels; and whether new frames still look like the calibration's.

Knows numbers only. Audit labels are drawn at random among the frames that were *not* flagged, so what they measure
directly is P(error > tolerance | not flagged). The miss rate is P(not flagged | error > tolerance): with N₀ frames left
alone of which a share p is bad, and N₁ flagged frames of which a share q is bad, it is pN₀/(pN₀ + qN₁), and the rate of
false alarms is (1 − q)N₁/((1 − q)N₁ + (1 − p)N₀). p comes from the audit, q from the flagged frames that were labelled
(the worst ones first, so where not all were labelled q is rather too large, and the miss rate too small by as much).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from aldriver.detect.calibrate import interval

Interval = tuple[float, float]
DRIFT_P = 0.01
DRIFT_DISTANCE = 0.2
"""Drift is a difference that is neither chance nor negligible: p below the one, distance above the other."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of the candidates of one or more generations.

    Attributes
    ----------
    left, flagged
        Candidates not flagged, N₀, and flagged, N₁.
    audited, audited_bad
        Of the first, those labelled at random, and those of them with an error above the tolerance.
    labelled, labelled_bad
        The same of the flagged ones that were labelled.
    """

    left: int
    flagged: int
    audited: int
    audited_bad: int
    labelled: int
    labelled_bad: int

    @staticmethod
    def summed(parts: Sequence[Counts]) -> Counts:
        """Of several generations together."""
        names = ("left", "flagged", "audited", "audited_bad", "labelled", "labelled_bad")
        return Counts(**{name: sum(getattr(part, name) for part in parts) for name in names})


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Rates with intervals of at least 95 % confidence; None where nothing was measured.

    Attributes
    ----------
    unnoticed
        p = P(error > tolerance | not flagged), with its Clopper–Pearson interval.
    miss_rate
        P(not flagged | error > tolerance); its interval follows from those of p and q at 97.5 % each (Bonferroni).
    false_alarms
        P(flagged | error ≤ tolerance), likewise.
    """

    counts: Counts
    unnoticed: float | None
    unnoticed_interval: Interval
    miss_rate: float | None
    miss_rate_interval: Interval
    false_alarms: float | None
    false_alarms_interval: Interval

    @property
    def sentence(self) -> str:
        """What was measured, in words."""
        c = self.counts
        if c.audited == 0:
            why = "no frame was left unflagged" if c.left == 0 else "no audit label"
            return f"no audit: {why}; {c.labelled_bad} of {c.labelled} labelled flagged frames exceed the tolerance"
        found = f"{c.audited_bad} of {c.audited} audit labels exceed the tolerance"
        return f"{found}; miss rate {_rate(self.miss_rate, self.miss_rate_interval)}, false alarms " + _rate(
            self.false_alarms, self.false_alarms_interval
        )


def audit(counts: Counts) -> Audit:
    """Rates from counts."""
    c = counts
    p = c.audited_bad / c.audited if c.audited else None
    q = c.labelled_bad / c.labelled if c.labelled else None
    (p0, p1), (q0, q1) = interval(c.audited_bad, c.audited, 0.975), interval(c.labelled_bad, c.labelled, 0.975)
    known = (p is not None or not c.left) and (q is not None or not c.flagged)
    miss = _share((p or 0.0) * c.left, (q or 0.0) * c.flagged) if known else None
    alarm = _share((1 - (q or 0.0)) * c.flagged, (1 - (p or 0.0)) * c.left) if known else None
    return Audit(
        counts=c,
        unnoticed=p,
        unnoticed_interval=interval(c.audited_bad, c.audited),
        miss_rate=miss,
        miss_rate_interval=(_bound(p0 * c.left, q1 * c.flagged, 0.0), _bound(p1 * c.left, q0 * c.flagged, 1.0)),
        false_alarms=alarm,
        false_alarms_interval=(
            _bound((1 - q1) * c.flagged, (1 - p0) * c.left, 0.0),
            _bound((1 - q0) * c.flagged, (1 - p1) * c.left, 1.0),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Two-sample Kolmogorov–Smirnov test of new scores against those of the calibration.

    Attributes
    ----------
    distance, p
        Largest difference of the two distributions, and the chance of as large a one if they were the same. Frames of
        one trajectory are alike, so p is rather too small: a drift must also be a large one.
    drifted
        The scores are distributed differently: the calibration speaks of other frames than these.
    """

    distance: float
    p: float
    drifted: bool


def drift(new: ArrayLike, calibration: ArrayLike) -> Drift | None:
    """Whether new scores are distributed as those of the calibration; None without scores on either side.

    Raises nothing: scores that are NaN are left out, infinite ones (a new element) count as largest.
    """
    from scipy.stats import ks_2samp

    a, b = (np.asarray(x, dtype=float).ravel() for x in (new, calibration))
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if not len(a) or not len(b):
        return None
    largest = np.finfo(float).max
    test = ks_2samp(np.minimum(a, largest), np.minimum(b, largest))
    distance, p = float(test.statistic), float(test.pvalue)
    return Drift(distance=distance, p=p, drifted=p < DRIFT_P and distance > DRIFT_DISTANCE)


def _share(part: float, rest: float) -> float | None:
    return part / (part + rest) if part + rest > 0 else None


def _bound(part: float, rest: float, otherwise: float) -> float:
    found = _share(part, rest)
    return otherwise if found is None else found


def _rate(value: float | None, bounds: Interval) -> str:
    shown = "unknown" if value is None else f"{value:.2f}"
    return f"{shown} (95 % interval {bounds[0]:.2f}–{bounds[1]:.2f})"
