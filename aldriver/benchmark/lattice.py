"""Lattice constant of a crystal at zero pressure. Its atoms sit on sites fixed by symmetry and do not relax.

The two lattice constants of a hexagonal crystal are relaxed in ``hexagonal.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.units import GPa

from aldriver.benchmark import hexagonal
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.measure import Value
from aldriver.core.recipe_benchmark import Case
from aldriver.potentials.base import Potential

VERSION = 1
PROPERTIES = {"lattice_constant": "Å"}

STRESS_TOLERANCE = 2.0e-5  # eV/Å³ (3 MPa): 1e-5 Å in a for a metal, and above the noise of single precision
GUESSED_B = 150.0 * GPa
LONGEST_STEP = 0.04  # strain
FIRST_STEP = 1.0e-3  # strain
FARTHEST = 0.25  # strain: beyond it the crystal has been torn apart, where the stress vanishes too


@dataclass(frozen=True, kw_only=True)
class RelaxedLattice:
    """Lattice constant `a` (Å) with the mean normal `stress` left (eV/Å³) and the `error` of a (Å) it amounts to."""

    a: float
    stress: float
    error: float | None
    steps: int
    converged: bool
    reason: str = ""


def relax_lattice(potential: Potential, case: Case, *, max_steps: int = 40) -> RelaxedLattice:
    """Lattice constant at which the mean normal stress vanishes, by the secant method.

    One unknown needs no general optimiser: the secant takes 4 to 6 evaluations of the conventional cell. The first
    slope is that of a crystal with a bulk modulus of 150 GPa, dσ/da = 3B/a.
    """
    a, previous, slope = case.a, None, 3 * GUESSED_B / case.a
    for step in range(1, max_steps + 1):
        prediction = potential.evaluate([conventional_cell(case, a)])[0]
        assert prediction.stress is not None
        stress = float(np.mean(prediction.stress[:3]))
        measured = None if previous is None else (stress - previous[1]) / (a - previous[0])
        slope = measured if measured is not None and measured > 0 else 3 * GUESSED_B / a
        if abs(stress) <= STRESS_TOLERANCE and measured is not None and measured > 0:
            return RelaxedLattice(a=a, stress=stress, error=abs(stress / slope), steps=step, converged=True)
        previous = (a, stress)
        if abs(stress) <= STRESS_TOLERANCE:
            a *= 1 + FIRST_STEP  # a start at zero stress has yet to show that it is a minimum
        else:
            a += float(np.clip(-stress / slope, -LONGEST_STEP * a, LONGEST_STEP * a))
        if abs(a / case.a - 1) > FARTHEST:
            reason = f"no zero-pressure cell within {FARTHEST:.0%} of the start, {case.a:.3f} Å"
            return RelaxedLattice(a=a, stress=stress, error=None, steps=step, converged=False, reason=reason)
    reason = f"not converged in {max_steps} steps: {stress / GPa * 1e3:.0f} MPa left"
    return RelaxedLattice(a=a, stress=stress, error=None, steps=max_steps, converged=False, reason=reason)


def units(case: Case, options: object = None) -> dict[str, str]:
    """Names and units of the lattice constants of a case."""
    return hexagonal.LATTICE if case.hexagonal else PROPERTIES


def compute(bench: Bench, case: Case, *, max_steps: int = 40) -> list[Value]:
    """``lattice_constant`` (Å), and ``c_over_a`` where it is not fixed by symmetry."""
    if case.hexagonal:
        return hexagonal.lattice(bench, case, max_steps=max_steps)
    with bench.measure() as cost:
        found = relax_lattice(bench.potential, case, max_steps=max_steps)
    return [
        Value(property="lattice_constant", value=found.a, unit="Å", error=found.error, converged=found.converged,
              reason=found.reason, cost=cost)
    ]  # fmt: skip
