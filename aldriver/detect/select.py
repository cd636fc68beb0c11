"""Which candidate frames get a label: the worst first, unlike each other and all that is labelled, within a budget.

Owns the policy. What is kept of a stream is ``pool.py``'s; vectors and ratios come from ``detector.py``; labels are
another stage's.

Four kinds of label, in this order, until the budget is used up:

* *audit*: drawn at random from all frames below the threshold, whatever their score or vector;
* *forced*: the worst frame of each group (a walker, a set of elements) that had no label for long;
* *chosen*: above the threshold. First the worst; then each time the one with the largest ratio × distance to the
  nearest frame that is labelled or taken: farthest-point sampling (Gonzalez, Theor. Comput. Sci. 38, 293 (1985)) with
  weights, started from the labelled frames as Holzmüller et al., J. Mach. Learn. Res. 24, 164 (2023) advise;
* *filled*: the same below the threshold, when asked for.

Raising the ratio of one frame never costs it a place that it won by its score (forced, chosen, filled): up to the step
at which it is taken nothing depends on its score, so the others are taken as before until it is, at that step or an
earlier one. The audit is a lottery below the threshold, in which the score has no say at all.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from aldriver.core.errors import InputError
from aldriver.detect.picking import PICKED, ROUNDING, Picking
from aldriver.detect.pool import Array, Cells, Lowest, Rows, projections

DUPLICATE_FRACTION = 0.5
"""Two frames closer than this share of the typical distance between similar frames are near-duplicates."""
POOL = 4096
"""Most candidates that are kept of a stream."""
_TYPICAL_QUANTILE = 0.02
_SAMPLE = 1500
_SPARE = 4
LEFT = {
    "near_duplicate": "near-duplicates",
    "over_quota": "over the quota of their group",
    "over_budget": "over the budget",
    "thinned": "alike a worse one",
    "below_threshold": "below the threshold",
    "quarantined": "quarantined (not a number)",
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was picked, as positions in the candidates in the order in which they came.

    Attributes
    ----------
    chosen
        Above the threshold, worst first.
    forced
        The worst of groups that had no label for long.
    audit
        Drawn at random below the threshold, to measure how well what is left unlabelled is described.
    filled
        Below the threshold, to use up the budget.
    reasons
        How many of each, and of those left out: ``near_duplicate``, ``over_quota``, ``over_budget``, ``thinned`` (of a
        long stream only the worst of each small cell of feature space was kept), ``below_threshold``, ``quarantined``,
        and the reason codes that came with candidates.
    quarantine
        Why candidates are quarantined, and how many.
    separation
        Distance up to which two frames counted as near-duplicates.
    core_hours
        What the labels are expected to cost; 0 where no costs were given.
    flagged
        Candidates above the threshold.
    message
        The outcome in one sentence.
    """

    chosen: list[int]
    forced: list[int]
    audit: list[int]
    filled: list[int]
    reasons: dict[str, int]
    quarantine: dict[str, int]
    separation: float
    core_hours: float
    flagged: int
    message: str

    @property
    def indices(self) -> list[int]:
        """All picked candidates: chosen, forced, audit, filled."""
        return self.chosen + self.forced + self.audit + self.filled


class Selector:
    """Takes candidates in chunks, keeps at most `pool` of them, and picks from those.

    The outcome depends on the candidates and on `seed`, never on their order or the chunks they came in. Memory holds
    for `pool` vectors (twice while a chunk is merged), time is linear in the candidates.
    """

    def __init__(self, *, seed: int, audit: int = 0, pool: int = POOL) -> None:
        self._seed, self._audit = seed, audit
        self._cells = Cells(pool)
        self._below = Lowest(_SPARE * audit)
        self._sample = Lowest(min(_SAMPLE, pool))
        self._count: Counter[str] = Counter()
        self._quarantine: Counter[str] = Counter()
        self._codes: dict[tuple[str, ...], int] = {}
        self._kinds: tuple[str, ...] | None = None
        self._width: int | None = None
        self._seen = 0

    def add(
        self,
        ids: Sequence[str],
        ratios: ArrayLike,
        vectors: ArrayLike,
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        costs: ArrayLike | None = None,
        refused: Sequence[str] | None = None,
    ) -> None:
        """Take note of n more candidates.

        Parameters
        ----------
        ids
            n names, such as frame hashes; the lots of the audit, and what decides between equals.
        ratios
            (n,) value over threshold; infinite is allowed (a new element), NaN quarantines.
        vectors
            (n, d); see ``Detector.frame_vectors``. Numbers that are not finite quarantine the candidate.
        groups
            Kind of group: name for each candidate, e.g. ``{"walker": [...], "elements": [...]}``; the same kinds
            each time.
        costs
            (n,) core-hours of a label.
        refused
            For each candidate a reason code for which it must not be labelled (e.g. ``unphysical``), or "".

        Raises
        ------
        InputError
            When lengths, widths or kinds differ, or a cost is negative or not finite.
        """
        r, x, c, kinds = self._checked(ids, ratios, vectors, groups, costs, refused)
        n = len(r)
        positions = np.arange(self._seen, self._seen + n)
        self._seen += n
        if not n:
            return
        codes = np.asarray(refused if refused is not None else [""] * n, dtype=object) != ""
        no_ratio, no_vector = np.isnan(r) & ~codes, ~np.isfinite(x).all(axis=1) & ~codes
        self._count.update(str(code) for code in (refused or ()) if code)
        self._quarantine["the score is not a number"] += int(no_ratio.sum())
        self._quarantine["the vector is not finite"] += int((no_vector & ~no_ratio).sum())
        usable = ~(codes | no_ratio | no_vector)
        members = list(zip(*kinds.values(), strict=True)) if kinds else [()] * n
        rows = Rows(
            positions=positions,
            hashes=np.fromiter((_hash(f"{self._seed}:{name}") for name in ids), dtype=np.uint64, count=n),
            ratios=r,
            costs=c,
            groups=np.fromiter(members, dtype=object, count=n),
            codes=np.fromiter((self._code(group) for group in members), dtype=np.uint64, count=n),
            x=x,
            cells=np.zeros((n, 0)),
        ).take(usable)
        rows = replace(rows, cells=projections(rows.x))
        below = ~(rows.ratios > 1)
        self._count["flagged"] += int((~below).sum())
        self._count["below"] += int(below.sum())
        self._below.add(rows.take(below))
        self._sample.add(rows)
        self._cells.add(rows)

    def select(
        self,
        *,
        budget: int,
        core_hours: float | None = None,
        known: ArrayLike | None = None,
        quotas: Mapping[str, int] | None = None,
        heard: Mapping[str, Collection[str]] | None = None,
        fill: bool = False,
        separation: float | None = None,
    ) -> Selection:
        """Pick up to `budget` candidates that together cost at most `core_hours`.

        Parameters
        ----------
        known
            (m, d) vectors of frames that have a label.
        quotas
            Kind of group: most labels that one group may get (audits apart, which stay uniform).
        heard
            Kind of group: names of those that had a label lately. Every other group among the candidates is owed one;
            None: nothing is forced.
        fill
            Go on below the threshold until the budget is used up.
        separation
            Near-duplicate distance; by default half the typical distance between similar frames (a low quantile of
            the pair distances of candidates and known frames).

        Raises
        ------
        InputError
            When the budget is impossible or a kind of group is unknown.
        """
        kinds = self._kinds or ()
        if budget < 0 or not 0 <= self._audit <= budget:
            raise InputError(f"label.audit ({self._audit}) must lie between 0 and label.budget ({budget})")
        if self._seen and (unknown := (set(quotas or ()) | set(heard or ())) - set(kinds)):
            raise InputError(f"no such kind of group: {', '.join(sorted(unknown))}; candidates have {list(kinds)}")
        labelled = self._labelled(known)
        rows = self._cells.rows
        hours = np.inf if core_hours is None else core_hours
        if rows is None:
            return self._outcome(Picking.empty(hours), budget, 0.0)
        if separation is None:
            assert self._sample.rows is not None
            separation = typical_separation(np.concatenate([self._sample.rows.x, labelled]))
        picking = Picking(rows, labelled, separation, budget, hours, kinds, quotas or {})
        if self._below.rows is not None:
            picking.audit(self._below.rows, labelled, self._audit)
        if heard is not None:
            picking.force(heard)
        flagged = rows.ratios > 1
        picking.spread(flagged, "chosen")
        if fill:
            picking.spread(~flagged, "filled")
        return self._outcome(picking, budget, separation)

    def _outcome(self, picking: Picking, budget: int, separation: float) -> Selection:
        picks = picking.picks
        reasons = {kind: len(picks[kind]) for kind in PICKED} | picking.left_out()
        flagged = sum(ratio > 1 for kind in PICKED for _, ratio in picks[kind])
        considered = sum(reasons[kind] for kind in ("near_duplicate", "over_quota", "over_budget"))
        reasons["thinned"] = self._count["flagged"] - flagged - considered
        reasons["below_threshold"] = self._count["below"] - (sum(map(len, picks.values())) - flagged)
        reasons["quarantined"] = self._quarantine.total()
        refused = {code: n for code, n in sorted(self._count.items()) if code not in ("flagged", "below")}
        found = {kind: [position for position, _ in picks[kind]] for kind in PICKED}
        worst_first = sorted(picks["chosen"], key=lambda pick: -pick[1])
        return Selection(
            **found | {"chosen": [position for position, _ in worst_first]},
            reasons=reasons | refused,
            quarantine={why: n for why, n in self._quarantine.items() if n},
            separation=separation,
            core_hours=picking.spent,
            flagged=self._count["flagged"],
            message=_message(reasons, refused, self._seen, budget, picking.spent, picking.hours),
        )

    def _code(self, group: tuple[str, ...]) -> int:
        code = self._codes.get(group)
        if code is None:
            code = self._codes[group] = _hash(repr(group))
        return code

    def _checked(
        self,
        ids: Sequence[str],
        ratios: ArrayLike,
        vectors: ArrayLike,
        groups: Mapping[str, Sequence[str]] | None,
        costs: ArrayLike | None,
        refused: Sequence[str] | None,
    ) -> tuple[Array, Array, Array, dict[str, Sequence[str]]]:
        r = np.asarray(ratios, dtype=float).ravel()
        x = np.asarray(vectors, dtype=float)
        kinds = {kind: groups[kind] for kind in sorted(groups or {})} if groups else {}
        if len(r) == 0 and x.size == 0:
            return r, np.zeros((0, 0)), r, kinds
        if x.ndim != 2 or len(x) != len(r) or len(ids) != len(r):
            raise InputError(f"selection needs as many vectors {x.shape} as ratios ({len(r)}) and ids ({len(ids)})")
        c = np.zeros(len(r)) if costs is None else np.asarray(costs, dtype=float).ravel()
        lengths = {"costs": len(c), "refused": len(r if refused is None else refused)}
        lengths |= {kind: len(names) for kind, names in kinds.items()}
        if wrong := {name: n for name, n in lengths.items() if n != len(r)}:
            raise InputError(f"selection got {len(r)} candidates, but {wrong} entries")
        if not (np.isfinite(c) & (c >= 0)).all():
            raise InputError("the cost of a label must be a number of core-hours ≥ 0")
        if self._kinds not in (None, tuple(kinds)) or self._width not in (None, x.shape[1]):
            raise InputError(
                f"candidates of one selection need vectors of one width ({self._width}, now {x.shape[1]}) and the same "
                f"kinds of groups ({self._kinds}, now {tuple(kinds)})"
            )
        self._kinds, self._width = tuple(kinds), x.shape[1]
        return r, x, c, kinds

    def _labelled(self, known: ArrayLike | None) -> Array:
        """Vectors of labelled frames in an order of their own."""
        width = self._width or 0
        if known is None or np.size(known) == 0 or self._width is None:
            return np.zeros((0, width))
        x = np.asarray(known, dtype=float)
        if x.ndim != 2 or x.shape[1] != width:
            raise InputError(f"vectors of labelled frames have shape {x.shape}, those of candidates a width of {width}")
        return x[np.isfinite(x).all(axis=1)]


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
    """Pick up to `budget` of candidates that are all in memory; see :class:`Selector`."""
    selector = Selector(seed=seed, audit=audit)
    r, x = np.asarray(ratios, dtype=float).ravel(), np.asarray(vectors, dtype=float)
    if len(ids) != len(r) or (len(r) and len(x) != len(r)):
        raise InputError(f"selection needs as many vectors {x.shape} as ratios ({len(r)}) and ids ({len(ids)})")
    for i in range(0, len(r), POOL):
        selector.add(ids[i : i + POOL], r[i : i + POOL], x[i : i + POOL])
    return selector.select(budget=budget, known=known, fill=fill, separation=separation)


def typical_separation(vectors: Array) -> float:
    """Near-duplicate distance of a set of (n, d) vectors: half the 2 % quantile of their pair distances.

    A low quantile, so that only pairs within one trajectory count, not those of different systems, temperatures or
    strains; never below rounding of the vectors.
    """
    from scipy.spatial.distance import pdist

    if len(vectors) == 0:
        return 0.0
    x = vectors[np.lexsort(vectors.T[::-1])] if vectors.shape[1] else vectors
    rounding = ROUNDING * float(np.sqrt((x**2).sum(axis=1).mean()))
    x = x[:: -(-len(x) // _SAMPLE)]
    if len(x) < 2:
        return rounding
    return max(DUPLICATE_FRACTION * float(np.quantile(pdist(x), _TYPICAL_QUANTILE)), rounding)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _message(
    reasons: Mapping[str, int], refused: Mapping[str, int], seen: int, budget: int, spent: float, hours: float
) -> str:
    picked = sum(reasons[kind] for kind in PICKED)
    kinds = f"{reasons['chosen']} above the threshold, {reasons['audit']} audit, {reasons['filled']} fill"
    kinds += f", {reasons['forced']} after a long silence" if reasons["forced"] else ""
    parts = [f"{picked} of {seen} candidates picked ({kinds})"]
    left = [f"{reasons[key]} {text}" for key, text in LEFT.items() if reasons[key]]
    left += [f"{count} {code}" for code, count in refused.items()]
    if left:
        parts.append("left out: " + ", ".join(left))
    if np.isfinite(hours):
        parts.append(f"expected cost {spent:.3g} of {hours:.3g} core-hours")
    if picked < budget:
        parts.append(f"fewer than the budget of {budget}: going on with these")
    return "; ".join(parts)
