"""A cell that speaks to an ML-IAP object as LAMMPS does, to try one where LAMMPS was built without it.

Plays ``pair_style mliap unified`` for one periodic cell on one rank, without ghost atoms: a pair's partner is the atom
itself, its vector the one to the image. LAMMPS' own part (lists, ghosts, communication) is not tried by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list
from numpy.typing import ArrayLike

from aldriver.core.units import matrix_to_voigt


class MLIAPCell:
    """What LAMMPS hands to ``compute_forces``; names are LAMMPS'.

    Parameters
    ----------
    cutoff
        Å.
    elements
        Symbols in the order the object knows them.
    """

    def __init__(self, atoms: Atoms, cutoff: float, elements: Sequence[str]) -> None:
        self.volume = atoms.get_volume()
        self.nlocal = self.ntotal = self.nlistatoms = len(atoms)
        self.elems = np.array([list(elements).index(symbol) for symbol in atoms.get_chemical_symbols()], dtype=np.int32)
        self.pair_i, self.pair_j, self.rij = neighbour_list("ijD", atoms, cutoff)
        self.npairs = len(self.rij)
        self.eatoms = np.zeros(len(atoms))
        self.energy = 0.0
        self.forces = np.zeros((len(atoms), 3))
        self.virial = np.zeros((3, 3))

    def forward_exchange(self, features: Any, out: Any, _length: int) -> None:
        """Copy of the atoms' rows to the ghosts: there are none."""
        out.copy_(features)

    reverse_exchange = forward_exchange

    def update_pair_forces(self, forces: ArrayLike) -> None:
        """Forces of pairs, (npairs, 3), eV/Å: added to the first atom, taken from the second."""
        pairs = np.asarray(forces, dtype=float)
        np.add.at(self.forces, self.pair_i, pairs)
        np.add.at(self.forces, self.pair_j, -pairs)
        self.virial -= self.rij.T @ pairs

    update_pair_forces_gpu = update_pair_forces

    def evaluate(self, unified: Any) -> dict[str, Any]:
        """Energy (eV), forces (eV/Å) and stress (Voigt, eV/Å³) by an ML-IAP object."""
        unified.compute_forces(self)
        return {
            "energy": float(self.energy),
            "forces": self.forces,
            "stress": matrix_to_voigt(-self.virial / self.volume),
        }
