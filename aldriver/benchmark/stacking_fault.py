"""Energies of faults within a plane: the line of the γ surface along which dislocations slip, and its maximum.

Protocol: the crystal above a plane is shifted by d along the slip direction, and all atoms relax along the normal of
the plane at fixed cell (V. Vítek, Philos. Mag. 18, 773 (1968)). The cell is a stack of layers whose third vector is
shifted by d: it holds one fault and no surface. In bcc the lines are {110}⟨111⟩ and {112}⟨111⟩ over the Burgers vector
a√3/2; in fcc {111}⟨112⟩ from the perfect crystal over a/√6 to the intrinsic stacking fault. Energies are per area of
one fault. The fixed height leaves a stress that falls with the thickness (``docs/benchmark_extended.md``).

The error is what the last relaxation step gained, for the maximum also that of the spline through the points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.constraints import FixCartesian
from ase.units import J, m
from numpy.typing import NDArray

from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.curves import crest
from aldriver.benchmark.measure import Cost, Value
from aldriver.benchmark.planes import Plane, layered, layers_of
from aldriver.benchmark.relax import Relaxation
from aldriver.core.errors import AldriverError
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_extended import StackingFault

VERSION = 1
UNIT = "J/m^2"
FORCE_TOLERANCE = 5.0e-3  # eV/Å
MAX_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class SlipLine:
    """A line on the γ surface.

    Attributes
    ----------
    length
        In units of the lattice constant.
    symmetric
        Whether shifts of x and 1 − x are the same but for a rotation, so that only half of them are computed.
    """

    plane: Plane
    length: float
    symmetric: bool = False


SLIP_LINES: Mapping[str, tuple[SlipLine, ...]] = {
    "bcc": (
        SlipLine(
            plane=Plane(name="110", lattice="bcc", normal=(1, -1, 0), along=(1, 1, 1)), length=0.75**0.5, symmetric=True
        ),
        SlipLine(plane=Plane(name="112", lattice="bcc", normal=(1, 1, -2), along=(1, 1, 1)), length=0.75**0.5),
    ),
    "fcc": (SlipLine(plane=Plane(name="111", lattice="fcc", normal=(1, 1, 1), along=(1, 1, -2)), length=6**-0.5),),
}


def units(case: Case, options: StackingFault) -> dict[str, str]:
    """Names of the values of a case: the maximum of each line, the intrinsic fault, and the points between."""
    if case.lattice not in SLIP_LINES:
        return {"unstable_fault_energy": UNIT}
    names = []
    for line in SLIP_LINES[case.lattice]:
        names.append(f"unstable_fault_energy({line.plane.name})")
        if case.lattice == "fcc":
            names.append(f"stacking_fault_energy({line.plane.name})")
        names += [f"fault_energy({line.plane.name},{x:g})" for x in _shifts(options)[1:-1]]
    return dict.fromkeys(names, UNIT)


def compute(bench: Bench, case: Case, a: float, options: StackingFault) -> list[Value]:
    """Maximum of each line, energy of the intrinsic stacking fault (fcc) and the points of each line, J/m².

    Raises
    ------
    AldriverError
        For a lattice without a line here (diamond).
    """
    if case.lattice not in SLIP_LINES:
        raise AldriverError(f"faults are measured in bcc and fcc crystals; {case.name} is {case.lattice}")
    return [value for line in SLIP_LINES[case.lattice] for value in _values(bench, case, a, line, options)]


def faulted(case: Case, a: float, line: SlipLine, shift: float, layers: int) -> Atoms:
    """Cell with one fault: `shift` runs from 0 to 1 along the line; the atoms are free to move along the normal."""
    atoms = layered(case, a, line.plane, layers)
    cell = np.array(atoms.cell)
    cell[2, 0] += shift * line.length * a
    atoms.set_cell(cell)
    atoms.set_constraint(FixCartesian(list(range(layers)), (True, True, False)))
    return atoms


def _shifts(options: StackingFault) -> NDArray[np.float64]:
    return np.round(np.linspace(0.0, 1.0, options.intervals + 1), 6)


def _values(bench: Bench, case: Case, a: float, line: SlipLine, options: StackingFault) -> list[Value]:
    shifts, plane = _shifts(options), line.plane
    layers = layers_of(plane, case.a, options.thickness_A)  # of the start: the same for every potential
    wanted = [x for x in shifts if x <= 0.5 or not line.symmetric]
    jobs = [
        Job(
            atoms=faulted(case, a, line, x, layers),
            slot=f"{case.name} fault {plane.name} {layers} layers {x:g}",
            fmax=FORCE_TOLERANCE,
            max_steps=MAX_STEPS if x else 0,
        )
        for x in wanted
    ]
    with bench.measure() as cost:
        made = dict(zip(wanted, bench.relax_all(jobs), strict=True))
    relaxed = [made[round(min(x, 1 - x), 6) if line.symmetric else x] for x in shifts]
    scale = m**2 / J / plane.area(a)
    energies = scale * (np.array([r.energy for r in relaxed]) - relaxed[0].energy)
    gains = scale * np.array([r.last_gain for r in relaxed])
    peak, error = crest(shifts, energies, level_ends=True)
    values = [_value(f"unstable_fault_energy({plane.name})", peak, error + gains.max(), relaxed, cost)]
    if case.lattice == "fcc":
        values.append(_value(f"stacking_fault_energy({plane.name})", energies[-1], gains[-1], relaxed[-1:], cost))
    values += [
        _value(f"fault_energy({plane.name},{x:g})", e, gain, [r], cost)
        for x, e, gain, r in list(zip(shifts, energies, gains, relaxed, strict=True))[1:-1]
    ]
    return values


def _value(name: str, energy: float, error: float, relaxed: list[Relaxation], cost: Cost) -> Value:
    stopped = max((r for r in relaxed if not r.converged), key=lambda r: r.fmax, default=None)
    reason = "the crystal gains energy when it is sheared" if energy < -1e-3 else ""
    if stopped is not None:
        reason = stopped.shortfall
    return Value(
        property=name, value=float(energy), unit=UNIT, error=float(error), converged=stopped is None, reason=reason,
        cost=cost,
    )  # fmt: skip
