"""The k-point grid of a cell: frozen, by spacing, or frozen and checked against a spacing."""

from __future__ import annotations

import numpy as np
from ase.cell import Cell
from numpy.typing import ArrayLike

Grid = tuple[int, int, int]
_ROUNDING = 1e-6  # a cell on the edge must not jump to the next grid by the noise of its file


def grid_by_spacing(cell: ArrayLike, spacing: float) -> Grid:
    """Fewest points with neighbours at most `spacing` apart (1/Å, reciprocal vectors with the factor 2π)."""
    lengths = 2 * np.pi * np.linalg.norm(np.asarray(Cell(np.asarray(cell)).reciprocal()), axis=1)
    counts = np.ceil(lengths / spacing - _ROUNDING).astype(int)
    n1, n2, n3 = (max(1, int(n)) for n in counts)
    return n1, n2, n3


def grid_of(cell: ArrayLike, frozen: Grid | None, spacing: float | None) -> Grid:
    """Grid of a cell: `frozen` where it is given, else by `spacing`, else Γ."""
    if frozen is not None:
        return frozen
    return (1, 1, 1) if spacing is None else grid_by_spacing(cell, spacing)


def grid_problem(cell: ArrayLike, frozen: Grid | None, spacing: float | None) -> str:
    """Why the frozen grid does not do for this cell; empty when it does, or when nothing is asked of it."""
    if frozen is None or spacing is None:
        return ""
    needed = grid_by_spacing(cell, spacing)
    if all(have >= need for have, need in zip(frozen, needed, strict=True)):
        return ""
    return (
        f"the frozen k-grid {text(frozen)} samples this cell too thinly: kspacing_per_A {spacing:g} 1/Å needs "
        f"{text(needed)}; label cells of this size with a denser grid"
    )


def text(grid: Grid) -> str:
    """For example ``2x2x4``."""
    return "x".join(str(n) for n in grid)


def grid_text(frozen: Grid | None, spacing: float | None) -> str:
    """The rule in a few words, for the name of a method."""
    if frozen is None and spacing is not None:
        return f"k-spacing {spacing:g} 1/Å"
    return f"k-grid {text(frozen or (1, 1, 1))}"
