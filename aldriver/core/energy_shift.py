"""What two ways of counting energies differ by: an energy per atom of each element.

When to apply it is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray


def shift_of(frames: Sequence[Atoms], difference: NDArray[np.float64]) -> dict[str, float]:
    """Energy per atom of each element (eV) that explains a difference (eV/atom by frame) best, in least squares."""
    elements = sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})
    counts = np.array([len(atoms) for atoms in frames], dtype=float)
    fractions = np.array([_counts(atoms, elements) for atoms in frames]) / counts[:, None]
    shift = np.linalg.lstsq(fractions, difference, rcond=None)[0]
    # rounded: the last bits may depend on the number of threads, and a training must be repeatable
    return {element: round(float(value), 6) for element, value in zip(elements, shift, strict=True)}


def _counts(atoms: Atoms, elements: Sequence[str]) -> list[float]:
    symbols = atoms.get_chemical_symbols()
    return [float(symbols.count(element)) for element in elements]
