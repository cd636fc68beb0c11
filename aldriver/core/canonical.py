"""One structure written in many ways: the order of its sites and the images of its atoms do not count.

Owns identity up to permutation and lattice translations of single atoms. Identity of a frame as written is
``frames.frame_hash``; near-duplicates are found in descriptor space (``detect/select.py``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

_GRID = 4 * 720_720
"""Points along a cell vector. It divides by 2 to 16, so that special positions lie on points and not between them."""


@dataclass(frozen=True)
class Canonical:
    """A structure in canonical form.

    Attributes
    ----------
    digest
        24 hex characters; equal for frames that differ by site order and whole cell vectors of single atoms only.
    order
        (N,) site of the frame at each canonical place: ``forces[order]`` are the forces in canonical order.
    """

    digest: str
    order: NDArray[np.int64]


def canonical(atoms: Atoms) -> Canonical:
    """Species, positions (modulo the cell where periodic), cell and periodicity, sites sorted.

    Positions are rounded to a grid of the cell, about 10⁻⁶ Å. Rounding can tell apart what lies within 10⁻⁶ Å, and
    never takes for equal what differs by more.
    """
    points = _grid_points(atoms)
    numbers = np.asarray(atoms.numbers, dtype=np.int64)
    order = np.lexsort((points[:, 2], points[:, 1], points[:, 0], numbers))
    h = hashlib.sha256()
    h.update(numbers[order].astype("<i4").tobytes())
    h.update((points[order] + 0.0).astype("<f8").tobytes())  # + 0.0 turns −0.0 into 0.0
    h.update((np.round(np.asarray(atoms.cell), 6) + 0.0).astype("<f8").tobytes())
    h.update(np.asarray(atoms.pbc, dtype="u1").tobytes())
    return Canonical(h.hexdigest()[:24], order)


def rearranged(values: NDArray[np.float64], old: NDArray[np.int64], new: NDArray[np.int64]) -> NDArray[np.float64]:
    """Per-site values of one frame in the order of another with the same digest (`old`, `new`: their ``order``)."""
    out = np.empty_like(values)
    out[new] = values[old]
    return out


def _grid_points(atoms: Atoms) -> NDArray[np.float64]:
    """(N, 3) whole numbers; NaN where a position is not finite. Along open directions without a vector: 1 Å."""
    positions, cell = atoms.positions, np.asarray(atoms.cell.complete())
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-12:
        return np.rint(positions * _GRID)
    with np.errstate(invalid="ignore"):
        points = np.rint(np.linalg.solve(cell.T, positions.T).T * _GRID)
        points[:, atoms.pbc] %= _GRID
    return points
