"""Vacancy formation energy at fixed cell. The lattice constant it is made at is given."""

from __future__ import annotations

from dataclasses import dataclass

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import slot, supercell
from aldriver.benchmark.measure import Value
from aldriver.benchmark.relax import OptimizerName, Relaxation
from aldriver.core.recipe_benchmark import Case

VERSION = 1
PROPERTIES = {"vacancy_formation_energy": "eV"}

FORCE_TOLERANCE = 5.0e-3  # eV/Å
MAX_STEPS = 200
RATTLE = 0.02  # Å, diamond only


@dataclass(frozen=True, kw_only=True)
class Vacancy:
    """Formation energy (eV) of a vacancy in a cell of `n_sites` sites, and the relaxation that gave it."""

    energy: float
    n_sites: int
    relaxation: Relaxation


def vacancy_formation(
    bench: Bench,
    case: Case,
    a: float,
    *,
    fmax: float = FORCE_TOLERANCE,
    max_steps: int = MAX_STEPS,
    optimizer: OptimizerName = "lbfgs",
) -> Vacancy:
    """E_f = E(N−1) − (N−1)/N E(N), positions relaxed in the cell of the perfect crystal.

    N. K. Mohandas et al., doi:10.1007/s11669-025-01225-z, Eq. 1. In diamond the neighbours of a vacancy pair up, which
    symmetric starting positions would forbid: there they are displaced at random (reproducibly) by 0.02 Å.
    """
    perfect = supercell(case, a)
    n = len(perfect)
    bulk_energy = bench.energy(perfect, slot(case, "perfect"))
    defective = perfect.copy()
    del defective[0]
    if case.lattice == "diamond":
        defective.rattle(stdev=RATTLE, seed=0)
    relaxed = bench.relax(defective, slot(case, "vacancy"), fmax=fmax, max_steps=max_steps, optimizer=optimizer)
    return Vacancy(energy=relaxed.energy - (n - 1) / n * bulk_energy, n_sites=n, relaxation=relaxed)


def compute(bench: Bench, case: Case, a: float) -> list[Value]:
    """``vacancy_formation_energy`` (eV); its error is what the last relaxation step gained."""
    with bench.measure() as cost:
        found = vacancy_formation(bench, case, a)
    return [
        Value(
            property="vacancy_formation_energy",
            value=found.energy,
            unit="eV",
            error=found.relaxation.last_gain,
            converged=found.relaxation.converged,
            reason=found.relaxation.shortfall,
            cost=cost,
        )
    ]
