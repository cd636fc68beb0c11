"""Peierls barriers of bcc metals: what it takes to move a straight dislocation to the next valley of the crystal.

Protocol: a cylinder around a ½⟨111⟩ screw or a ⟨100⟩{010} edge dislocation, displaced as anisotropic elasticity says
with the potential's own lattice and elastic constants (matscipy; P. Grigorev et al., J. Open Source Softw. 9, 5668
(2024)), one repeat of the line long. The outer 10 Å are held half-way between the two positions, the inner atoms
relax, and a band (``band.py``) leads from one valley to the next. X. Liu et al., arXiv:2506.07401, section 3.3, have 11
images, and 1400 atoms for the screw and 2200 for the edge, a radius of 45 to 50 Å. Both lines repeat after one Burgers
vector b; the barrier is per b.

Both ends are the same but for a translation. What they differ by is taken out in proportion to the way; it is the
error, with what the band's last step changed and how far the path rises between images. The boundary does not follow
the dislocation, which adds to the barrier of a small cylinder: ``docs/benchmark_extended.md`` has the convergence.
"""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from aldriver.benchmark import elastic
from aldriver.benchmark.band import Band, climb
from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.measure import Value
from aldriver.benchmark.relax import Relaxation
from aldriver.core.errors import AldriverError
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_extended import Dislocation

VERSION = 1
UNIT = "eV/b"
FORCE_TOLERANCE = 5.0e-3  # eV/Å, of the ends
BAND_TOLERANCE = 0.025  # eV/Å
MAX_STEPS = 500
HELD = 10.0  # Å
MOVED = 0.1  # Å: where no atom differs by more, both ends are the same
UNEQUAL = 0.1  # of the barrier, by which the ends may differ
UNEQUAL_EV = 5.0e-3  # or this, whichever is more
KINDS = {"screw": "BCCScrew111Dislocation", "edge": "BCCEdge100Dislocation"}
"""Classes of :mod:`matscipy.dislocation`."""


def units(case: Case, options: Dislocation) -> dict[str, str]:
    """Names and units of the values."""
    return {f"peierls_barrier({kind})": UNIT for kind in options.kinds}


def compute(bench: Bench, case: Case, a: float, options: Dislocation) -> list[Value]:
    """``peierls_barrier`` of each kind, eV per Burgers vector of line.

    Raises
    ------
    AldriverError
        For a lattice other than bcc.
    """
    if case.lattice != "bcc":
        raise AldriverError(f"dislocations are measured in bcc metals; {case.name} is {case.lattice}")
    constants = {v.property: v.value for v in elastic.compute(bench, case, a)}
    return [_barrier(bench, case, a, kind, constants, options) for kind in options.kinds]


def cylinders(
    case: Case, a: float, kind: str, constants: dict[str, float | None], radius: float
) -> tuple[Atoms, Atoms]:
    """The dislocation in a valley and in the next one, the outer atoms held at the mean of both; line along z.

    Parameters
    ----------
    constants
        ``c11``, ``c12`` and ``c44``, GPa.
    radius
        Å at the lattice constant the case starts from: the number of atoms is the same for every potential.
    """
    from matscipy import dislocation

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the form in which it hands elastic constants to itself
        made = getattr(dislocation, KINDS[kind])(
            a, C11=constants["c11"], C12=constants["c12"], C44=constants["c44"], symbol=case.element
        )
        _, *ends = made.build_glide_configurations(
            radius=radius * a / case.a, average_positions=True, fix_width=HELD * a / case.a, method="adsl",
            verbose=False,
        )  # fmt: skip
    start, end = (Atoms(e.numbers, e.positions, cell=e.cell, pbc=True) for e in ends)
    for atoms, built in zip((start, end), ends, strict=True):
        atoms.set_constraint(FixAtoms(built.constraints[0].get_indices()))
    return start, end


def _barrier(
    bench: Bench, case: Case, a: float, kind: str, constants: dict[str, float | None], options: Dislocation
) -> Value:
    slot = f"{case.name} {kind} dislocation {options.radius_A:g} Å"
    jobs = [
        Job(atoms=atoms, slot=f"{slot} valley {k}", fmax=FORCE_TOLERANCE, max_steps=MAX_STEPS)
        for k, atoms in enumerate(cylinders(case, a, kind, constants, options.radius_A))
    ]
    with bench.measure() as cost:
        start, end = bench.relax_all(jobs)
        wrong = _wrong(start, end)
        if not wrong:
            band = climb(
                bench, start.atoms, end.atoms, slot, images=options.images, fmax=BAND_TOLERANCE, max_steps=MAX_STEPS
            )
    name = f"peierls_barrier({kind})"
    if wrong:
        return Value.missing(name, UNIT, wrong, cost)
    barrier, unequal = without_tilt(band)
    reason = band.shortfall
    if not reason and unequal > max(UNEQUAL * barrier, UNEQUAL_EV):
        reason = f"the two valleys differ by {unequal * 1e3:.0f} meV: make dislocation.radius_A larger"
    return Value(
        property=name,
        value=barrier,
        unit=UNIT,
        error=unequal + band.last_change + band.between,
        converged=not reason,
        reason=reason,
        cost=cost,
    )


def without_tilt(band: Band) -> tuple[float, float]:
    """Barrier of a path whose ends are equal in truth, eV, and what they differ by."""
    tilt = float(band.energies[-1] - band.energies[0])
    way = np.cumsum([0.0, *(np.linalg.norm(b.positions - a.positions) for a, b in pairwise(band.images))])
    return float((band.energies - band.energies[0] - tilt * way / way[-1]).max()), abs(tilt)


def _wrong(start: Relaxation, end: Relaxation) -> str:
    if shortfall := start.shortfall or end.shortfall:
        return f"a valley of the dislocation: {shortfall}"
    if np.abs(end.atoms.positions - start.atoms.positions).max() < MOVED:
        return "both valleys have relaxed to the same place: there is no way between them"
    return ""
