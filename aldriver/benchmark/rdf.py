"""Radial distribution functions of all pairs and of pairs of elements, and their first peak."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

ALL = "all"
"""Pairs of whatever elements."""
BIN = 0.05  # Å
AROUND = 3  # bins on each side of a peak, for its parabola


def pairs_of(elements: Sequence[str]) -> list[str]:
    """``Cl-Cl``, ``Cl-Na``, ``Na-Na``; none of a single element, where all pairs are the same."""
    distinct = sorted(set(elements))
    return [f"{a}-{b}" for a, b in combinations_with_replacement(distinct, 2)] if len(distinct) > 1 else []


def radial_distributions(
    positions: NDArray[np.float64], cells: NDArray[np.float64], edges: NDArray[np.float64], symbols: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """g(r) between `edges` (Å) up to half the cell: ``all``, and of each pair of elements where there are several.

    1 where atoms lie at random; a pair of elements without a pair of atoms is left at 0.

    Parameters
    ----------
    positions
        (n, N, 3), in units of the cells' vectors.
    cells
        (n, 3, 3), Å.
    symbols
        Of the N atoms.
    """
    first, second = np.triu_indices(len(symbols), 1)
    pairs = pairs_of(symbols)
    names = np.array(symbols)
    kind = np.zeros(len(first), dtype=int)
    for k, pair in enumerate(pairs):
        a, b = pair.split("-")
        kind[((names[first] == a) & (names[second] == b)) | ((names[first] == b) & (names[second] == a))] = k
    kinds = max(len(pairs), 1)
    found = np.zeros((kinds, len(edges) - 1))
    for scaled, cell in zip(positions, cells, strict=True):
        apart = scaled[second] - scaled[first]
        apart -= np.rint(apart)
        bins = np.searchsorted(edges, np.linalg.norm(apart @ cell, axis=1), side="right") - 1
        inside = (bins >= 0) & (bins < len(edges) - 1)
        counts = np.bincount(kind[inside] * (len(edges) - 1) + bins[inside], minlength=found.size)
        found += counts.reshape(found.shape) * abs(np.linalg.det(cell))
    found /= len(positions) * 4 / 3 * np.pi * np.diff(edges**3)
    each = {pair: found[k] / max(int((kind == k).sum()), 1) for k, pair in enumerate(pairs)}
    return {ALL: found.sum(axis=0) / len(first)} | each


def first_peak(r: NDArray[np.float64], g: NDArray[np.float64]) -> tuple[float, float]:
    """Position (Å) and height of the highest peak, from a parabola through the points around it."""
    top = slice(max(int(g.argmax()) - AROUND, 0), int(g.argmax()) + AROUND + 1)
    a, b, c = np.polyfit(r[top], g[top], 2)
    return (float(-b / (2 * a)), float(c - b**2 / (4 * a))) if a < 0 else (float(r[g.argmax()]), float(g.max()))
