"""SOAP rows of atoms (dscribe), with the set of species frozen when a detector is fitted.

Judging the rows is left to ``subspace.py``; features of the potential come from the potential itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from aldriver.core.recipe_detect import Soap

MIN_VOLUME_PER_ATOM = 1.0
"""Å³; a denser cell has collapsed, and its images within the cutoff would fill the memory."""
FULL_SPECIES = 3
"""Up to this many species ``compression: auto`` keeps each pair of species; beyond it, it crosses over."""


def unusable(atoms: Atoms) -> str:
    """Why no descriptor of this frame can be trusted; empty when there is nothing wrong."""
    if len(atoms) == 0:
        return "the frame has no atoms"
    if not np.isfinite(atoms.positions).all() or not np.isfinite(np.asarray(atoms.cell)).all():
        return "positions or cell are not finite numbers"
    if atoms.pbc.any():
        lengths = atoms.cell.lengths()[atoms.pbc]
        if not (lengths > 0).all():
            return "the cell has no length along a periodic direction"
        if atoms.pbc.all() and atoms.get_volume() / len(atoms) < MIN_VOLUME_PER_ATOM:
            return f"the cell has collapsed (less than {MIN_VOLUME_PER_ATOM:g} Å³ per atom)"
    return ""


class SoapDescriptor:
    """SOAP of single atoms, periodic where the frame is (Bartók et al., Phys. Rev. B 87, 184115 (2013)).

    Parameters
    ----------
    species
        Chemical symbols the rows resolve. Atoms of other elements have no row (see :meth:`rows`).
    settings
        ``r_cut`` and ``sigma`` in Å, ``n_max``, ``l_max``; the defaults are those of Wong & Yang (2026), section
        "Model evaluation & metrics".

    Notes
    -----
    The number of columns grows with the square of the number of species; dscribe's ``crossover`` compression (Darby et
    al., npj Comput. Mater. 8, 166 (2022)) keeps it linear.
    """

    def __init__(self, species: Iterable[str], settings: Soap) -> None:
        self.species = tuple(sorted(set(species)))
        self.settings = settings

    @cached_property
    def _soap(self) -> Any:
        from dscribe.descriptors import SOAP

        s = self.settings
        mode = s.compression
        if mode == "auto":
            mode = "off" if len(self.species) <= FULL_SPECIES else "crossover"
        try:
            return SOAP(
                species=list(self.species),
                r_cut=s.r_cut,
                n_max=s.n_max,
                l_max=s.l_max,
                sigma=s.sigma,
                periodic=True,
                compression={"mode": mode},
            )
        except ValueError as error:
            raise InputError(f"detect.soap: SOAP refuses these settings: {error}") from error

    @property
    def size(self) -> int:
        """Number of columns."""
        return int(self._soap.get_number_of_features())

    def rows(self, atoms: Atoms) -> NDArray[np.float64]:
        """One row per atom, (N, size).

        Atoms of elements outside `species` get a row of NaN, and their sites count as empty for their neighbours: the
        detector marks such atoms as new, and still says something about the rest.

        Raises
        ------
        InputError
            When the frame is not usable (non-finite positions, collapsed cell).
        """
        problem = unusable(atoms)
        if problem:
            raise InputError(f"no descriptor for {atoms.get_chemical_formula()}: {problem}")
        known = np.isin(atoms.get_chemical_symbols(), self.species)
        out = np.full((len(atoms), self.size), np.nan)
        if known.any():
            bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)[known]
            out[known] = self._soap.create(bare)
        return out
