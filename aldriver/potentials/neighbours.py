"""Neighbour lists with a skin, in canonical order. What a potential makes of the pairs is its own module's business."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.geometry import complete_cell
from numpy.typing import ArrayLike, NDArray

WRAP = 0.08
"""Cells are cut a little below zero: atoms that vibrate about the origin, where crystals have atoms, don't jump."""


@dataclass(frozen=True)
class Pairs:
    """All pairs of one configuration within a cutoff.

    Attributes
    ----------
    frac
        (N, 3) fractional coordinates, wrapped into [-WRAP, 1 - WRAP) along periodic directions.
    cell
        3×3, Å; missing vectors of a non-periodic cell are completed by unit vectors.
    i, j, shift
        Directed pairs, sorted by (i, j, shift): the vector is ``(frac[j] + shift - frac[i]) @ cell``.
    undirected
        Index of the undirected pair each directed one belongs to (two directed pairs each).
    directed
        Index of one directed pair of each undirected pair.
    distance
        Of each directed pair, Å.
    """

    frac: NDArray[np.float64]
    cell: NDArray[np.float64]
    i: NDArray[np.int64]
    j: NDArray[np.int64]
    shift: NDArray[np.int64]
    undirected: NDArray[np.int64]
    directed: NDArray[np.int64]
    distance: NDArray[np.float64]


class NeighbourList:
    """Pairs within `cutoff` along a trajectory; searched anew only when atoms or cell moved too far for the skin.

    The result does not depend on the history: pairs come in the same order, with the same numbers, as from a fresh
    list. Positions may be wrapped or not, and may jump by lattice vectors between calls.

    Parameters
    ----------
    cutoff, skin
        Å; ``skin=0`` searches at every call.
    pbc
        Periodicity along the three cell vectors.
    """

    def __init__(self, cutoff: float, *, pbc: ArrayLike = True, skin: float = 0.0) -> None:
        self.cutoff, self.skin = float(cutoff), float(skin)
        self.pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)).copy()
        self.searches = 0
        self._frac0: NDArray[np.float64] = np.empty((0, 3))

    def __call__(self, positions: ArrayLike, cell: ArrayLike) -> Pairs:
        """Pairs of (N, 3) positions in a 3×3 cell, both Å."""
        return self._within_cutoff(*self.update(positions, cell))

    def update(
        self, positions: ArrayLike, cell: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """Search anew if that is needed.

        Returns
        -------
        tuple
            Fractional coordinates as in :class:`Pairs`, the lattice vectors (N, 3) by which each atom was wrapped
            differently at the last search, and the completed cell.
        """
        box = complete_cell(np.asarray(cell, dtype=float))
        frac = np.asarray(positions, dtype=float) @ np.linalg.inv(box)
        wrapped = frac - np.floor(frac + WRAP) * self.pbc
        if not self._valid(wrapped, box):
            self._search(wrapped, box)
        return wrapped, np.rint(self._unwrapped(wrapped) - wrapped).astype(np.int64), box

    @property
    def pairs_with_skin(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """i, j and shift of all pairs of the last search, in the order of :class:`Pairs`."""
        return self._full

    def _valid(self, frac: NDArray[np.float64], box: NDArray[np.float64]) -> bool:
        """Whether no pair outside cutoff + skin can have come inside the cutoff.

        A pair vector r becomes r·F + (u_j − u_i) with F = cell0⁻¹·cell, so its length is at least
        s_min(F)·|r| − 2·max|u|.
        """
        if self.skin <= 0 or len(frac) == 0 or len(frac) != len(self._frac0):
            return False
        moved = self._unwrapped(frac) - self._frac0
        moved -= moved.mean(axis=0)
        reach = 2.0 * np.sqrt(((moved @ box) ** 2).sum(axis=1).max())
        stretch = np.linalg.svd(np.linalg.solve(self._box0, box), compute_uv=False)[-1]
        return bool(stretch * (self.cutoff + self.skin) - reach > self.cutoff)

    def _unwrapped(self, frac: NDArray[np.float64]) -> NDArray[np.float64]:
        """The periodic images closest to where the atoms were at the last search."""
        moved = frac - self._frac0
        return frac - np.rint(moved) * self.pbc

    def _search(self, frac: NDArray[np.float64], box: NDArray[np.float64]) -> None:
        from matscipy.neighbours import neighbour_list

        self.searches += 1
        i, j, shift = neighbour_list(
            "ijS", positions=frac @ box, cell=box, pbc=self.pbc, cutoff=self.cutoff + self.skin
        )
        i, j, shift = i.astype(np.int64), j.astype(np.int64), shift.astype(np.int64)
        first = shift[:, 0] * 4 + np.sign(shift[:, 1]) * 2 + np.sign(shift[:, 2])  # sign = sign of the first non-zero
        # one of the two directions of each pair; mirrored below, so that the list is symmetric whatever the rounding
        half = (i < j) | ((i == j) & (first > 0))
        i, j, shift = i[half], j[half], shift[half]
        order = _canonical_order(i, j, shift, len(frac))
        i, j, shift = i[order], j[order], shift[order]
        self._frac0, self._box0 = frac.copy(), box.copy()
        self._half = (i, j, shift)
        ii, jj, ss = np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([shift, -shift])
        order = _canonical_order(ii, jj, ss, len(frac))
        self._full = (ii[order], jj[order], ss[order])
        self._half_of = order % max(len(i), 1)
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self._forward = place[: len(i)]

    def _within_cutoff(self, frac: NDArray[np.float64], images: NDArray[np.int64], box: NDArray[np.float64]) -> Pairs:
        i, j, shift = self._half
        vectors = (frac[j] - frac[i] + (shift + images[j] - images[i])) @ box
        lengths = np.sqrt((vectors**2).sum(axis=1))
        near = lengths < self.cutoff
        keep = near[self._half_of]
        number = np.cumsum(near) - 1
        i, j, shift = (a[keep] for a in self._full)
        half = self._half_of[keep]
        return Pairs(
            frac=frac,
            cell=box,
            i=i,
            j=j,
            shift=shift + images[j] - images[i],
            undirected=number[half],
            directed=(np.cumsum(keep) - 1)[self._forward[near]],
            distance=lengths[half],
        )


def _canonical_order(
    i: NDArray[np.int64], j: NDArray[np.int64], shift: NDArray[np.int64], n_atoms: int
) -> NDArray[np.int64]:
    """Order by (i, j, shift). Wrapping moves all shifts of one (i, j) alike, so it does not change this order."""
    if len(i) == 0:
        return np.empty(0, dtype=np.int64)
    low = shift.min(axis=0)
    span = shift.max(axis=0) - low + 1
    key = i * n_atoms + j
    for axis in range(3):
        key = key * span[axis] + (shift[:, axis] - low[axis])
    return np.argsort(key)
