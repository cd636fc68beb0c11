"""Crystals turned so that a lattice plane lies in x and y, and slabs cut from them: for surfaces and grain boundaries.

What is made of them is the business of ``surface.py`` and ``grain_boundary.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.benchmark.cases import conventional_cell
from aldriver.core.recipe_benchmark import ATOMS_PER_CELL, Case

FloatArray = NDArray[np.float64]
Plane = tuple[int, int, int]

PRIMITIVE: dict[str, FloatArray] = {
    "bcc": np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2,
    "fcc": np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2,
    "diamond": np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2,
}
"""Lattice vectors in lattice constants."""
MARGIN = 1.0e-6  # Å


@dataclass(frozen=True, kw_only=True)
class Oriented:
    """A crystal on one of its lattice planes.

    Attributes
    ----------
    atoms
        The smallest cell with its third vector along the plane's normal, which is z; the first lies along x. A slab
        begins at z = 0, in the widest gap between planes of atoms.
    spacing
        Distance of lattice planes, Å: a slab is as many of these thick, each with the atoms of one primitive cell.
    """

    atoms: Atoms
    spacing: float

    @property
    def area(self) -> float:
        """Of the cell in the plane, Å²."""
        return plane_area(self.atoms)

    def planes(self, thickness: float) -> int:
        """How many lattice planes a slab at least so thick has (Å)."""
        return max(1, math.ceil(thickness / self.spacing - MARGIN))

    def slab(self, planes: int) -> Atoms:
        """A slab of lattice planes that fills its cell from z = 0 on; its third vector is upright."""
        height = float(self.atoms.cell[2, 2])
        thickness = planes * self.spacing
        atoms = self.atoms.repeat((1, 1, math.ceil(thickness / height + MARGIN)))
        atoms = atoms[atoms.positions[:, 2] < thickness - MARGIN]
        atoms.cell[2] = (0.0, 0.0, thickness)
        return atoms


def oriented(case: Case, a: float, plane: Plane) -> Oriented:
    """Crystal of a case at lattice constant `a` (Å) on a lattice plane."""
    normal = np.array(plane, dtype=float)
    vectors = in_plane(case.lattice, plane)
    up = normal * next(t for t in (0.5, 1.0) if _is_lattice_vector(case.lattice, t * normal))
    cell = a * np.array([*vectors, up])
    atoms = _filled(case, a, cell)
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    n_lattice = len(atoms) * _per_primitive(case.lattice) / ATOMS_PER_CELL[case.lattice]
    spacing = float(atoms.cell[2, 2]) / n_lattice
    _begin_in_widest_gap(atoms)
    return Oriented(atoms=atoms, spacing=spacing)


def in_plane(lattice: str, plane: Plane) -> FloatArray:
    """The two shortest lattice vectors of a plane, (2, 3) in lattice constants, right-handed about its normal."""
    reach = range(-8, 9)
    steps = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3)
    vectors = steps @ PRIMITIVE[lattice]
    vectors = vectors[(np.abs(vectors @ np.array(plane)) < MARGIN) & (np.abs(vectors).max(axis=1) > MARGIN)]
    return shortest_pair(vectors, np.array(plane, dtype=float))


def shortest_pair(vectors: FloatArray, normal: FloatArray) -> FloatArray:
    """The two shortest of these vectors that are not parallel, (2, 3), at 60° to 120°, right-handed about `normal`."""
    vectors = vectors[np.argsort(np.linalg.norm(vectors, axis=1).round(6), kind="stable")]
    first = vectors[0]
    second = vectors[np.linalg.norm(np.cross(vectors, first), axis=1) > MARGIN][0]
    return np.array([first, second if np.cross(first, second) @ normal > 0 else -second])


def plane_area(atoms: Atoms) -> float:
    """|a × b| of a cell, Å²: its first two vectors need not be at a right angle."""
    return float(np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])))


def _per_primitive(lattice: str) -> int:
    return round(float(1 / abs(np.linalg.det(PRIMITIVE[lattice]))))


def _is_lattice_vector(lattice: str, vector: FloatArray) -> bool:
    steps = vector @ np.linalg.inv(PRIMITIVE[lattice])
    return bool(np.abs(steps - np.round(steps)).max() < MARGIN)


def _filled(case: Case, a: float, cell: FloatArray) -> Atoms:
    """The crystal's atoms in a cell of its lattice vectors."""
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T @ cell / a
    low, high = np.floor(corners.min(axis=0)).astype(int) - 1, np.ceil(corners.max(axis=0)).astype(int) + 1
    block = conventional_cell(case, a).repeat(tuple(int(n) for n in high - low))
    positions = block.positions + a * low
    inside = positions @ np.linalg.inv(cell)
    keep = ((inside > -MARGIN) & (inside < 1 - MARGIN)).all(axis=1)
    return Atoms(numbers=block.numbers[keep], positions=positions[keep], cell=cell, pbc=True)


def _begin_in_widest_gap(atoms: Atoms) -> None:
    """Shift the atoms along z, in place, so that z = 0 lies in the middle of the widest gap between their planes."""
    height = float(atoms.cell[2, 2])
    z = np.sort(atoms.positions[:, 2] % height)
    gaps = np.diff(z, append=z[0] + height)
    widest = int(np.argmax(gaps > gaps.max() - MARGIN))
    atoms.positions[:, 2] -= z[widest] + gaps[widest] / 2
    atoms.wrap(eps=MARGIN)
