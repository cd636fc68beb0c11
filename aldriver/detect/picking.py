"""One pick after the other: takes candidates greedily until the budget is used up; ``select.py`` says in which order.

Knows the kept candidates, their distances to what is labelled or taken, and what may still be spent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aldriver.detect.pool import Array, Rows

Mask = NDArray[np.bool_]

PICKED = ("chosen", "forced", "audit", "filled")
ROUNDING = 1e-6


class Picking:
    """The kept candidates and what has become of them so far."""

    def __init__(
        self,
        rows: Rows,
        labelled: Array,
        separation: float,
        places: int,
        hours: float,
        kinds: Sequence[str],
        quotas: Mapping[str, int],
    ) -> None:
        self.rows, self.separation, self.places, self.hours = rows, separation, places, hours
        self.spent = 0.0
        self.audited: list[tuple[str, ...]] = []
        self.picks: dict[str, list[tuple[int, float]]] = {kind: [] for kind in PICKED}
        self.taken = np.zeros(len(rows), dtype=bool)
        # distance to the nearest frame that is labelled or taken
        self.nearest = nearest(rows.x, labelled)
        self.names = {kind: np.array([g[k] for g in rows.groups], dtype=object) for k, kind in enumerate(kinds)}
        self.quotas = quotas
        self.used: dict[str, Counter[str]] = {kind: Counter() for kind in quotas}
        self.full = np.full(len(rows), any(most < 1 for most in quotas.values()))

    @classmethod
    def empty(cls, hours: float) -> Picking:
        """Nothing to pick from."""
        none = np.zeros(0)
        rows = Rows(
            positions=np.zeros(0, dtype=int),
            hashes=np.zeros(0, dtype=np.uint64),
            ratios=none,
            costs=none,
            groups=np.zeros(0, dtype=object),
            codes=np.zeros(0, dtype=np.uint64),
            x=np.zeros((0, 0)),
            cells=np.zeros((0, 3)),
        )
        return cls(rows, np.zeros((0, 0)), 0.0, 0, hours, (), {})

    def audit(self, drawn: Rows, labelled: Array, places: int) -> None:
        """Take the first of the lots; only a frame that has a label already is passed over."""
        twin = nearest(drawn.x, labelled) <= ROUNDING * np.sqrt((drawn.x**2).sum(axis=1))
        for i in np.flatnonzero(~twin)[:places]:
            # not skipped for a cheaper one, which would favour small cells
            if self.spent + drawn.costs[i] > self.hours:
                break
            self._account(drawn, int(i), "audit")
            self.taken |= self.rows.hashes == drawn.hashes[i]
            self.audited.append(drawn.groups[i])

    def force(self, heard: Mapping[str, Collection[str]]) -> None:
        """The worst frame of each group that is owed a label, those of the worst groups first."""
        owed = {kind: set(self.names[kind]) - set(lately) for kind, lately in heard.items()}
        for groups in self.audited:
            self._settle(owed, groups)
        while any(owed.values()):
            among = np.zeros(len(self.rows), dtype=bool)
            for kind, names in owed.items():
                among |= np.isin(self.names[kind], list(names))
            i = self._best(among & (self.nearest > 0), by_gain=False, alike=True)
            if i is None:
                break
            self._take(i, "forced")
            self._settle(owed, self.rows.groups[i])

    def spread(self, among: Mask, fate: str) -> None:
        """The worst, then the largest ratio × distance each time, passing over near-duplicates."""
        first = fate == "chosen"
        while (i := self._best(among, by_gain=not first)) is not None:
            self._take(i, fate)
            first = False

    def left_out(self) -> dict[str, int]:
        """Flagged ones that were considered and not taken, by reason."""
        left = (self.rows.ratios > 1) & ~self.taken
        alike = left & (self.nearest <= self.separation)
        quota = left & ~alike & self.full
        counts = {"near_duplicate": alike, "over_quota": quota, "over_budget": left & ~alike & ~quota}
        return {reason: int(mask.sum()) for reason, mask in counts.items()}

    def _settle(self, owed: dict[str, set[str]], groups: tuple[str, ...]) -> None:
        for kind, name in zip(self.names, groups, strict=True):
            owed.get(kind, set()).discard(name)

    def _best(self, among: Mask, *, by_gain: bool, alike: bool = False) -> int | None:
        """Best of what may still be taken; the lowest hash among equals (rows are sorted by it)."""
        if not self.places:
            return None
        open_ = among & ~self.taken & ~self.full & (self.spent + self.rows.costs <= self.hours)
        if not alike:
            open_ &= self.nearest > self.separation
        index = np.flatnonzero(open_)
        if not len(index):
            return None
        ratios, distance = self.rows.ratios[index], self.nearest[index]
        # with nothing labelled or taken yet there is no distance, and the ratio alone decides
        gain = ratios * np.where(np.isinf(distance), 1.0, distance) if by_gain else ratios
        return int(index[np.lexsort((index, -distance, -ratios, -gain))[0]])

    def _take(self, i: int, fate: str) -> None:
        self.taken[i] = True
        for kind, most in self.quotas.items():
            name = self.names[kind][i]
            self.used[kind][name] += 1
            if self.used[kind][name] >= most:
                self.full |= self.names[kind] == name
        self._account(self.rows, i, fate)

    def _account(self, rows: Rows, i: int, fate: str) -> None:
        self.picks[fate].append((int(rows.positions[i]), float(rows.ratios[i])))
        self.places -= 1
        self.spent += float(rows.costs[i])
        self.nearest = np.minimum(self.nearest, nearest(self.rows.x, rows.x[i : i + 1]))


def nearest(x: Array, others: Array, block: int = 512) -> Array:
    """(n,) distance of each row to the nearest of the others; infinite where there is none."""
    from scipy.spatial.distance import cdist

    if not len(others):
        return np.full(len(x), np.inf)
    # pair by pair: the rounding of a matrix product depends on the other rows
    parts = [cdist(x[i : i + block], others).min(axis=1) for i in range(0, len(x), block)]
    return np.concatenate(parts) if parts else np.zeros(0)
