"""Traction curves: the stress with which a crystal resists being opened along a plane, and the energy of cleavage.

Protocol: a stack of layers is opened by δ between the last layer of one cell and the first of the next, and the
traction is dE/dδ over the area. Rigid: no atom moves. Relaxed: the two layers at the opening keep their distance, all
others relax along the normal at fixed cell; this has a limit as the crystal gets thicker, whereas the curve of a
crystal of which only the total length is given has none (a thicker one stores more strain). On the two cases see
P. Lazar and R. Podloucky, Phys. Rev. B 78, 104114 (2008). The DFT curves of bcc Fe by Zhang et al.
(arXiv:2307.10072) are rigid.

The derivative is exact: with positions z_i at fixed cell height c, dE/dc = (V σ_zz + Σ F_z,i z_i)/c. The error of the
maximum is that of the spline through the points, of a cleavage energy what the last relaxation step gained. Surface
energies of relaxed slabs are another module's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from ase.units import GPa, J, m
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.curves import crest
from aldriver.benchmark.measure import Cost, Value
from aldriver.benchmark.planes import Plane, layered, layers_of
from aldriver.core.errors import AldriverError
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_extended import Traction
from aldriver.potentials.base import Prediction

VERSION = 1
FORCE_TOLERANCE = 5.0e-3  # eV/Å
MAX_STEPS = 200
APART = 10.0  # Å: nothing reaches across
SHOWN = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Openings (Å) whose traction is a value of its own."""

PLANES = {
    lattice: (
        Plane(name="100", lattice=lattice, normal=(0, 0, 1), along=(1, 0, 0)),
        Plane(name="110", lattice=lattice, normal=(1, -1, 0), along=(0, 0, 1)),
        *([Plane(name="111", lattice=lattice, normal=(1, 1, 1), along=(1, -1, 0))] if lattice == "fcc" else []),
    )
    for lattice in ("bcc", "fcc")
}


def units(case: Case, options: Traction) -> dict[str, str]:
    """Names of the values of a case."""
    if case.lattice not in PLANES:
        return {"max_traction": "GPa", "cleavage_energy": "J/m^2"}
    found: dict[str, str] = {}
    for plane in PLANES[case.lattice]:
        for variant in (plane.name, f"{plane.name},relaxed"):
            found |= {f"max_traction({variant})": "GPa", f"cleavage_energy({variant})": "J/m^2"}
        found |= {f"traction({plane.name},{opening:g})": "GPa" for opening in _shown(options)}
    return found


def compute(bench: Bench, case: Case, a: float, options: Traction) -> list[Value]:
    """Largest traction (GPa) and cleavage energy (J/m²), rigid and relaxed, and points of the rigid curve.

    Raises
    ------
    AldriverError
        For a lattice without planes here (diamond), or when the curve has too few points.
    """
    if case.lattice not in PLANES:
        raise AldriverError(f"openings are measured in bcc and fcc crystals; {case.name} is {case.lattice}")
    openings = np.round(np.arange(0.0, options.largest_A + 1e-6, options.step_A), 6)
    if len(openings) < 5:
        raise AldriverError("a traction curve needs at least 5 openings: make traction.step_A smaller")
    values = []
    for plane in PLANES[case.lattice]:
        layers = layers_of(plane, case.a, options.thickness_A)  # of the start: the same for every potential
        cells = [opened(case, a, plane, layers, d) for d in [*openings, APART]]
        with bench.measure() as cost:
            curve, cleaved = _curve(plane, a, cells, bench.potential.evaluate(cells))
        values += _values(plane.name, openings, curve, cleaved, cost)
        spline = CubicSpline(openings, curve)
        values += [
            Value(property=f"traction({plane.name},{d:g})", value=float(spline(d)), unit="GPa", error=0.0, cost=cost)
            for d in _shown(options)
        ]
        values += _relaxed(bench, case, a, plane, openings, cells)
    return values


def opened(case: Case, a: float, plane: Plane, layers: int, opening: float) -> Atoms:
    """Stack of layers opened by `opening` (Å) at its upper end; all but the layers at the opening may move along z."""
    atoms = layered(case, a, plane, layers)
    cell = np.array(atoms.cell)
    cell[2, 2] += opening
    atoms.set_cell(cell)
    inner = list(range(1, layers - 1))
    atoms.set_constraint([FixAtoms([0, layers - 1]), FixCartesian(inner, (True, True, False))])
    return atoms


def traction(atoms: Atoms, found: Prediction) -> float:
    """Stress with which the two sides of an opening attract each other, GPa: dE/dc over the area, atoms held."""
    assert found.stress is not None
    pulled = float(found.forces[:, 2] @ atoms.positions[:, 2])
    return (float(found.stress[2]) + pulled / atoms.get_volume()) / GPa


def _shown(options: Traction) -> list[float]:
    return [opening for opening in SHOWN if opening <= options.largest_A]


def _relaxed(
    bench: Bench, case: Case, a: float, plane: Plane, openings: NDArray[np.float64], cells: list[Atoms]
) -> list[Value]:
    layers = len(cells[0])
    jobs = [
        Job(
            atoms=cell,
            slot=f"{case.name} opening {plane.name} {layers} layers {d:g} Å",
            fmax=FORCE_TOLERANCE,
            max_steps=MAX_STEPS,
        )
        for cell, d in zip(cells, [*openings, APART], strict=True)
    ]
    with bench.measure() as cost:
        relaxed = bench.relax_all(jobs)
        ended = [r.atoms for r in relaxed]
        curve, cleaved = _curve(plane, a, ended, bench.potential.evaluate(ended))
    gain = max(r.last_gain for r in relaxed) / plane.area(a) * m**2 / J
    stopped = sum(not r.converged for r in relaxed)
    reason = f"{stopped} of {len(relaxed)} relaxations stopped after {MAX_STEPS} steps" if stopped else ""
    return _values(f"{plane.name},relaxed", openings, curve, cleaved, cost, gain=gain, reason=reason)


def _curve(
    plane: Plane, a: float, cells: Sequence[Atoms], found: Sequence[Prediction]
) -> tuple[NDArray[np.float64], float]:
    """Tractions (GPa) of all but the last cell, and the energy (J/m²) it takes to get from the first to the last."""
    curve = np.array([traction(cell, p) for cell, p in zip(cells[:-1], found[:-1], strict=True)])
    return curve, (found[-1].energy - found[0].energy) / plane.area(a) * m**2 / J


def _values(
    variant: str,
    openings: NDArray[np.float64],
    curve: NDArray[np.float64],
    cleaved: float,
    cost: Cost,
    *,
    gain: float = 0.0,
    reason: str = "",
) -> list[Value]:
    peak, error = crest(openings, curve)
    late = "the traction still rises at the widest opening" if np.argmax(curve) == len(curve) - 1 else ""
    return [
        Value(
            property=f"{what}({variant})", value=value, unit=unit, error=off, converged=not why, reason=why, cost=cost
        )
        for what, value, unit, off, why in (
            ("max_traction", peak, "GPa", error, reason or late),
            ("cleavage_energy", cleaved, "J/m^2", gain, reason),
        )
    ]
