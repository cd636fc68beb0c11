"""Surface energies of low-index planes, on slabs with two equal faces at the potential's own lattice constant.

γ = (E(slab) − n e(bulk))/2A: N. K. Mohandas et al., doi:10.1007/s11669-025-01225-z, Eq. 2; positions are relaxed in a
fixed cell with 10 Å of vacuum. A slab has the smallest cell in its plane, so the surface cannot reconstruct; faces of
diamond are cut where the fewest bonds break. The error is what the last step of the relaxation gained.
"""

from __future__ import annotations

from ase import Atoms
from ase.units import J, m

from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.measure import Value
from aldriver.benchmark.oriented import Plane, oriented, plane_area
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_binding import Surface, miller

VERSION = 1
UNIT = "J/m^2"

FORCE_TOLERANCE = 1.0e-2  # eV/Å
MAX_STEPS = 200


def units(_: Case, options: Surface | None) -> dict[str, str]:
    """Names of the values."""
    return {_name(plane): UNIT for plane in (options or Surface()).planes}


def slab(case: Case, a: float, plane: Plane, options: Surface) -> Atoms:
    """The slab of a plane, unrelaxed: its faces look along z."""
    crystal = oriented(case, a, plane)
    atoms = crystal.slab(crystal.planes(options.thickness_A))
    atoms.center(vacuum=options.vacuum_A / 2, axis=2)
    return atoms


def compute(bench: Bench, case: Case, a: float, options: Surface) -> list[Value]:
    """``surface_energy(110)`` (J/m²) of each plane."""
    cell = conventional_cell(case, a)
    slabs = [slab(case, a, plane, options) for plane in options.planes]
    jobs = [
        Job(
            atoms=atoms,
            slot=f"{case.name} surface {miller(plane)} of {len(atoms)} atoms",
            fmax=FORCE_TOLERANCE,
            max_steps=MAX_STEPS,
        )
        for plane, atoms in zip(options.planes, slabs, strict=True)
    ]
    with bench.measure() as cost:
        bulk = bench.energy(cell, f"{case.name} cell") / len(cell)
        found = bench.attempt_all(jobs)
    values = []
    for plane, relaxed in zip(options.planes, found, strict=True):
        if isinstance(relaxed, str):
            values.append(Value.missing(_name(plane), UNIT, relaxed, cost))
            continue
        per_area = m**2 / J / (2 * plane_area(relaxed.atoms))
        values.append(
            Value(
                property=_name(plane),
                value=(relaxed.energy - len(relaxed.atoms) * bulk) * per_area,
                unit=UNIT,
                error=relaxed.last_gain * per_area,
                converged=relaxed.converged,
                reason=relaxed.shortfall,
                cost=cost,
            )
        )
    return values


def _name(plane: Plane) -> str:
    return f"surface_energy({miller(plane)})"
