"""Vacancy migration against published barriers, and what must not pass as one."""

from __future__ import annotations

import numpy as np
import pytest

from aldriver.benchmark import migration
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name, conventional_cell, supercell
from aldriver.benchmark.migration import vacancy_hop
from aldriver.benchmark.plan import PlanningBench
from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_hopping import Migration

A_FE, A_CU = 2.8553, 3.615


@pytest.mark.parametrize("name", ["bcc-Fe", "fcc-Cu", "diamond-Si"])
def test_the_hop_is_to_a_first_neighbour_and_its_ends_are_images_of_each_other(name):
    case = case_by_name(name)
    hop = vacancy_hop(PlanningBench(), case, case.a)
    moved = hop.end.positions - hop.start.positions
    far = np.linalg.norm(moved, axis=1)
    assert (far > 0.5).sum() == 1
    bond = np.sort(supercell(case, case.a).get_distances(0, range(1, 20), mic=True))[0]
    assert far.max() == pytest.approx(bond, abs=0.15)  # diamond starts rattled
    assert hop.exchange.partners(hop.start, hop.end) is not None


def test_iron(fe):
    """Mendelev 2003, potential 2: 0.63 to 0.64 eV, as we know it; and the same with a finer band."""
    (value,) = migration.compute(Bench(fe), case_by_name("bcc-Fe"), A_FE, Migration())
    assert (value.converged, value.reason) == (True, "")
    assert value.value == pytest.approx(0.63, abs=0.01)
    assert value.error < 1e-3
    assert value.cost.force_calls < 120
    (fine,) = migration.compute(Bench(fe), case_by_name("bcc-Fe"), A_FE, Migration(images=9))
    assert fine.converged and fine.value == pytest.approx(value.value, abs=5e-3)


def test_copper(cu, fcc_cu):
    (value,) = migration.compute(Bench(cu), fcc_cu, A_CU, Migration())
    assert value.value == pytest.approx(0.69, abs=5e-3)  # Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021), Table 1
    assert value.converged


def test_too_few_images_do_not_pass(fe, bcc_fe):
    """The path in iron has two humps: three images sit beside and between them, free of forces, and see neither."""
    (few,) = migration.compute(Bench(fe), bcc_fe, A_FE, Migration(images=3))
    (enough,) = migration.compute(Bench(fe), bcc_fe, A_FE, Migration(images=7))
    assert enough.converged
    assert few.value < enough.value - 0.05
    assert not few.converged
    assert "too few images" in few.reason


def test_a_band_that_stopped_does_not_pass(cu, fcc_cu):
    (value,) = migration.compute(Bench(cu), fcc_cu, A_CU, Migration(max_steps=2))
    assert not value.converged
    assert "the band stopped after 2 steps" in value.reason


def test_the_vacancy_is_relaxed_once(cu, fcc_cu):
    from aldriver.benchmark import vacancy

    bench = Bench(cu)
    vacancy.compute(bench, fcc_cu, A_CU)
    before = bench.there
    migration.compute(bench, fcc_cu, A_CU, Migration())
    assert bench.there == before + 1  # the band


def test_a_potential_that_tells_the_ends_apart_is_named(cu, fcc_cu, changed):
    """Ends that must be equivalent and are not: half a band would be a lie."""
    import dataclasses

    middle = conventional_cell(fcc_cu, A_CU).repeat(3).get_center_of_mass()

    def tilt(atoms, p):
        return dataclasses.replace(p, energy=p.energy + 0.05 * float((atoms.positions[:5] - middle).sum()))

    potential = changed(cu, tilt)
    (value,) = migration.compute(Bench(potential), fcc_cu, A_CU, Migration())
    assert not value.converged
    assert "the two ends must be equivalent" in value.reason


def test_it_is_foreseen(bcc_fe):
    """The perfect cell, the vacancy and the band."""
    bench = PlanningBench()
    migration.compute(bench, bcc_fe, A_FE, Migration())
    assert len(bench.asked) == 3


def test_hexagonal_crystals_have_a_record(fe):
    settings = Benchmark(properties=["migration", "self_interstitial"], cases=["hcp-Fe"])
    records = run_suite(fe, settings, cache_dir=None)
    assert [r.property for r in records] == ["vacancy_migration_energy", "self_interstitial_energy"]
    assert all(r.value is None and "hcp-Fe is hexagonal" in r.reason for r in records)


def test_options_are_checked():
    with pytest.raises(ValueError, match="odd number"):
        Migration(images=4)
