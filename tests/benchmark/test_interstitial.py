"""Interstitial solutes: sites by symmetry, barriers against energy differences, solutes that leave."""

from __future__ import annotations

import numpy as np
import pytest

import aldriver
from aldriver.benchmark import interstitial
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.interstitial import SITES, with_solute
from aldriver.benchmark.lattice import relax_lattice
from aldriver.core.recipe_hopping import Interstitial


@pytest.fixture(scope="module")
def fe_p():
    """G. J. Ackland et al., J. Phys.: Condens. Matter 16, S2629 (2004)."""
    return aldriver.load("eam:FeP_mm.eam.fs")


@pytest.fixture(scope="module")
def ni_h():
    """J. E. Angelo, N. R. Moody and M. I. Baskes, Modell. Simul. Mater. Sci. Eng. 3, 289 (1995)."""
    return aldriver.load("eam:NiAlH_jea.eam.alloy")


def by_name(values):
    return {v.property: v for v in values}


@pytest.mark.parametrize(
    ("name", "site", "neighbours", "distance"),
    [
        ("bcc-Fe", "octahedral", 2, 0.5),  # two near and four at 1/√2 a
        ("bcc-Fe", "tetrahedral", 4, np.sqrt(5) / 4),
        ("fcc-Cu", "octahedral", 6, 0.5),
        ("fcc-Cu", "tetrahedral", 4, np.sqrt(3) / 4),
    ],
)
def test_sites_have_the_neighbours_they_are_named_after(name, site, neighbours, distance):
    case = case_by_name(name)
    atoms = with_solute(case, case.a, "C", SITES[case.lattice][site])
    d = np.sort(atoms.get_distances(-1, range(len(atoms) - 1), mic=True)) / case.a
    assert d[:neighbours] == pytest.approx(distance)
    assert d[neighbours] > distance + 0.1


def test_a_site_is_a_place_of_its_symmetry(fe_p, bcc_fe):
    """No force acts on the solute before anything relaxes."""
    for site in SITES["bcc"].values():
        atoms = with_solute(bcc_fe, 2.8553, "P", site)
        assert np.abs(fe_p.evaluate([atoms])[0].forces[-1]).max() < 1e-8


def test_phosphorus_in_iron_the_octahedral_site_is_the_saddle(fe_p, bcc_fe):
    """Where nothing is higher than one site nor lower than the other, their difference is the barrier."""
    a = relax_lattice(fe_p, bcc_fe).a
    found = by_name(interstitial.compute(Bench(fe_p), bcc_fe, a, Interstitial(elements=["P"])))
    difference, barrier = found["oct_minus_tet(P)"], found["interstitial_migration_energy(P)"]
    assert difference.converged and barrier.converged
    assert difference.value > 0.5
    assert barrier.value == pytest.approx(difference.value, abs=5e-3)


def test_hydrogen_in_nickel(ni_h):
    """The octahedral site is stable, and a triangle of nickel atoms stands before the tetrahedral one."""
    case = case_by_name("fcc-Ni")
    found = by_name(interstitial.compute(Bench(ni_h), case, relax_lattice(ni_h, case).a, Interstitial(elements=["H"])))
    assert found["oct_minus_tet(H)"].value < 0
    barrier = found["interstitial_migration_energy(H)"]
    assert barrier.converged
    assert barrier.value > -found["oct_minus_tet(H)"].value + 0.02
    # diffusion of H in Ni from 260 to 1000 K: 41.4 kJ/mol; H. Hagi, Trans. Japan Inst. Metals 27, 233 (1986)
    assert barrier.value == pytest.approx(0.43, abs=0.1)


def test_a_solute_that_leaves_its_site_is_named(fe_p, bcc_fe, monkeypatch):
    """A start beside the octahedral site, which is a saddle here, slides to the tetrahedral one."""
    beside = {"octahedral": (0.5, 0.46, 0.0), "tetrahedral": (0.5, 0.25, 0.0)}
    monkeypatch.setitem(interstitial.SITES, "bcc", beside)
    a = relax_lattice(fe_p, bcc_fe).a
    bench = Bench(fe_p)
    job = interstitial._job(bcc_fe, a, "P", "octahedral")
    jobs = {("P", "octahedral"): job, ("P", "tetrahedral"): interstitial._job(bcc_fe, a, "P", "tetrahedral")}
    value = interstitial._difference(bench, bcc_fe, a, "P", jobs)
    assert not value.converged
    assert "P left its octahedral site" in value.reason
    assert value.value == pytest.approx(0.0, abs=2e-3)


@pytest.mark.parametrize("limit", ["sites", "band"])
def test_a_step_limit_is_named(ni_h, monkeypatch, limit):
    """Also in fcc, where the ends of the band are relaxed one by one."""
    options = Interstitial(elements=["H"], max_steps=2 if limit == "band" else 200)
    if limit == "sites":
        monkeypatch.setattr(interstitial, "MAX_STEPS", 1)
    found = by_name(interstitial.compute(Bench(ni_h), case_by_name("fcc-Ni"), 3.52, options))
    difference, barrier = found["oct_minus_tet(H)"], found["interstitial_migration_energy(H)"]
    assert not barrier.converged
    assert difference.converged == (limit == "band")
    if limit == "band":
        assert "the band stopped after 2 steps" in barrier.reason
    else:
        assert difference.reason == barrier.reason
        assert "H on the octahedral site: the relaxation stopped after 1 steps" in barrier.reason


def test_what_does_not_apply_is_a_record(fe, bcc_fe):
    values = interstitial.compute(Bench(fe), bcc_fe, 2.8553, Interstitial(elements=["C"]))
    assert [v.property for v in values] == ["oct_minus_tet(C)", "interstitial_migration_energy(C)"]
    assert all(v.value is None and "does not know C" in v.reason for v in values)
    silicon = interstitial.compute(Bench(fe), case_by_name("diamond-Si"), 5.43, Interstitial())
    assert len(silicon) == 6
    assert all("no octahedral site" in v.reason and not v.converged for v in silicon)
