"""Energies of symmetric tilt and twist grain boundaries, and of cells with boundaries from files.

γ = (E(cell) − n e(bulk))/(k A) with k boundaries of area A = |a × b| in a cell at the potential's own lattice constant:
N. K. Mohandas et al., doi:10.1007/s11669-025-01225-z, Eq. 3 (k = 2). Cells from files are scaled to that lattice
constant and their positions relaxed in a fixed cell, as there.

Boundaries that are built have two more unknowns. The grains slide on each other as they relax, from several starts: the
mirror position, and a grid of shifts off every symmetry; a start in which a grain itself changes does not count. The
lowest is relaxed at three widths, and at the minimum of the parabola through them. Its value is that of the last
relaxation; its error is how far the parabola missed it.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.units import J, m

from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.bicrystal import Grains, bicrystal, changed, grains, lengthened
from aldriver.benchmark.cases import conventional_cell, periodic_cell
from aldriver.benchmark.measure import Value
from aldriver.benchmark.oriented import plane_area
from aldriver.benchmark.relax import Relaxation
from aldriver.core.errors import AldriverError, StoreError
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_binding import GrainBoundary, KnownBoundary, parse_boundary

VERSION = 1
UNIT = "J/m^2"

FORCE_TOLERANCE = 1.0e-2  # eV/Å
MAX_STEPS = 300
EXCESS = 0.2
"""Excess volume per area (Å) that all starts have: about that of general boundaries in metals."""
WIDER = 0.2
"""By how much the best start is made narrower and wider, Å."""
FARTHEST = 0.6
"""A minimum farther from the starts' width (Å) is not trusted: the parabola was fitted elsewhere."""


def units(_: Case, options: GrainBoundary | None) -> dict[str, str]:
    """Names of the values."""
    options = options or GrainBoundary()
    return {_name(name): UNIT for name in [*options.boundaries, *(s.name for s in options.structures)]}


def content(_: Case, options: GrainBoundary) -> str:
    """Digest of the files with cells: one that has changed holds other boundaries."""
    paths = [Path(known.file).expanduser() for known in options.structures]
    return "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file())


def compute(bench: Bench, case: Case, a: float, options: GrainBoundary) -> list[Value]:
    """``grain_boundary_energy(S5 tilt (210)[001])`` (J/m²) of each boundary."""
    cell = conventional_cell(case, a)
    parts = {name: grains(case, a, parse_boundary(name), options.thickness_A) for name in options.boundaries}
    with bench.measure() as cost:
        bulk = bench.energy(cell, f"{case.name} cell") / len(cell)
        starts = {name: _starts(p, options.shifts) for name, p in parts.items()}
        jobs = [_job(case, name, k, atoms) for name, cells in starts.items() for k, atoms in enumerate(cells)]
        found = iter(bench.attempt_all(jobs))  # of all boundaries at once, so that workers share them
        relaxed = {name: [next(found) for _ in cells] for name, cells in starts.items()}
        kept = {name: _unchanged(parts[name], starts[name], relaxed[name]) for name in parts}
        values = [_built(bench, case, name, parts[name], kept[name], bulk) for name in parts]
        values += [_from_file(bench, case, a, known, bulk) for known in options.structures]
    return [replace(value, cost=cost) for value in values]


def boundary_energy(relaxed: Relaxation, bulk: float, boundaries: int = 2) -> float:
    """γ (J/m²), given the energy per atom of the perfect crystal (eV)."""
    excess = relaxed.energy - len(relaxed.atoms) * bulk
    return float(excess / (boundaries * plane_area(relaxed.atoms)) * m**2 / J)


def _starts(parts: Grains, shifts: int) -> list[Atoms]:
    """The mirror position, and a grid a third of a step away from it."""
    grid = [((i + 1 / 3) / shifts, (j + 1 / 3) / shifts) for i, j in product(range(shifts), repeat=2)]
    return [bicrystal(parts, shift, EXCESS) for shift in [(0.0, 0.0), *grid]]


def _job(case: Case, name: str, k: int | str, atoms: Atoms) -> Job:
    slot = f"{case.name} boundary {name} of {len(atoms)} atoms, {k}"
    return Job(atoms=atoms, slot=slot, fmax=FORCE_TOLERANCE, max_steps=MAX_STEPS)


def _unchanged(parts: Grains, starts: list[Atoms], relaxed: list[Relaxation | str]) -> list[Relaxation | str]:
    """The relaxations, with a reason in place of those in which the grains are no longer what they were."""
    return [
        r if isinstance(r, str) else changed(start, r.atoms, parts.nearest) or r
        for start, r in zip(starts, relaxed, strict=True)
    ]


def _built(bench: Bench, case: Case, name: str, parts: Grains, relaxed: list[Relaxation | str], bulk: float) -> Value:
    made = [r for r in relaxed if not isinstance(r, str)]
    if not made:
        return Value.missing(_name(name), UNIT, str(relaxed[0]))
    best = min(made, key=lambda r: boundary_energy(r, bulk))
    steps = [-WIDER, 0.0, WIDER]
    try:
        others = bench.relax_all([_job(case, name, f"{s:+.1f} Å", lengthened(best.atoms, s)) for s in (-WIDER, WIDER)])
        curve = [boundary_energy(r, bulk) for r in (others[0], best, others[1])]
        bend, slope, _ = np.polyfit(steps, curve, 2)
        if bend < 0:
            return Value.missing(_name(name), UNIT, "the energy has no minimum as the grains are moved apart")
        width = float(np.clip(-slope / (2 * bend), -FARTHEST, FARTHEST)) if bend else 0.0
        final = lengthened(best.atoms, width)
        (last,) = bench.relax_all([_job(case, name, "best width", final)])
    except StoreError:
        raise
    except AldriverError as error:
        return Value.missing(_name(name), UNIT, str(error))
    far = f"its excess volume is beyond {FARTHEST:.1f} Å from the {EXCESS:.1f} Å it started with"
    reason = last.shortfall or changed(final, last.atoms, parts.nearest) or (far if abs(width) >= FARTHEST else "")
    value = boundary_energy(last, bulk)
    return Value(
        property=_name(name),
        value=value,
        unit=UNIT,
        error=abs(value - float(np.polyval([bend, slope, curve[1]], width))),
        converged=not reason,
        reason=reason,
    )


def _from_file(bench: Bench, case: Case, a: float, known: KnownBoundary, bulk: float) -> Value:
    try:
        atoms = periodic_cell(known.file, known.frame)
        atoms.set_cell(atoms.cell * (a / known.a), scale_atoms=True)
        relaxed = bench.relax_all([_job(case, known.name, "from a file", atoms)])[0]
    except StoreError:
        raise
    except AldriverError as error:
        return Value.missing(_name(known.name), UNIT, str(error))
    reason = relaxed.shortfall
    return Value(
        property=_name(known.name),
        value=boundary_energy(relaxed, bulk, known.boundaries),
        unit=UNIT,
        error=relaxed.last_gain / (known.boundaries * plane_area(atoms)) * m**2 / J,
        converged=not reason,
        reason=reason,
    )


def _name(name: str) -> str:
    return f"grain_boundary_energy({name})"
