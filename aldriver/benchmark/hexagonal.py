"""Hexagonal crystals (hcp and ω): the two lattice constants at zero stress, and the five elastic constants.

All atoms sit on sites fixed by symmetry. What is particular to cubic crystals is in ``lattice.py`` and ``elastic.py``,
which ask here for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.units import GPa
from numpy.typing import NDArray

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.measure import Value
from aldriver.benchmark.strain import STRAINS, Slope, elastic_value, fit_slope, strained, stresses
from aldriver.core.recipe_benchmark import C_OVER_A, Case
from aldriver.potentials.base import Potential

LATTICE = {"lattice_constant": "Å", "c_over_a": ""}
ELASTIC = {"c11": "GPa", "c12": "GPa", "c13": "GPa", "c33": "GPa", "c44": "GPa", "bulk_modulus": "GPa"}

STRESS_TOLERANCE = 2.0e-5  # eV/Å³, as of a cubic crystal
GUESSED = np.array([[250.0, 80.0], [160.0, 180.0]]) * GPa  # d(σ_basal, σ_zz)/d(strain of a, strain of c) of a metal
PROBE = 1.0e-3  # strain
LONGEST_STEP = 0.04  # strain
FARTHEST = 0.25  # strain


@dataclass(frozen=True, kw_only=True)
class RelaxedHexagonal:
    """Lattice constant `a` (Å) and c/a with their errors: what the stress that is left amounts to."""

    a: float
    c_over_a: float
    errors: tuple[float | None, float | None]
    converged: bool
    reason: str = ""


def relax_hexagonal(potential: Potential, case: Case, *, max_steps: int = 40) -> RelaxedHexagonal:
    """Lattice constants at which the stress in the basal plane and along c vanish, by Broyden's method.

    (C. G. Broyden, Math. Comput. 19, 577 (1965).) At the end the crystal is stretched along both, which shows whether
    it is a minimum.
    """
    start = np.log([case.a, case.a * (case.c_over_a or C_OVER_A[case.lattice])])
    x, jacobian = start.copy(), GUESSED.copy()
    stress = _stress(potential, case, x)
    for _ in range(max_steps):
        if np.abs(stress).max() <= STRESS_TOLERANCE:
            return _checked(potential, case, x, stress)
        step = np.clip(-np.linalg.solve(jacobian, stress), -LONGEST_STEP, LONGEST_STEP)
        x = x + step
        if np.abs(x - start).max() > np.log(1 + FARTHEST):
            return _found(x, reason=f"no cell without stress within {FARTHEST:.0%} of the start")
        new = _stress(potential, case, x)
        update = jacobian + np.outer(new - stress - jacobian @ step, step) / (step @ step)
        jacobian = update if _is_minimum(update) else GUESSED
        stress = new
    return _found(x, reason=f"not converged in {max_steps} steps: {np.abs(stress).max() / GPa * 1e3:.0f} MPa left")


def lattice(bench: Bench, case: Case, *, max_steps: int = 40) -> list[Value]:
    """``lattice_constant`` (Å) and ``c_over_a``."""
    with bench.measure() as cost:
        found = relax_hexagonal(bench.potential, case, max_steps=max_steps)
    return [
        Value(property=name, value=value, unit=unit, error=error, converged=found.converged, reason=found.reason,
              cost=cost)
        for (name, unit), value, error in zip(LATTICE.items(), (found.a, found.c_over_a), found.errors, strict=True)
    ]  # fmt: skip


def elastic(bench: Bench, case: Case, a: float) -> list[Value]:
    """C11, C12, C13, C33, C44, and the ``bulk_modulus`` under hydrostatic pressure, GPa.

    Strains and lines as for cubic crystals: along a, along c, and a shear between both. The atoms relax, since in hcp a
    strain of the basal plane sets the two sublattices against each other. B = [(C11 + C12) C33 − 2 C13²] /
    (C11 + C12 + 2 C33 − 4 C13), and the criteria of stability: F. Mouhat, F.-X. Coudert, Phys. Rev. B 90, 224104
    (2014).
    """
    cell = conventional_cell(case, a)
    along_a, along_c, shear = ([strained(cell, e * np.eye(6)[k]) for e in STRAINS] for k in (0, 2, 3))
    with bench.measure() as normal_cost:
        basal, basal_ok = stresses(bench, f"{case.name} strain along a", along_a)
        axial, axial_ok = stresses(bench, f"{case.name} strain along c", along_c)
    with bench.measure() as shear_cost:
        sheared, shear_ok = stresses(bench, f"{case.name} shear strain", shear)
    slopes = {
        "c11": fit_slope(STRAINS, basal[:, 0]),
        "c12": fit_slope(STRAINS, basal[:, 1]),
        "c13": fit_slope(STRAINS, (basal[:, 2] + axial[:, :2].mean(axis=1)) / 2),
        "c33": fit_slope(STRAINS, axial[:, 2]),
        "c44": fit_slope(STRAINS, sheared[:, 3]),
    }
    plane, c13, c33 = slopes["c11"].value + slopes["c12"].value, slopes["c13"].value, slopes["c33"].value
    stiffness = plane * c33 - 2 * c13**2
    slopes["bulk_modulus"] = _propagated(slopes)
    unstable = {
        "c44": ("C44", slopes["c44"].value),
        "c11": ("C66", (slopes["c11"].value - slopes["c12"].value) / 2),
        "bulk_modulus": ("(C11 + C12) C33 - 2 C13²", stiffness),
    }
    return [
        elastic_value(
            name,
            slope,
            *((shear_cost, shear_ok) if name == "c44" else (normal_cost, basal_ok and axial_ok)),
            case,
            unstable.get(name),
        )
        for name, slope in slopes.items()
    ]


def _bulk_modulus(c11: float, c12: float, c13: float, c33: float) -> float:
    return ((c11 + c12) * c33 - 2 * c13**2) / (c11 + c12 + 2 * c33 - 4 * c13)


def _propagated(slopes: dict[str, Slope]) -> Slope:
    """The bulk modulus with the errors of the constants in it."""
    names = ("c11", "c12", "c13", "c33")
    values = {name: slopes[name].value for name in names}
    middle = _bulk_modulus(**values)
    parts = [_bulk_modulus(**(values | {name: values[name] + slopes[name].error})) - middle for name in names]
    return Slope(value=middle, error=float(np.linalg.norm(parts)))


def _stress(potential: Potential, case: Case, x: NDArray[np.float64]) -> NDArray[np.float64]:
    a, c = np.exp(x)
    found = potential.evaluate([conventional_cell(case.model_copy(update={"c_over_a": float(c / a)}), float(a))])[0]
    assert found.stress is not None
    return np.array([found.stress[:2].mean(), found.stress[2]])


def _is_minimum(jacobian: NDArray[np.float64]) -> bool:
    """Whether stretching a and c, alone and together, is held back."""
    return bool(jacobian[0, 0] > 0 and jacobian[1, 1] > 0 and np.linalg.det(jacobian) > 0)


def _checked(potential: Potential, case: Case, x: NDArray[np.float64], stress: NDArray[np.float64]) -> RelaxedHexagonal:
    jacobian = np.column_stack([(_stress(potential, case, x + PROBE * e) - stress) / PROBE for e in np.eye(2)])
    if not _is_minimum(jacobian):
        return _found(x, reason="the stress vanishes where the crystal is no minimum")
    da, dc = np.abs(np.linalg.solve(jacobian, stress))
    return _found(x, errors=(float(da), float(da + dc)))


def _found(x: NDArray[np.float64], *, errors: tuple[float, float] | None = None, reason: str = "") -> RelaxedHexagonal:
    a, c = map(float, np.exp(x))
    absolute = (None, None) if errors is None else (a * errors[0], c / a * errors[1])
    return RelaxedHexagonal(a=a, c_over_a=c / a, errors=absolute, converged=not reason, reason=reason)
