"""Crystals cut along a plane: perfect cells of a few layers, for faults within a plane and openings across one.

Each cell has the smallest repeat unit of the plane and so one atom a layer; its third vector leads to the next repeat
of the crystal, so that it can be opened or sheared, where the upright slabs of ``oriented.py`` cannot. What is done to
it, and what is read from it, is the property modules' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.benchmark.oriented import PRIMITIVE, shortest_pair
from aldriver.core.recipe_benchmark import Case

_REACH = 4
"""Lattice vectors are sought among combinations of the primitive ones up to this: enough for planes up to (112)."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A plane of a cubic crystal of one atom a lattice point, with a direction in it.

    Attributes
    ----------
    name
        As its family is called: ``110``.
    lattice
        ``bcc`` or ``fcc``.
    normal, along
        Miller indices of both; `along` lies in the plane, and is x in the cells, the normal z.
    """

    name: str
    lattice: str
    normal: tuple[int, int, int]
    along: tuple[int, int, int]

    def vectors(self, a: float) -> NDArray[np.float64]:
        """Two shortest lattice vectors in the plane, and the shortest one to the next layer: rows, Å, x along `along`.

        The first two enclose the smallest area of the plane, the volume of all three is that of an atom.
        """
        z = np.array(self.normal) / np.linalg.norm(self.normal)
        x = np.array(self.along) / np.linalg.norm(self.along)
        turned = np.array(list(product(range(-_REACH, _REACH + 1), repeat=3))) @ PRIMITIVE[self.lattice]
        turned = turned @ np.array([x, np.cross(z, x), z]).T
        turned = turned[np.lexsort(np.round(turned, 9).T[::-1])]  # ties are broken the same way everywhere
        turned = turned[np.argsort(np.round(np.linalg.norm(turned, axis=1), 9), kind="stable")]
        inside = turned[(np.abs(turned[:, 2]) < 1e-9) & (np.linalg.norm(turned, axis=1) > 1e-9)]
        above = turned[turned[:, 2] > 1e-9]
        third = above[np.abs(above[:, 2] - above[:, 2].min()) < 1e-9][0]
        return a * np.array([*shortest_pair(inside, np.array([0.0, 0.0, 1.0])), third])

    def spacing(self, a: float) -> float:
        """Distance of neighbouring layers, Å."""
        return float(self.vectors(a)[2, 2])

    def area(self, a: float) -> float:
        """Area of the repeat unit, Å²."""
        first, second, _ = self.vectors(a)
        return float(np.linalg.norm(np.cross(first, second)))


def layered(case: Case, a: float, plane: Plane, layers: int) -> Atoms:
    """The perfect crystal as `layers` layers of a plane in one periodic cell, the lowest at z = 0."""
    first, second, third = plane.vectors(a)
    positions = np.arange(layers)[:, None] * third
    return Atoms(symbols=[case.element] * layers, positions=positions, cell=[first, second, layers * third], pbc=True)


def layers_of(plane: Plane, a: float, thickness: float) -> int:
    """Number of layers that are at least `thickness` (Å) high at a lattice constant `a`."""
    return max(int(np.ceil(thickness / plane.spacing(a) - 1e-9)), 2)
