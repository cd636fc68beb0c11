"""Radial distribution functions of all pairs and of pairs of elements, and their first peak."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.geometry.rdf import get_rdf
from numpy.typing import NDArray

ALL = "all"
"""Pairs of whatever elements."""
BIN = 0.05  # Å
AROUND = 3  # bins on each side of a peak, for its parabola


def pairs_of(elements: Sequence[str]) -> list[str]:
    """``Cl-Cl``, ``Cl-Na``, ``Na-Na``; none of a single element, where all pairs are the same."""
    distinct = sorted(set(elements))
    return [f"{a}-{b}" for a, b in combinations_with_replacement(distinct, 2)] if len(distinct) > 1 else []


def radial_distributions(frames: Sequence[Atoms], bins: int) -> dict[str, NDArray[np.float64]]:
    """g(r) of `bins` of :data:`BIN`: ``all``, and of each pair of elements where there are several.

    ASE's, but for N atoms of a kind, of which each has N − 1 others: 1 where atoms lie at random. A pair of elements
    without a pair of atoms is left at 0.

    Raises
    ------
    ase.geometry.rdf.CellTooSmall
        When the bins reach beyond half the cell of a frame.
    """
    symbols = frames[0].get_chemical_symbols()
    found = {ALL: _mean(frames, bins, None, len(symbols))}
    for pair in pairs_of(symbols):
        a, b = pair.split("-")
        found[pair] = _mean(frames, bins, (a, b), symbols.count(a) if a == b else None)
    return found


def _mean(
    frames: Sequence[Atoms], bins: int, elements: tuple[str, str] | None, alike: int | None
) -> NDArray[np.float64]:
    """g(r) of pairs of so many atoms of a kind, or of unlike ones."""
    if alike == 1:
        return np.zeros(bins)
    g = get_rdf(frames, bins * BIN, bins, elements=elements, no_dists=True)
    return np.asarray(g) * (alike / (alike - 1) if alike else 1.0)


def first_peak(r: NDArray[np.float64], g: NDArray[np.float64]) -> tuple[float, float]:
    """Position (Å) and height of the highest peak, from a parabola through the points around it."""
    top = slice(max(int(g.argmax()) - AROUND, 0), int(g.argmax()) + AROUND + 1)
    a, b, c = np.polyfit(r[top], g[top], 2)
    return (float(-b / (2 * a)), float(c - b**2 / (4 * a))) if a < 0 else (float(r[g.argmax()]), float(g.max()))
