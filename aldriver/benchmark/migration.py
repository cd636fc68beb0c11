"""Vacancy migration: a neighbour hops into the vacancy. ``band.py`` has the band, ``vacancy.py`` the relaxed vacancy.

Protocol: first-neighbour hop at the fixed cell of the perfect crystal, climbing-image band between relaxed ends, as
N. K. Mohandas et al., doi:10.1007/s11669-025-01225-z, section 2.3 and Table 1 (bcc Fe), and Liu et al.,
arXiv:2506.07401, Tables 2 and 6. The images, springs and forces are not printed there; ours are options. The inversion
through the middle of the hop takes one end into the other in bcc, fcc and diamond, so the vacancy is relaxed once, and
half of the band is computed. The error is what the last step of the band changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from aldriver.benchmark.band import SAME_ENERGY, Band, Exchange, climb
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import slot, supercell
from aldriver.benchmark.measure import Value
from aldriver.benchmark.relax import Relaxation
from aldriver.benchmark.vacancy import vacancy_formation
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_hopping import Migration

VERSION = 1
PROPERTIES = {"vacancy_migration_energy": "eV"}

TOO_FEW = 0.02  # eV

NEIGHBOUR = {"bcc": (0.5, 0.5, 0.5), "fcc": (0.5, 0.5, 0.0), "diamond": (0.25, 0.25, 0.25)}
"""First neighbour of the site at the origin, in lattice constants."""


@dataclass(frozen=True, kw_only=True)
class Hop:
    """Ends of a hop, the symmetry that takes one into the other, and the relaxation of the first."""

    start: Atoms
    end: Atoms
    exchange: Exchange
    relaxation: Relaxation


def mirrored(relaxed: Atoms, ideal: Atoms, ideal_end: Atoms, exchange: Exchange) -> Atoms:
    """The relaxed other end of a path, from the one that was relaxed.

    Parameters
    ----------
    relaxed
        The relaxed end.
    ideal, ideal_end
        Both ends before they relax: they tell which atom takes whose place.

    Raises
    ------
    ValueError
        When the symmetry does not take one ideal end into the other.
    """
    partners = exchange.partners(ideal, ideal_end)
    if partners is None:
        raise ValueError("the ends of the hop are not each other's image")
    end = ideal_end.copy()
    end.set_positions(exchange.image(relaxed, ideal_end, partners), apply_constraint=False)
    return end


def vacancy_hop(bench: Bench, case: Case, a: float) -> Hop:
    """Both relaxed ends of a first-neighbour hop into the vacancy at the origin."""
    step = np.array(NEIGHBOUR[case.lattice]) * a
    ideal = supercell(case, a)
    del ideal[0]
    hopping = int(np.argmin(np.linalg.norm(ideal.positions - step, axis=1)))
    ideal_end = ideal.copy()
    ideal_end.positions[hopping] = 0.0
    exchange = Exchange(rotation=-np.eye(3), centre=step / 2)
    relaxed = vacancy_formation(bench, case, a).relaxation
    end = mirrored(relaxed.atoms, ideal, ideal_end, exchange)
    return Hop(start=relaxed.atoms, end=end, exchange=exchange, relaxation=relaxed)


def compute(bench: Bench, case: Case, a: float, options: Migration) -> list[Value]:
    """``vacancy_migration_energy`` (eV): the highest point of the band above the relaxed vacancy."""
    with bench.measure() as cost:
        hop = vacancy_hop(bench, case, a)
        found = climb(
            bench,
            hop.start,
            hop.end,
            slot(case, "vacancy hop"),
            images=options.images,
            fmax=options.fmax_eV_A,
            max_steps=options.max_steps,
            exchange=hop.exchange,
        )
    reason = f"the vacancy: {hop.relaxation.shortfall}" if hop.relaxation.shortfall else unfinished(found)
    return [
        Value(
            property="vacancy_migration_energy",
            value=found.barrier,
            unit="eV",
            error=found.last_change,
            converged=not reason,
            reason=reason,
            cost=cost,
        )
    ]


def unfinished(band: Band, *, equivalent: bool = True) -> str:
    """Why a band, between equivalent ends or others, is not to be trusted; empty when it is."""
    if band.shortfall:
        return band.shortfall
    if band.between > TOO_FEW:
        return f"too few images: between two of them the energy rises {band.between * 1e3:.0f} meV above the highest"
    if equivalent and abs(band.energies[-1]) > SAME_ENERGY:
        return f"the two ends must be equivalent, and differ by {abs(band.energies[-1]) * 1e3:.0f} meV"
    return ""
