"""Which candidate frames get a label: the worst first, no near-duplicates, within a budget, in any order.

Owns selection policy only; vectors and ratios come from ``detector.py``, labels are another stage's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aldriver.core.errors import InputError

Array = NDArray[np.float64]

DUPLICATE_FRACTION = 0.5
"""Two frames closer than this share of the typical distance between similar frames are near-duplicates."""
_TYPICAL_QUANTILE = 0.02
_SAMPLE = 1500
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was picked, as positions in the candidates that were passed in.

    Attributes
    ----------
    chosen
        Above the threshold, worst first.
    audit
        Drawn at random below the threshold, to check that what is left unlabelled is indeed well described.
    filled
        Below the threshold, the most different first, to use up the budget.
    fates
        For each candidate: ``chosen``, ``audit``, ``filled``, or why not: ``near_duplicate``, ``over_budget``,
        ``below_threshold``, ``quarantined``.
    reasons
        How many of each fate.
    separation
        Distance below which two frames counted as near-duplicates.
    message
        The outcome in one sentence.
    """

    chosen: list[int]
    audit: list[int]
    filled: list[int]
    fates: list[str]
    reasons: dict[str, int]
    separation: float
    message: str

    @property
    def indices(self) -> list[int]:
        """All picked candidates: chosen, audit, filled."""
        return self.chosen + self.audit + self.filled


def select(
    vectors: ArrayLike,
    ratios: ArrayLike,
    *,
    budget: int,
    ids: Sequence[str],
    seed: int,
    audit: int = 0,
    fill: bool = False,
    known: ArrayLike | None = None,
    separation: float | None = None,
) -> Selection:
    """Pick up to `budget` of n candidates.

    Candidates with ratio > 1 are taken from the largest ratio down, skipping each that is a near-duplicate of one taken
    before or already labelled: of two alike frames the worse one stays. So a larger ratio can only help a frame: it
    meets fewer frames taken before it. `audit` places of the budget go to frames at or below the threshold, in the
    order of a hash of `seed` and id, that is, uniformly at random and independent of everything else; places that no
    such frame can use go back. With `fill`, what is left goes to frames below the threshold by farthest-point sampling
    (Gonzalez, Theor. Comput. Sci. 38, 293 (1985)), starting from all that is labelled or taken.

    Parameters
    ----------
    vectors
        (n, d); see ``Detector.frame_vectors``. NaN quarantines the candidate.
    ratios
        (n,) value over threshold; infinite is allowed (a new element), NaN quarantines.
    ids
        (n,) names, such as frame hashes; the outcome depends on them and never on the order of the candidates.
    known
        (m, d) vectors of frames that have a label.
    separation
        Near-duplicate distance; by default half the typical distance between similar frames (a low quantile of
        all pair distances of candidates and known frames).

    Raises
    ------
    InputError
        When lengths differ or the budget is impossible.
    """
    x, r, labelled = _checked(vectors, ratios, ids, budget, audit, known)
    # a frame met twice has the same id and vector; its copies are then told apart by their ratio alone
    order = sorted(range(len(r)), key=lambda i: (ids[i], np.isnan(r[i]), -r[i], x[i].tobytes()))
    pool = _Pool(x[order], r[order], [ids[i] for i in order], labelled, separation)
    reserved = min(audit, len(pool.below))
    chosen = pool.take_worst(budget - reserved)
    audited = pool.take_audit(reserved, seed)
    chosen += pool.take_worst(budget - len(chosen) - len(audited))
    filled = pool.take_farthest(budget - len(chosen) - len(audited)) if fill else []
    fates = [""] * len(r)
    for position, i in enumerate(order):
        fates[i] = pool.fates[position]
    kinds = ("chosen", "audit", "filled", "near_duplicate", "over_budget", "below_threshold", "quarantined")
    reasons = {kind: fates.count(kind) for kind in kinds}
    return Selection(
        chosen=[order[i] for i in chosen],
        audit=[order[i] for i in audited],
        filled=[order[i] for i in filled],
        fates=fates,
        reasons=reasons,
        separation=pool.separation,
        message=_message(reasons, budget),
    )


class _Pool:
    """Candidates sorted by id, and what has become of each."""

    def __init__(self, x: Array, ratios: Array, ids: list[str], known: Array, separation: float | None) -> None:
        self.x, self.ratios, self.ids = x, ratios, ids
        usable = np.isfinite(x).all(axis=1) & ~np.isnan(ratios)
        self.separation = typical_separation(np.concatenate([x[usable], known])) if separation is None else separation
        # distance to the nearest frame that is taken or labelled
        self.nearest = np.full(len(x), np.inf)
        for row in known:
            self._approach(row)
        self.fates = [
            "quarantined" if not ok else "flagged" if r > 1 else "below_threshold"
            for ok, r in zip(usable, ratios, strict=True)
        ]
        self.flagged = sorted((i for i, f in enumerate(self.fates) if f == "flagged"), key=lambda i: (-ratios[i], i))
        self.below = [i for i, f in enumerate(self.fates) if f == "below_threshold"]

    def take_worst(self, places: int) -> list[int]:
        """Go down the flagged frames; those skipped for lack of places can be taken by a later call."""
        taken: list[int] = []
        for i in self.flagged:
            if self.fates[i] in ("chosen", "near_duplicate"):
                continue
            if self._is_duplicate(i):
                self.fates[i] = "near_duplicate"
            elif len(taken) < places:
                taken.append(self._take(i, "chosen"))
            else:
                self.fates[i] = "over_budget"
        return taken

    def take_audit(self, places: int, seed: int) -> list[int]:
        taken: list[int] = []
        for i in sorted(self.below, key=lambda i: (hashlib.sha256(f"{seed}:{self.ids[i]}".encode()).digest(), i)):
            if len(taken) == places:
                break
            if not self._is_duplicate(i):
                taken.append(self._take(i, "audit"))
        return taken

    def take_farthest(self, places: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < places:
            left = [i for i in self.below if self.fates[i] == "below_threshold" and not self._is_duplicate(i)]
            if not left:
                break
            taken.append(self._take(min(left, key=lambda i: (-self.nearest[i], -self.ratios[i], i)), "filled"))
        return taken

    def _take(self, i: int, fate: str) -> int:
        self.fates[i] = fate
        self._approach(self.x[i])
        return i

    def _approach(self, row: Array) -> None:
        # row by row, not by matrix products, whose rounding depends on the order of the rows
        distance = np.sqrt(((self.x - row) ** 2).sum(axis=1))
        self.nearest = np.fmin(self.nearest, distance)

    def _is_duplicate(self, i: int) -> bool:
        return bool(self.nearest[i] <= self.separation)


def typical_separation(vectors: Array) -> float:
    """Near-duplicate distance of a set of (n, d) vectors: half the 2 % quantile of their pair distances.

    A low quantile, so that only pairs within one trajectory count, not those of different systems, temperatures or
    strains; never below rounding of the vectors.
    """
    from scipy.spatial.distance import pdist

    if len(vectors) == 0:
        return 0.0
    x = vectors[np.lexsort(vectors.T[::-1])] if vectors.shape[1] else vectors
    rounding = _ROUNDING * float(np.sqrt((x**2).sum(axis=1).mean()))
    x = x[:: -(-len(x) // _SAMPLE)]
    if len(x) < 2:
        return rounding
    return max(DUPLICATE_FRACTION * float(np.quantile(pdist(x), _TYPICAL_QUANTILE)), rounding)


def _checked(
    vectors: ArrayLike, ratios: ArrayLike, ids: Sequence[str], budget: int, audit: int, known: ArrayLike | None
) -> tuple[Array, Array, Array]:
    r = np.asarray(ratios, dtype=float).ravel()
    x = np.asarray(vectors, dtype=float)
    if len(r) == 0:
        x = x.reshape(0, x.shape[1] if x.ndim == 2 else 0)
    if x.ndim != 2 or len(x) != len(r) or len(ids) != len(r):
        raise InputError(f"selection needs as many vectors {x.shape} as ratios ({len(r)}) and ids ({len(ids)})")
    if budget < 0 or not 0 <= audit <= budget:
        raise InputError(f"label.audit ({audit}) must lie between 0 and label.budget ({budget})")
    labelled = np.zeros((0, x.shape[1])) if known is None or np.size(known) == 0 else np.asarray(known, dtype=float)
    if labelled.ndim != 2 or (len(r) and labelled.shape[1] != x.shape[1]):
        raise InputError(f"vectors of labelled frames have shape {labelled.shape}, candidates {x.shape}")
    if not len(r):
        labelled = np.zeros((0, x.shape[1]))
    return x, r, labelled[np.isfinite(labelled).all(axis=1)]


def _message(reasons: dict[str, int], budget: int) -> str:
    picked = reasons["chosen"] + reasons["audit"] + reasons["filled"]
    parts = [f"{picked} of {sum(reasons.values())} candidates picked ({reasons['chosen']} above the threshold"]
    parts[0] += f", {reasons['audit']} audit, {reasons['filled']} fill)"
    words = {
        "near_duplicate": "near-duplicates",
        "over_budget": "over the budget",
        "below_threshold": "below the threshold",
        "quarantined": "quarantined (not a number)",
    }
    left = [f"{reasons[key]} {text}" for key, text in words.items() if reasons[key]]
    if left:
        parts.append("left out: " + ", ".join(left))
    if picked < budget:
        parts.append(f"fewer than the budget of {budget}: going on with these")
    return "; ".join(parts)
