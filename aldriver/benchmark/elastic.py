"""Elastic constants of a crystal from stress against strain. The lattice constant it starts from is given.

Cubic symmetry leaves three constants, which one normal and one shear distortion show in full.
"""

from __future__ import annotations

from aldriver.benchmark import hexagonal
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.measure import Value
from aldriver.benchmark.strain import STRAINS, UNSTABLE, elastic_value, fit_slope, strained, stresses
from aldriver.core.recipe_benchmark import Case

VERSION = 1
PROPERTIES = {"c11": "GPa", "c12": "GPa", "c44": "GPa", "c_prime": "GPa", "bulk_modulus": "GPa"}
SHOWN = {"c44": "C44", "c_prime": "C'", "bulk_modulus": "B"}
"""Constants that are positive in a stable cubic crystal."""

__all__ = ["PROPERTIES", "UNSTABLE", "VERSION", "compute", "units"]


def units(case: Case, options: object = None) -> dict[str, str]:
    """Names and units of the constants of a case."""
    return hexagonal.ELASTIC if case.hexagonal else PROPERTIES


def compute(bench: Bench, case: Case, a: float) -> list[Value]:
    """C11, C12, C44, C' = (C11 − C12)/2 and ``bulk_modulus`` = (C11 + 2 C12)/3, GPa.

    Strains of ±0.5 and ±1 % and a line through each stress component, as M. de Jong et al., Sci. Data 2, 150009 (2015)
    and N. K. Mohandas et al., J. Phase Equilib. Diffus. (2026), doi:10.1007/s11669-025-01225-z.
    Hexagonal crystals have five constants: ``hexagonal.py``.
    """
    if case.hexagonal:
        return hexagonal.elastic(bench, case, a)
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
        elastic_value(
            name,
            slope,
            *((shear_cost, shear_ok) if name == "c44" else (normal_cost, normal_ok)),
            case,
            (SHOWN[name], slope.value) if name in SHOWN else None,
        )
        for name, slope in slopes.items()
    ]
