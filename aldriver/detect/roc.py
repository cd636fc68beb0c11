"""How well a signal ranks force errors: AUROC for the worst share of atoms and of frames, with bootstrap intervals.

Numbers in, numbers out; where errors and signals come from is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aldriver.core.errors import InputError

Array = NDArray[np.float64]
Frame = Literal["mean", "rms", "max"]

_BLOCK = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Auroc:
    """Chance that a positive scores above a negative, ties half.

    Attributes
    ----------
    value
        0.5 for a score that knows nothing, 1 for one that ranks all positives above all negatives.
    low, high
        Bootstrap percentile interval.
    positives, negatives
        How many of each.
    left_out
        Items whose score is not a number.
    """

    value: float
    low: float
    high: float
    positives: int
    negatives: int
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class SignalRoc:
    """One signal.

    Attributes
    ----------
    atoms, frames
        For the worst share of the atoms and of the frames.
    rank_atoms, rank_frames
        Spearman's correlation with the error.
    within
        Mean over the frames of Spearman's correlation of their atoms: finding the bad atom of a frame.
    """

    atoms: Auroc
    frames: Auroc
    rank_atoms: float
    rank_frames: float
    within: float


def worst(errors: ArrayLike, share: float = 0.1) -> NDArray[np.bool_]:
    """Which errors belong to the worst share: the ⌈share · n⌉ largest, and what equals the least of these."""
    e = np.asarray(errors, dtype=float)
    if not len(e):
        return np.zeros(0, dtype=bool)
    count = min(len(e), max(1, math.ceil(share * len(e) - 1e-9)))
    return np.asarray(e >= np.sort(e)[-count])


def auroc(positive: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Area under the ROC curve: the Mann–Whitney statistic (Hanley & McNeil, Radiology 143, 29 (1982)).

    Parameters
    ----------
    positive, scores
        (n,) each; scores may be infinite, not NaN.
    weights
        (b, n) how often each item counts; by default once.

    Returns
    -------
    (b,) values, (1,) without weights; NaN where positives or negatives are missing.
    """
    p, s = np.asarray(positive, dtype=bool), np.asarray(scores, dtype=float)
    w = np.ones((1, len(s))) if weights is None else np.atleast_2d(np.asarray(weights, dtype=float))
    if not len(s):
        return np.full(len(w), np.nan)
    order = np.argsort(s, kind="stable")
    s, p, w = s[order], p[order], w[:, order]
    starts = np.flatnonzero(np.append(True, s[1:] != s[:-1]))
    good = np.add.reduceat(np.where(p, 0.0, w), starts, axis=1)
    bad = np.add.reduceat(np.where(p, w, 0.0), starts, axis=1)
    below = np.cumsum(good, axis=1) - 0.5 * good
    pairs = good.sum(axis=1) * bad.sum(axis=1)
    return np.divide((bad * below).sum(axis=1), pairs, out=np.full(len(w), np.nan), where=pairs > 0)


def auroc_interval(
    positive: ArrayLike,
    scores: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Auroc:
    """AUROC with a bootstrap percentile interval (Efron & Tibshirani, An Introduction to the Bootstrap (1993), ch. 13).

    Parameters
    ----------
    groups
        (n,) items of one group (the atoms of a frame, the frames of a trajectory) are drawn together, because they are
        not independent; by default each item is its own. What counts as positive stays as it is in the whole sample.

    Notes
    -----
    Resamples without a positive or a negative say nothing and are left out. A perfect ranking of the sample stays
    perfect in each resample: an interval of zero width there is a limit of the bootstrap, not certainty.
    """
    p, s = np.asarray(positive, dtype=bool), np.asarray(scores, dtype=float)
    known = ~np.isnan(s)
    p, s = p[known], s[known]
    names = np.arange(len(known)) if groups is None else _numbered(groups)
    _, member = np.unique(names[known], return_inverse=True)
    value = float(auroc(p, s)[0])
    n_groups, rng, found = int(member.max(initial=-1)) + 1, np.random.default_rng(seed), []
    block = max(1, _BLOCK // max(1, len(s)))
    for start in range(0, resamples if n_groups else 0, block):
        draws = rng.multinomial(n_groups, np.full(n_groups, 1.0 / n_groups), size=min(block, resamples - start))
        found.append(auroc(p, s, draws[:, member]))
    values = np.concatenate(found) if found else np.zeros(0)
    values = values[np.isfinite(values)]
    tail = 0.5 * (1.0 - level)
    low, high = (float(q) for q in np.quantile(values, [tail, 1.0 - tail])) if len(values) else (math.nan, math.nan)
    return Auroc(
        value=value,
        low=low,
        high=high,
        positives=int(p.sum()),
        negatives=int((~p).sum()),
        left_out=int((~known).sum()),
    )


def frame_value(values: ArrayLike, how: Frame) -> float:
    """One number of the values of a frame's atoms; NaN without atoms."""
    v = np.asarray(values, dtype=float)
    if not len(v):
        return math.nan
    if how == "rms":
        return float(np.sqrt(np.mean(np.square(v))))
    return float(v.mean() if how == "mean" else v.max())


def compare(
    errors: Sequence[ArrayLike],
    signals: Mapping[str, Sequence[ArrayLike]],
    *,
    frame_scores: Mapping[str, ArrayLike] | None = None,
    groups: Sequence[Hashable] | None = None,
    share: float = 0.1,
    error: Frame = "rms",
    frame: Frame = "mean",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, SignalRoc]:
    """Rank force errors by each of several signals, on the same frames.

    Parameters
    ----------
    errors
        (N,) force errors |F − F_ref| of the atoms of each frame, eV/Å.
    signals
        By name: (N,) values of the atoms of each frame.
    frame_scores
        By name: (n,) values of the frames, where they are not to be made of the atoms' values.
    groups
        (n,) trajectories; by default each frame is its own.
    share
        What counts as bad: this worst share of all atoms, and of all frames.
    error, frame
        How a frame's error, and its value of a signal, is made of its atoms'.

    Raises
    ------
    InputError
        When lengths differ, there are fewer than two frames, or an error is not a number.
    """
    by_frame = [np.asarray(e, dtype=float).ravel() for e in errors]
    sizes = [len(e) for e in by_frame]
    if len(by_frame) < 2:
        raise InputError("ranking needs at least two frames with known errors")
    of_atoms = np.concatenate(by_frame)
    of_frames = np.array([frame_value(e, error) for e in by_frame])
    if not np.isfinite(of_atoms).all():
        raise InputError("a force error is not a finite number: leave that frame out, or look at the potential first")
    for name, values in signals.items():
        if [len(np.asarray(v)) for v in values] != sizes:
            raise InputError(f"signal {name} does not have one value for each atom of each frame")
    own: Sequence[Hashable] = list(range(len(sizes))) if groups is None else groups
    of_group = np.repeat(_numbered(own), sizes)
    bad_atoms, bad_frames = worst(of_atoms, share), worst(of_frames, share)
    how = {"level": level, "resamples": resamples, "seed": seed}
    out = {}
    for name, values in signals.items():
        arrays = [np.asarray(v, dtype=float).ravel() for v in values]
        atoms = np.concatenate(arrays)
        frames = np.asarray((frame_scores or {}).get(name, [frame_value(v, frame) for v in arrays]), dtype=float)
        out[name] = SignalRoc(
            atoms=auroc_interval(bad_atoms, atoms, list(of_group), **how),  # type: ignore[arg-type]
            frames=auroc_interval(bad_frames, frames, own, **how),  # type: ignore[arg-type]
            rank_atoms=spearman(of_atoms, atoms),
            rank_frames=spearman(of_frames, frames),
            within=_mean([spearman(e, v) for e, v in zip(by_frame, arrays, strict=True)]),
        )
    return out


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation; NaN where one of the two is constant or there are fewer than two numbers."""
    from scipy.stats import rankdata

    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    known = ~(np.isnan(x) | np.isnan(y))
    if known.sum() < 2:
        return math.nan
    r, q = rankdata(x[known]), rankdata(y[known])
    if np.ptp(r) == 0 or np.ptp(q) == 0:
        return math.nan
    return float(np.corrcoef(r, q)[0, 1])


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return float(np.mean(known)) if known else math.nan


def _numbered(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    """Numbers of groups, in the order in which they first come."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
