"""Whether a generation still changed anything: its errors, what its detector flags, and the benchmark.

Equivalence, not the lack of a significant difference: a number has settled when its whole 95 % interval lies within a
margin around "no change", so that few frames never pass for a standstill. Deciding to stop is ``gate.py``'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aldriver.benchmark.score import OF_THE_MACHINE, base_name, scale_of
from aldriver.core.records import PropertyRecord

ERROR_MARGIN = 0.1
"""Relative change of the force RMSE that counts as none."""
COVERAGE_MARGIN = 0.1
"""Change of the share of flagged candidates that counts as none."""
PROPERTY_MARGIN = 0.02
"""Relative change of a property that counts as none."""
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Step:
    """From the promoted potential to a new one.

    Attributes
    ----------
    error, coverage, benchmark
        Whether each has settled.
    sentence
        The numbers.
    """

    error: bool
    coverage: bool
    benchmark: bool
    sentence: str

    @property
    def settled(self) -> bool:
        """All three."""
        return self.error and self.coverage and self.benchmark


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Candidates of a generation, those flagged, and whether the detector could promise anything."""

    candidates: int
    flagged: int
    promised: bool


def step(
    errors: tuple[ArrayLike, ArrayLike] | None,
    coverage: tuple[Coverage, Coverage] | None,
    records: tuple[Sequence[PropertyRecord], Sequence[PropertyRecord]],
) -> Step:
    """Compare a generation with the promoted one; each pair is (promoted, new).

    Parameters
    ----------
    errors
        Mean squared force error of the same frames; None when there are none.
    coverage
        Of the generation before, and of this one.
    records
        Of the benchmark.
    """
    parts = [_error(errors), _coverage(coverage), _benchmark(*records)]
    (error, coverage_settled, benchmark) = (settled for settled, _ in parts)
    return Step(
        error=error,
        coverage=coverage_settled,
        benchmark=benchmark,
        sentence="; ".join(sentence for _, sentence in parts),
    )


def stop_reason(now: Step, before: Mapping[str, Any] | None) -> str:
    """Why to stop: this step and the one before have settled; empty when they have not."""
    if before is None or not (now.settled and before.get("settled")):
        return ""
    return f"errors, coverage and benchmark have settled over two generations: {now.sentence}"


def ratio_interval(before: ArrayLike, after: ArrayLike, *, seed: int = 0) -> tuple[float, float, float]:
    """Ratio of two RMSE over the same frames and its 95 % bootstrap interval (frames resampled in pairs).

    Percentile bootstrap: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    a, b = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(a), (RESAMPLES, len(a)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.sqrt(b[drawn].mean(axis=1) / a[drawn].mean(axis=1))
        value = float(np.sqrt(b.mean() / a.mean()))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return value, float(low), float(high)


def _error(errors: tuple[ArrayLike, ArrayLike] | None) -> tuple[bool, str]:
    if errors is None or np.size(errors[0]) < 2:
        return False, "errors: no common frames to compare on"
    value, low, high = ratio_interval(*errors)
    settled = low >= 1 - ERROR_MARGIN and high <= 1 + ERROR_MARGIN
    return bool(settled), f"force RMSE ×{value:.3f} (95 % interval {low:.3f}–{high:.3f})"


def _coverage(coverage: tuple[Coverage, Coverage] | None) -> tuple[bool, str]:
    if coverage is None or not all(c.candidates for c in coverage):
        return False, "coverage: no candidates to compare"
    if not all(c.promised for c in coverage):
        return False, "coverage: the detector cannot promise anything yet"
    shares = [c.flagged / c.candidates for c in coverage]
    half = [
        1.96 * math.sqrt(s * (1 - s) / c.candidates) + 1 / c.candidates for s, c in zip(shares, coverage, strict=True)
    ]
    change, width = shares[1] - shares[0], math.hypot(*half)
    text = f"flagged {shares[0]:.0%} → {shares[1]:.0%} (change {change:+.2f} ± {width:.2f})"
    return abs(change) + width <= COVERAGE_MARGIN, text


def _benchmark(before: Sequence[PropertyRecord], after: Sequence[PropertyRecord]) -> tuple[bool, str]:
    old = {(r.case, r.property): r for r in before}
    changes: dict[str, float] = {}
    for new in after:
        if base_name(new.property) in OF_THE_MACHINE:
            continue
        same = old.get((new.case, new.property))
        if same is None or same.value is None or new.value is None or not (same.converged and new.converged):
            return False, f"benchmark: no trusted {new.property} of {new.case} to compare"
        size = max(abs(same.value), abs(new.value), scale_of(new.property).floor)
        changes[f"{new.property} of {new.case}"] = abs(new.value - same.value) / size if size else 0.0
    if not changes:
        return False, "benchmark: nothing to compare"
    name = max(changes, key=lambda k: changes[k])
    return changes[name] <= PROPERTY_MARGIN, f"largest change in the benchmark {changes[name]:.1%} ({name})"
