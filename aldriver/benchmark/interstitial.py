"""Interstitial solutes: octahedral against tetrahedral site, and the barrier between octahedral sites.

The band is ``band.py``'s; atoms of the host between its sites are ``self_interstitial.py``'s.

Protocol: one solute in the supercell at the fixed cell of the perfect crystal, positions relaxed; ΔE = E(octahedral) −
E(tetrahedral), negative where the octahedral site is stable, and the migration barrier by a climbing-image band, as
N. K. Mohandas et al., doi:10.1007/s11669-025-01225-z, section 2.4 and Table 2 (C, N and O in bcc Fe). In bcc the path
leads from one octahedral site through a tetrahedral one to the next; a twofold axis through the tetrahedral site
exchanges its ends, so half of it is computed. In fcc it leads from the octahedral to the tetrahedral site. The barrier
is the highest point of the path above its lowest, wherever that is. In diamond there are no such octahedral sites.

The error of ΔE is what the last steps of both relaxations gained, that of the barrier what the last step of the band
changed. A solute that ends nearer to the other kind of site has left its own: the value then says so, and is not
converged.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from aldriver.benchmark.band import Exchange, climb
from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.cases import slot, supercell
from aldriver.benchmark.measure import Value
from aldriver.benchmark.migration import mirrored, unfinished
from aldriver.benchmark.relax import Relaxation
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_hopping import Interstitial

VERSION = 1

SITES = {
    "bcc": {"octahedral": (0.5, 0.5, 0.0), "tetrahedral": (0.5, 0.25, 0.0)},
    "fcc": {"octahedral": (0.5, 0.5, 0.5), "tetrahedral": (0.25, 0.25, 0.25)},
}
"""In lattice constants, from an atom."""
APART = {"bcc": 0.25, "fcc": np.sqrt(3) / 4}
"""Distance of a site to the nearest of the other kind, in lattice constants."""
NEXT = (0.5, 0.0, 0.0)
"""Of bcc: the octahedral site behind the tetrahedral one."""
TWOFOLD = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
"""About [101] through the tetrahedral site of bcc."""

FORCE_TOLERANCE = 5.0e-3  # eV/Å
MAX_STEPS = 300


def units(case: Case, options: Interstitial | None) -> dict[str, str]:
    """Names and units of the values."""
    names = ("oct_minus_tet", "interstitial_migration_energy")
    return {f"{name}({element})": "eV" for element in (options or Interstitial()).elements for name in names}


def compute(bench: Bench, case: Case, a: float, options: Interstitial) -> list[Value]:
    """``oct_minus_tet(X)`` and ``interstitial_migration_energy(X)`` of each solute X, eV."""
    obstacles = {element: _obstacle(bench, case, element) for element in options.elements}
    able = [element for element in options.elements if not obstacles[element]]
    jobs = {(element, site): _job(case, a, element, site) for element in able for site in SITES[case.lattice]}
    bench.relax_all(list(jobs.values()))  # independent: workers share them
    values = []
    for element in options.elements:
        if obstacles[element]:
            names = units(case, options.model_copy(update={"elements": [element]}))
            values += [Value.missing(name, unit, obstacles[element]) for name, unit in names.items()]
        else:
            values += [_difference(bench, case, a, element, jobs), _barrier(bench, case, a, element, jobs, options)]
    return values


def with_solute(case: Case, a: float, element: str, place: tuple[float, float, float]) -> Atoms:
    """The supercell with a solute (the last atom) at a place given in lattice constants, near the cell's middle."""
    perfect = supercell(case, a)
    middle = np.array([n // 2 for n in case.supercell])
    return perfect + Atoms(element, positions=[(middle + place) * a], cell=perfect.cell, pbc=True)


def _obstacle(bench: Bench, case: Case, element: str) -> str:
    if case.lattice not in SITES:
        return f"{case.lattice} has no octahedral site as bcc and fcc have"
    if element not in bench.potential.elements:
        return f"the potential does not know {element}"
    return ""


def _job(case: Case, a: float, element: str, site: str) -> Job:
    atoms = with_solute(case, a, element, SITES[case.lattice][site])
    return Job(atoms=atoms, slot=slot(case, f"{element} {site}"), fmax=FORCE_TOLERANCE, max_steps=MAX_STEPS)


def _difference(bench: Bench, case: Case, a: float, element: str, jobs: dict[tuple[str, str], Job]) -> Value:
    with bench.measure() as cost:
        found = {site: bench.relax_all([jobs[element, site]])[0] for site in SITES[case.lattice]}
    reasons = [_left(case, a, element, site, jobs[element, site].atoms, found[site]) for site in found]
    reason = next(filter(None, reasons), "")
    return Value(
        property=f"oct_minus_tet({element})",
        value=found["octahedral"].energy - found["tetrahedral"].energy,
        unit="eV",
        error=sum(relaxed.last_gain for relaxed in found.values()),
        converged=not reason,
        reason=reason,
        cost=cost,
    )


def _barrier(
    bench: Bench, case: Case, a: float, element: str, jobs: dict[tuple[str, str], Job], options: Interstitial
) -> Value:
    with bench.measure() as cost:
        start = jobs[element, "octahedral"]
        relaxed = bench.relax_all([start])[0]
        exchange = None
        if case.lattice == "bcc":
            tetrahedral = with_solute(case, a, element, SITES["bcc"]["tetrahedral"]).positions[-1]
            exchange = Exchange(rotation=TWOFOLD, centre=tetrahedral)
            end = mirrored(relaxed.atoms, start.atoms, with_solute(case, a, element, NEXT), exchange)
            reason = _left(case, a, element, "octahedral", start.atoms, relaxed)
        else:
            goal = jobs[element, "tetrahedral"]
            there = bench.relax_all([goal])[0]
            end = there.atoms
            reason = _left(case, a, element, "octahedral", start.atoms, relaxed) or _left(
                case, a, element, "tetrahedral", goal.atoms, there
            )
        path = climb(
            bench,
            relaxed.atoms,
            end,
            slot(case, f"{element} path"),
            images=options.images,
            fmax=options.fmax_eV_A,
            max_steps=options.max_steps,
            exchange=exchange,
        )
    reason = reason or unfinished(path, equivalent=exchange is not None)
    return Value(
        property=f"interstitial_migration_energy({element})",
        value=float(np.ptp(path.energies)),
        unit="eV",
        error=path.last_change,
        converged=not reason,
        reason=reason,
        cost=cost,
    )


def _left(case: Case, a: float, element: str, site: str, start: Atoms, relaxed: Relaxation) -> str:
    """Why a relaxed solute is not on its site; empty when it is."""
    if relaxed.shortfall:
        return f"{element} on the {site} site: {relaxed.shortfall}"
    moved, _ = find_mic(relaxed.atoms.positions - start.positions, start.cell, start.pbc)
    distance = float(np.linalg.norm(moved[-1] - moved[:-1].mean(axis=0)))  # the host may drift as a whole
    if distance > APART[case.lattice] * a / 2:
        return f"{element} left its {site} site: it ended {distance:.2f} Å away"
    return ""
