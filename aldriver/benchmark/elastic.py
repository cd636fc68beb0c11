"""Elastic constants of a cubic crystal from stress against strain. The lattice constant it starts from is given.

Cubic symmetry leaves three constants, which one normal and one shear distortion show in full.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.units import GPa
from numpy.typing import ArrayLike, NDArray

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.measure import Cost, Value
from aldriver.core.recipe_benchmark import Case

VERSION = 1
PROPERTIES = {"c11": "GPa", "c12": "GPa", "c44": "GPa", "c_prime": "GPa", "bulk_modulus": "GPa"}

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


def compute(bench: Bench, case: Case, a: float) -> list[Value]:
    """C11, C12, C44, C' = (C11 − C12)/2 and ``bulk_modulus`` = (C11 + 2 C12)/3, GPa.

    Strains of ±0.5 and ±1 % and a line through each stress component, as M. de Jong et al., Sci. Data 2, 150009 (2015)
    and N. K. Mohandas et al., J. Phase Equilib. Diffus. (2026), doi:10.1007/s11669-025-01225-z.
    """
    cell = conventional_cell(case, a)
    stretched = [strained(cell, [e, 0, 0, 0, 0, 0]) for e in STRAINS]
    sheared = [strained(cell, [0, 0, 0, e, 0, 0]) for e in STRAINS]
    with bench.measure() as normal_cost:
        normal, normal_ok = stresses(bench, f"{case.name} normal strain", stretched)
    with bench.measure() as shear_cost:
        shear, shear_ok = stresses(bench, f"{case.name} shear strain", sheared)
    along, across = normal[:, 0], normal[:, 1:3].mean(axis=1)
    slopes = {
        "c11": fit_slope(STRAINS, along),
        "c12": fit_slope(STRAINS, across),
        "c44": fit_slope(STRAINS, shear[:, 3]),
        "c_prime": fit_slope(STRAINS, (along - across) / 2),
        "bulk_modulus": fit_slope(STRAINS, (along + 2 * across) / 3),
    }
    return [
        _value(name, slope, *((shear_cost, shear_ok) if name == "c44" else (normal_cost, normal_ok)), case)
        for name, slope in slopes.items()
    ]


def _value(name: str, slope: Slope, cost: Cost, converged: bool, case: Case) -> Value:
    reason = "" if converged else f"the atoms of a strained cell did not relax within {MAX_STEPS} steps"
    if converged and name in ("c44", "c_prime", "bulk_modulus") and slope.value <= 0:
        shown = {"c44": "C44", "c_prime": "C'", "bulk_modulus": "B"}[name]
        reason = f"with this potential {case.name} is {UNSTABLE}: {shown} = {slope.value:.0f} GPa"
    return Value(
        property=name,
        value=slope.value,
        unit="GPa",
        error=slope.error,
        converged=converged,
        reason=reason,
        cost=cost,
    )
