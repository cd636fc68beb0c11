"""Whether atoms are still the crystal they began as, from the Bragg peaks of its lattice. Owns no MD."""

from __future__ import annotations

from itertools import product

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

LOST = 0.3
"""Order below which a crystal is none any more: a hot one has some 0.6, a liquid of N atoms 1/√N."""
PEAKS = 6
SHORTEST = 1.0  # Å, spacing of the planes that make a peak
WEAKEST = 0.4  # structure factor of an atom that makes a peak


class CrystalOrder:
    """Translational order: 1 at rest, and exp(−W), W the Debye–Waller exponent, while the atoms only swing.

    Mean of |Σ exp(iG·r)| over the shortest vectors G of the crystal's reciprocal lattice, in units of the crystal at
    rest (as L. Verlet, Phys. Rev. 159, 98 (1967), told a liquid from a crystal).

    Parameters
    ----------
    cell
        The conventional cell; any cell of a crystal. All atoms count as equal.
    repeats
        How often it is repeated in the supercell whose positions are judged.
    """

    def __init__(self, cell: Atoms, repeats: tuple[int, int, int]) -> None:
        reach = [max(3, int(length / SHORTEST)) for length in cell.cell.lengths()]
        indices = np.array([g for g in product(*(range(-n, n + 1) for n in reach)) if g > (0, 0, 0)])
        factors = np.abs(np.exp(2j * np.pi * cell.get_scaled_positions() @ indices.T).mean(axis=0))
        strong = indices[factors > WEAKEST]
        lengths = np.linalg.norm(strong @ np.linalg.inv(np.asarray(cell.cell)).T, axis=1)
        first = np.argsort(lengths.round(6), kind="stable")[:PEAKS]
        self.waves = strong[first] * np.asarray(repeats)
        self.perfect = factors[factors > WEAKEST][first]

    @property
    def crystalline(self) -> bool:
        """Whether the cell had any peaks; a glass or a liquid has none, and nothing to lose."""
        return len(self.perfect) > 0

    def __call__(self, scaled: NDArray[np.float64]) -> float:
        """Of positions (N, 3) in units of the supercell's vectors."""
        peaks = np.abs(np.exp(2j * np.pi * scaled @ self.waves.T).mean(axis=0))
        return float((peaks / self.perfect).mean())

    def lost(self, scaled: NDArray[np.float64]) -> bool:
        """Whether the crystal is gone."""
        return self(scaled) < LOST
