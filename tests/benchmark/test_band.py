"""Bands: symmetric hops, barriers that are published, what is kept, and what does not converge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from aldriver.benchmark.band import Exchange, climb
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.migration import vacancy_hop
from aldriver.benchmark.store import Store
from aldriver.core.errors import AldriverError


@pytest.fixture
def hop(cu, fcc_cu):
    """Ends of a vacancy hop in 107 atoms of copper, relaxed, and the symmetry that exchanges them."""
    return vacancy_hop(Bench(cu), fcc_cu, 3.615)


def test_half_a_symmetric_band_is_the_whole(cu, hop):
    """The inversion through the middle of the hop takes one end into the other."""
    bench = Bench(cu)
    half = climb(bench, hop.start, hop.end, "hop", fmax=0.01, exchange=hop.exchange)
    whole = climb(bench, hop.start, hop.end, "hop", fmax=0.01)
    assert (half.halved, whole.halved) == (True, False)
    assert half.barrier == pytest.approx(whole.barrier, abs=1e-3)
    assert half.barrier == pytest.approx(0.69, abs=5e-3)  # Lysogorskiy et al. 2021, Table 1, EAM (see `cu`)
    assert half.energies == pytest.approx(half.energies[::-1], abs=1e-6)
    assert whole.energies == pytest.approx(whole.energies[::-1], abs=5e-3)
    assert half.cost.force_calls < 0.7 * whole.cost.force_calls


def test_the_highest_point_is_a_saddle(cu, hop):
    """No force acts on it, and along the path it is a maximum."""
    found = climb(Bench(cu), hop.start, hop.end, "hop", fmax=0.01, exchange=hop.exchange)
    top = int(found.energies.argmax())
    assert top == 3
    saddle = found.images[top]
    forces = cu.evaluate([saddle])[0].forces
    assert np.linalg.norm(forces, axis=1).max() < 0.011
    along = found.images[top + 1].positions - found.images[top - 1].positions
    moved = saddle.copy()
    moved.positions += 0.02 * along / np.linalg.norm(along)
    assert cu.evaluate([moved])[0].energy < cu.evaluate([saddle])[0].energy


def test_the_computed_half_has_the_energies_of_what_it_stands_for(cu, hop):
    found = climb(Bench(cu), hop.start, hop.end, "hop", exchange=hop.exchange)
    energies = np.array([p.energy for p in cu.evaluate(found.images)])
    assert energies - energies[0] == pytest.approx(found.energies, abs=1e-5)


def test_ends_that_are_not_each_other_s_image_are_not_halved(cu, hop):
    other = hop.end.copy()
    other.positions[5] += 0.05
    assert hop.exchange.partners(hop.start, hop.end) is not None
    assert hop.exchange.partners(hop.start, other) is None
    turned = Exchange(rotation=np.diag([1.0, 1.0, -1.0]), centre=hop.exchange.centre)
    assert turned.partners(hop.start, hop.end) is None
    third = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # of order three: no exchange
    perfect = Atoms("Cu4", hop.start.positions[:4] * 0, cell=hop.start.cell, pbc=True)
    assert Exchange(rotation=third, centre=np.zeros(3)).partners(perfect, perfect) is None


def test_a_band_is_made_once_and_the_next_potential_starts_from_it(cu, changed, hop, tmp_path):
    first = Bench(cu, store=Store(tmp_path))
    made = climb(first, hop.start, hop.end, "hop", exchange=hop.exchange)
    again = Bench(cu, store=Store(tmp_path))
    with again.measure() as told:
        found = climb(again, hop.start, hop.end, "hop", exchange=hop.exchange)
    assert again.potential.total.force_calls == 0
    assert told.force_calls == found.cost.force_calls == made.cost.force_calls > 0
    assert found.energies == pytest.approx(made.energies, abs=0)
    assert np.abs(found.images[2].positions - made.images[2].positions).max() < 1e-9
    stiffer = changed(cu, lambda _, p: dataclasses.replace(p, energy=p.energy * 1.05, forces=p.forces * 1.05))
    warm = climb(Bench(stiffer, store=Store(tmp_path)), hop.start, hop.end, "hop", exchange=hop.exchange)
    assert warm.converged
    assert warm.cost.force_calls < made.cost.force_calls / 2
    assert warm.barrier == pytest.approx(1.05 * made.barrier, abs=2e-3)


def test_a_step_limit_is_not_convergence(cu, hop):
    found = climb(Bench(cu), hop.start, hop.end, "hop", max_steps=3)
    assert (found.converged, found.steps) == (False, 3)
    assert found.fmax > 0.05


def test_constraints_hold(cu, hop):
    start = hop.start.copy()
    start.set_constraint(FixAtoms(range(20, 40)))
    end = hop.end.copy()
    end.positions[20:40] = start.positions[20:40]
    found = climb(Bench(cu), start, end, "hop", images=3, fmax=0.1)
    assert found.converged
    for image in found.images:
        assert np.abs(image.positions[20:40] - start.positions[20:40]).max() < 1e-9


def test_a_slope_has_its_highest_point_at_an_end(cu, fcc_cu):
    """From a strained bond to a relaxed one the energy only falls: nothing climbs, and the barrier is none."""
    relaxed = conventional_cell(fcc_cu, 3.615).repeat(2)
    displaced = relaxed.copy()
    displaced.positions[0] += [0.4, 0.0, 0.0]
    found = climb(Bench(cu), displaced, relaxed, "slope", images=3)
    assert found.converged
    assert found.barrier == 0.0
    assert (np.diff(found.energies) < 0).all()


def test_what_is_refused(cu, changed, hop):
    with pytest.raises(ValueError, match="same atoms"):
        climb(Bench(cu), hop.start, hop.end[1:], "hop")
    broken = changed(cu, lambda _, p: dataclasses.replace(p, forces=p.forces * np.nan))
    with pytest.raises(AldriverError, match="the hop.*not finite"):
        climb(Bench(broken), hop.start, hop.end, "the hop")
