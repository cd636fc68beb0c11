"""What is kept of a stream of candidates, in bounded memory: the worst frame of each cell of feature space, and the
frames with the lowest hashes.

Both depend on the set of candidates alone, never on their order or on how they were cut into chunks. What is picked
from them is ``select.py``'s.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_DIRECTIONS = 3
_FINEST, _COARSEST = -60, 60
"""Sides of a cell are powers of two between these; vectors are of the order of 1."""
_LEVELS = _DIRECTIONS * (_COARSEST - _FINEST) + 2


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Candidates as columns of equal length.

    Attributes
    ----------
    positions
        Which candidate of the stream, counted from 0.
    hashes
        64-bit hash of seed and name: the lot of a candidate, and what decides between equals.
    ratios, costs
        Score over threshold; core-hours of a label.
    groups, codes
        Names of the groups a candidate belongs to (a tuple), and a hash of them.
    x, cells
        (n, d) vectors, and their (n, 3) projections.
    """

    positions: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    ratios: Array
    costs: Array
    groups: NDArray[np.object_]
    codes: NDArray[np.uint64]
    x: Array
    cells: Array

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Rows:
        """Some of the rows."""
        return Rows(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @staticmethod
    def together(parts: Sequence[Rows]) -> Rows:
        """Rows of several parts (at least one), one after the other."""
        if len(parts) == 1:
            return parts[0]
        return Rows(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Rows)})


def projections(x: Array) -> Array:
    """(n, 3) coordinates of (n, d) vectors along three fixed random directions."""
    # products and sums row by row: the rounding of a matrix product depends on how many rows there are
    directions = np.random.default_rng(0).normal(size=(_DIRECTIONS, x.shape[1]))
    x = np.ascontiguousarray(x)
    return np.stack([(x * direction).sum(axis=1) for direction in directions], axis=1)


class Lowest:
    """The rows with the `size` lowest hashes, each hash once: a uniform sample that no score has a say in.

    Keeping the smallest of random keys is reservoir sampling (Vitter, ACM Trans. Math. Softw. 11, 37 (1985)); with
    hashes as the keys the sample does not depend on the order either.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: Rows | None = None

    def add(self, rows: Rows) -> None:
        """Take note of more rows."""
        if self.rows is not None and len(self.rows) >= self.size:
            rows = rows.take(rows.hashes <= (self.rows.hashes[-1] if self.size else 0))
        if not len(rows) or not self.size:
            return
        rows = rows if self.rows is None else Rows.together([self.rows, rows])
        order = np.lexsort((-rows.ratios, rows.hashes))
        hashes = rows.hashes[order]
        first = np.append(True, hashes[1:] != hashes[:-1])
        self.rows = rows.take(order[first][: self.size])


class Cells:
    """The row with the largest ratio of each cell of a grid in feature space, at most `size` rows.

    A cell is a box in three random directions and one combination of groups. While there are no more rows than `size`,
    each is its own cell. When there are more, the cells are doubled in one direction after another until few enough are
    occupied. Each grid is nested in the next, so the worst of a cell is the worst among the worst of its parts: the
    outcome is that of the finest grid that suffices for the whole stream at once. The grid depends on the vectors
    alone, so a row that is kept is also kept, beside the same others, when its ratio rises.

    Rows arrive through a buffer; the time is linear in their number. More groups than `size` are all kept, a row each.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.level = 0
        self._kept: list[Rows] = []
        self._waiting = 0

    def add(self, rows: Rows) -> None:
        """Take note of more rows."""
        if not len(rows):
            return
        self._kept.append(rows)
        self._waiting += len(rows)
        if self._waiting > self.size:
            self._merge()

    @property
    def rows(self) -> Rows | None:
        """What is kept, in the order of the hashes; None when nothing has come."""
        self._merge()
        if not self._kept:
            return None
        rows = self._kept[0]
        return rows.take(np.lexsort((rows.codes, rows.hashes)))

    def _merge(self) -> None:
        if not self._waiting:
            return
        rows = Rows.together(self._kept)
        kept = self._worst(rows, self.level)
        if len(kept) > self.size:
            # occupied cells only get fewer with the level, so the first that suffices is found by bisection
            levels = range(self.level + 1, _LEVELS)
            fits = bisect_left(levels, True, key=lambda level: len(self._worst(rows, level)) <= self.size)
            self.level = levels[min(fits, len(levels) - 1)] if levels else self.level
            kept = self._worst(rows, self.level)
        self._kept, self._waiting = [rows.take(kept)], 0

    @staticmethod
    def _worst(rows: Rows, level: int) -> NDArray[np.intp]:
        """Where the row with the largest ratio of each cell is."""
        keys = [rows.codes, *_grid(rows, level)]
        order = np.lexsort((rows.hashes, -rows.ratios, *keys))
        new = np.zeros(len(rows), dtype=bool)
        new[0] = True
        for key in keys:
            new[1:] |= key[order[1:]] != key[order[:-1]]
        return order[new]


def _grid(rows: Rows, level: int) -> list[NDArray[np.uint64] | Array]:
    """Coordinates of each row's cell; at the last level there is but one cell for each combination of groups."""
    if level == 0:
        return [rows.hashes]
    if level == _LEVELS - 1:
        return []
    exponents = [_FINEST + (level - 1 + k) // _DIRECTIONS for k in range(_DIRECTIONS)]
    # dividing by a power of two and rounding down are exact, so the grids are nested exactly
    return [np.floor(np.ldexp(rows.cells[:, k], -e)) for k, e in enumerate(exponents)]
