"""Di-interstitials of silicon: published energies, their geometry, their binding, and lattices that have none."""

from __future__ import annotations

import numpy as np
import pytest

from aldriver.benchmark import di_interstitial, self_interstitial
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name, supercell
from aldriver.benchmark.di_interstitial import with_pair
from aldriver.benchmark.free_cell import relax_cell
from aldriver.benchmark.lattice import relax_lattice
from aldriver.benchmark.store import Store
from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark

SI = case_by_name("diamond-Si")


@pytest.mark.parametrize("name", ["TT", "XT", "W", "XEX", "EXT", "XX3"])
def test_two_atoms_too_many_and_none_too_close(name):
    atoms = with_pair(SI, SI.a, name)
    assert len(atoms) == len(supercell(SI, SI.a)) + 2
    apart = atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]
    assert apart.min() > 0.3 * SI.a  # a bond is 0.43 a


def test_neighbouring_tetrahedral_sites_are_a_bond_apart():
    atoms = with_pair(SI, SI.a, "TT")
    assert atoms.get_distance(-1, -2) == pytest.approx(np.sqrt(3) / 4 * SI.a)
    for extra in (-1, -2):
        near = np.sort(atoms.get_distances(extra, range(len(atoms) - 2), mic=True))[:4]
        assert near == pytest.approx(np.sqrt(3) / 4 * SI.a)


def test_three_atoms_about_a_threefold_axis():
    atoms = with_pair(SI, SI.a, "XT")
    sides = [atoms.get_distance(i, j) for i, j in ((-1, -2), (-2, -3), (-3, -1))]
    assert sides == pytest.approx([sides[0]] * 3)


@pytest.fixture(scope="module")
def pairs(sw_si):
    values = di_interstitial.compute(Bench(sw_si), SI, relax_lattice(sw_si, SI).a)
    assert all(value.converged and value.reason == "" for value in values)
    return {value.property.partition("(")[2].rstrip(")"): value.value for value in values}


def test_compact_pairs_are_bound(sw_si, pairs):
    """A pair that shares a site costs less than two split interstitials."""
    single = self_interstitial.compute(Bench(sw_si), SI, relax_lattice(sw_si, SI).a)[0].value
    assert max(pairs["XT"], pairs["W"]) < 2 * single - 1.0


def test_published_energies_of_the_same_potential(pairs):
    """Stillinger and Weber's, 66 atoms, cell relaxed: libAtoms/silicon-testing-framework@fc252cb, test-results.

    All three lie 12 to 14 meV below ours, as another energy of the crystal (0.2 meV an atom) would make them: between
    configurations that drops out.
    """
    published = {"TT": 8.7521, "XT": 5.3635, "W": 5.7248, "XEX": 6.0298, "EXT": 6.1417, "XX3": 6.6917}
    for name, energy in published.items():
        assert pairs[name] == pytest.approx(energy, abs=0.02)
        assert pairs[name] - pairs["XT"] == pytest.approx(energy - published["XT"], abs=3e-3)


def test_the_free_cell_is_free_of_stress_and_kept(sw_si, tmp_path):
    start = with_pair(SI, 5.431, "XT")
    bench = Bench(sw_si, store=Store(tmp_path))
    found = relax_cell(bench, start, "XT", fmax=5e-3, max_steps=200)
    (now,) = sw_si.evaluate([found.atoms])
    assert now.energy == pytest.approx(found.energy, abs=1e-9)
    assert np.abs(now.stress).max() * found.atoms.get_volume() / len(start) < 5e-3
    again = Bench(sw_si, store=Store(tmp_path))
    assert relax_cell(again, start, "XT", fmax=5e-3, max_steps=200).energy == found.energy
    assert again.potential.total.force_calls == 0
    stopped = relax_cell(again, start, "XT", fmax=5e-3, max_steps=2)
    assert (stopped.converged, stopped.steps) == (False, 2)


def test_what_falls_apart_is_named(sw_si, monkeypatch):
    monkeypatch.setattr(di_interstitial, "FARTHEST", 1e-3)
    monkeypatch.setattr(di_interstitial, "STRUCTURES", {"TT": di_interstitial.STRUCTURES["TT"]})
    values = di_interstitial.compute(Bench(sw_si), SI, 5.431)
    assert not values[0].converged
    assert "relaxed into another one" in values[0].reason


def test_other_lattices_have_records_with_a_reason(fe, bcc_fe):
    records = run_suite(fe, Benchmark(properties=["di_interstitial"], cases=[bcc_fe]), cache_dir=None)
    assert [r.property for r in records] == list(di_interstitial.PROPERTIES)
    assert all(r.value is None and not r.converged and "not of bcc" in r.reason for r in records)


def test_a_step_limit_is_named(sw_si, monkeypatch):
    monkeypatch.setattr(di_interstitial, "MAX_STEPS", 2)
    monkeypatch.setattr(di_interstitial, "STRUCTURES", {"TT": di_interstitial.STRUCTURES["TT"]})
    (value,) = di_interstitial.compute(Bench(sw_si), SI, 5.431)
    assert not value.converged
    assert "stopped after 2 steps" in value.reason
