"""Cells with two equal grain boundaries: of a crystal and its mirror image (tilt), or itself turned (twist).

Symmetric boundaries of cubic crystals only. What is relaxed, and which start wins, is ``grain_boundary.py``'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from aldriver.benchmark.oriented import MARGIN, Oriented, oriented, plane_area, shortest_pair
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_binding import BoundaryName, twist_angle

FloatArray = NDArray[np.float64]

OVERLAP = 0.7
"""Of the distance of nearest neighbours: two atoms that are closer across a boundary become one, in the middle."""
MERGES = 2
"""How often: after some shifts each plane that goes brings the next one into the place it had, until none is left."""
CORE = 0.08
"""Half the height of a grain's middle, in units of the cell's."""
NEAREST = {"bcc": math.sqrt(3) / 2, "fcc": math.sqrt(0.5), "diamond": math.sqrt(3) / 4}
"""Distance of nearest neighbours in lattice constants."""


@dataclass(frozen=True, kw_only=True)
class Grains:
    """Two grains of one size in the smallest cell that both fit, before they are put together.

    Attributes
    ----------
    lower, upper
        Slabs with atoms from z = 0 on; their cells are equal.
    nearest
        Distance of nearest neighbours, Å.
    volume
        Of an atom in the perfect crystal, Å³.
    steps
        How many sites of the crystal's plane the boundary has: shifts repeat themselves on so much finer a grid.
    """

    lower: Atoms
    upper: Atoms
    nearest: float
    volume: float
    steps: int

    @property
    def area(self) -> float:
        """Of a boundary, Å²."""
        return plane_area(self.lower)


def grains(case: Case, a: float, name: BoundaryName, thickness: float) -> Grains:
    """The two grains of a boundary, each at least `thickness` (Å) thick."""
    crystal = oriented(case, a, name.plane)
    planes = crystal.planes(thickness)
    if name.kind == "tilt":
        lower, upper = crystal.slab(planes), _mirrored(crystal.slab(planes))
    else:
        angle = twist_angle(name.sigma, name.plane)
        assert angle is not None
        lower, upper = _twisted(crystal, planes, angle, name.sigma)
    steps = round(plane_area(lower) / crystal.area)
    volume = crystal.atoms.get_volume() / len(crystal.atoms)
    return Grains(lower=lower, upper=upper, nearest=a * NEAREST[case.lattice], volume=volume, steps=steps)


def bicrystal(parts: Grains, shift: tuple[float, float], excess: float) -> Atoms:
    """The grains put together, twice in contact.

    Parameters
    ----------
    shift
        Of the upper grain along the plane, in units of the boundary's period.
    excess
        Excess volume of each boundary per area, Å: the cell is twice that longer than as much perfect crystal.
    """
    height = float(parts.lower.cell[2, 2])
    upper = parts.upper.copy()
    along = np.array(shift) @ np.asarray(upper.cell)[:2] / parts.steps
    upper.positions += along + np.array([0, 0, height])
    atoms = parts.lower + upper
    atoms.cell[2] = (0, 0, 2 * height)
    atoms.wrap(eps=MARGIN)
    for _ in range(MERGES):  # with fewer atoms the cell is shorter, and others come close
        atoms = _merged(atoms, OVERLAP * parts.nearest)
        crystal = len(atoms) * parts.volume / parts.area
        atoms = lengthened(atoms, (crystal - float(atoms.cell[2, 2])) / 2 + excess)
    return atoms


def lengthened(atoms: Atoms, by: float) -> Atoms:
    """A copy with both boundaries, at z = 0 and half the height, `by` (Å) wider; those atoms on them stay midway."""
    atoms = atoms.copy()
    height = float(atoms.cell[2, 2])
    z = atoms.positions[:, 2] / height
    z -= np.floor(z + MARGIN)
    where = np.select([np.abs(z) < 1e-3, np.abs(z - 0.5) < 1e-3, z < 0.5], [0.0, 1.0, 0.5], 1.5)
    atoms.positions[:, 2] = z * height + where * by
    atoms.cell[2] = (0, 0, height + 2 * by)
    return atoms


def changed(start: Atoms, relaxed: Atoms, nearest: float) -> str:
    """Why a relaxed cell is no longer the one with the two grains it started as, or nothing.

    A grain may slide as a whole. Where atoms of its middle have moved apart by a quarter of `nearest`, the distance of
    nearest neighbours (Å), a boundary has come through, or both have met and annihilated each other.
    """
    z = start.get_scaled_positions()[:, 2]
    for centre in (0.25, 0.75):
        core = np.abs(z - centre) < CORE
        moved = (relaxed.positions - start.positions)[core]
        if len(moved) and np.linalg.norm(moved - moved.mean(axis=0), axis=1).max() > nearest / 4:
            return "a grain has changed as it was relaxed: the boundary has moved away, or is gone"
    return ""


def _mirrored(slab: Atoms) -> Atoms:
    slab.positions[:, 2] = slab.cell[2, 2] - slab.positions[:, 2]
    return slab


def _twisted(crystal: Oriented, planes: int, angle: float, sigma: int) -> tuple[Atoms, Atoms]:
    """The slab, and it turned about z, both in the smallest cell of the coincidence-site lattice in the plane."""
    flat = np.asarray(crystal.atoms.cell)[:2, :2]
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, s], [-s, c]])  # of rows
    reach = np.arange(-2 * sigma, 2 * sigma + 1)
    steps = np.stack(np.meshgrid(reach, reach, indexing="ij"), axis=-1).reshape(-1, 2)
    steps = steps[np.abs(steps).max(axis=1) > 0]
    shared = steps @ flat @ turn.T @ np.linalg.inv(flat)  # the other grain's lattice, seen from the first one's
    vectors = steps[np.abs(shared - np.round(shared)).max(axis=1) < 1e-6] @ flat
    cell = shortest_pair(np.column_stack([vectors, np.zeros(len(vectors))]), np.array([0.0, 0.0, 1.0]))[:, :2]
    slab = crystal.slab(planes)
    other = slab.copy()
    other.positions[:, :2] = other.positions[:, :2] @ turn
    other.cell[:2, :2] = flat @ turn
    return _in_cell(slab, cell), _in_cell(other, cell)


def _in_cell(slab: Atoms, cell: FloatArray) -> Atoms:
    """The atoms of a slab that lie in a larger cell of its plane, turned so that its first vector lies along x."""
    reach = int(np.ceil(np.linalg.norm(cell, axis=1).sum() / np.linalg.norm(slab.cell[:2, :2], axis=1).min())) + 2
    many = slab.repeat((2 * reach, 2 * reach, 1))
    flat = many.positions[:, :2] - reach * np.asarray(slab.cell)[:2, :2].sum(axis=0)
    inside = flat @ np.linalg.inv(cell)
    keep = ((inside > -MARGIN) & (inside < 1 - MARGIN)).all(axis=1)
    whole = np.zeros((3, 3))
    whole[:2, :2], whole[2, 2] = cell, slab.cell[2, 2]
    positions = np.column_stack([flat, many.positions[:, 2]])[keep]
    atoms = Atoms(numbers=many.numbers[keep], positions=positions, cell=whole, pbc=True)
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    return atoms


def _merged(atoms: Atoms, closest: float) -> Atoms:
    """Pairs closer than `closest` (Å) as one atom each, nearest first, each atom in one pair."""
    i, j, distance, vector = neighbor_list("ijdD", atoms, closest)
    used: set[int] = set()
    gone: list[int] = []
    for k in np.argsort(distance.round(6), kind="stable"):
        one, other = int(i[k]), int(j[k])
        if one < other and not {one, other} & used:
            atoms.positions[one] += vector[k] / 2
            used |= {one, other}
            gone.append(other)
    del atoms[gone]
    atoms.wrap(eps=MARGIN)
    return atoms
