"""Small strains of a crystal: strained cells, their stresses with the atoms relaxed, and straight lines through them.

Which strains give which constants is the business of ``elastic.py`` and ``hexagonal.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.units import GPa
from numpy.typing import ArrayLike, NDArray

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.measure import Cost, Value
from aldriver.core.recipe_benchmark import Case

STRAINS = np.array([-0.01, -0.005, 0.005, 0.01])
FORCE_TOLERANCE = 1.0e-3  # eV/Å, of the internal relaxation
MAX_STEPS = 100
UNSTABLE = "mechanically unstable"
"""What the reason of a constant says when the crystal is no minimum."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Slope of a straight line through points, its standard error, in the unit of y over that of x."""

    value: float
    error: float


def fit_slope(x: ArrayLike, y: ArrayLike) -> Slope:
    """Least-squares line with an intercept; the error holds both noise and curvature."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    value, offset = np.polyfit(x, y, 1)
    left = y - value * x - offset
    variance = np.sum(left**2) / max(len(x) - 2, 1)
    return Slope(value=float(value), error=float(np.sqrt(variance / np.sum((x - x.mean()) ** 2))))


def strained(cell: Atoms, voigt: ArrayLike) -> Atoms:
    """Copy under a small homogeneous strain (6,) xx, yy, zz, yz, xz, xy, shear entries being engineering strain 2ε."""
    xx, yy, zz, yz, xz, xy = np.asarray(voigt, dtype=float)
    strain = np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])
    deformed = cell.copy()
    deformed.set_cell(np.asarray(cell.cell) @ (np.eye(3) + strain), scale_atoms=True)
    return deformed


def stresses(bench: Bench, what: str, cells: list[Atoms]) -> tuple[NDArray[np.float64], bool]:
    """Stress (n, 6) of each cell with its atoms relaxed, GPa, and whether all relaxations of `what` converged.

    Under strain the atoms of bcc and fcc stay on centres of inversion, where no force acts; in diamond a shear sets
    the two sublattices against each other, and they relax (L. Kleinman, Phys. Rev. 128, 2614 (1962)).
    """
    found = bench.potential.evaluate(cells)
    rows, converged = [], True
    for k, (cell, prediction) in enumerate(zip(cells, found, strict=True)):
        if np.linalg.norm(prediction.forces, axis=1).max() > FORCE_TOLERANCE:
            relaxed = bench.relax(cell, f"{what} {k}", fmax=FORCE_TOLERANCE, max_steps=MAX_STEPS)
            converged = converged and relaxed.converged
            prediction = bench.potential.evaluate([relaxed.atoms])[0]
        assert prediction.stress is not None
        rows.append(prediction.stress / GPa)
    return np.array(rows), converged


def elastic_value(
    name: str, slope: Slope, cost: Cost, converged: bool, case: Case, positive: tuple[str, float] | None
) -> Value:
    """An elastic constant, GPa; its reason says when `positive`, a combination with its value, is not."""
    reason = "" if converged else f"the atoms of a strained cell did not relax within {MAX_STEPS} steps"
    if converged and positive is not None and positive[1] <= 0:
        reason = f"with this potential {case.name} is {UNSTABLE}: {positive[0]} = {positive[1]:.0f} GPa"
    return Value(
        property=name,
        value=slope.value,
        unit="GPa",
        error=slope.error,
        converged=converged,
        reason=reason,
        cost=cost,
    )
