"""The suites that come with aldriver, the plan of a suite, and where each worker begins."""

from __future__ import annotations

import pytest

from aldriver.benchmark import suite
from aldriver.benchmark.plan import PlanningBench
from aldriver.benchmark.reference import published_targets
from aldriver.benchmark.suite import relaxations, run_suite, units
from aldriver.core.presets import SUITES
from aldriver.core.recipe import load_suite
from aldriver.core.recipe_benchmark import Benchmark

TEN_LINES = """
benchmark:
  properties: [lattice, elastic, vacancy, binding]
  binding: {solutes: [vac, Re, Ta]}
  cases:
    - name: bcc-W
      element: W
      lattice: bcc
      a: 3.17
      supercell: [3, 3, 3]
"""


THERMAL = {"ti-alloy": {"lattice", "elastic", "phonon", "qha"}, "liquid": {"lattice", "liquid", "melting"}}


@pytest.mark.parametrize("name", THERMAL)
def test_thermal_suites(name):
    settings = load_suite(name)
    assert set(settings.properties) == THERMAL[name]
    assert {case for case, _ in units(settings)} == {case.name for case in settings.cases}


def test_the_phases_of_titanium():
    assert [case.lattice for case in load_suite("ti-alloy").cases] == ["hcp", "bcc", "omega"]


@pytest.mark.parametrize("name", sorted(set(SUITES.names()) - set(THERMAL)))
def test_every_suite_is_valid_and_compares_with_published_values(name):
    settings = load_suite(name)
    assert {"lattice", "elastic", "vacancy"} <= set(settings.properties)
    for case in settings.cases:
        assert published_targets([case.name]), f"no reference for {case.name}"
    assert set(units(settings)) >= {(c.name, "vacancy_formation_energy") for c in settings.cases}


def test_the_suites_hold_the_crystals_of_their_papers():
    elements = {case.element: case.lattice for case in load_suite("elements").cases}
    assert elements == {"Li": "bcc", "Mo": "bcc", "Ni": "fcc", "Cu": "fcc", "Si": "diamond", "Ge": "diamond"}
    (iron,) = load_suite("fe-steel").cases
    assert 2 * iron.supercell[0] * iron.supercell[1] * iron.supercell[2] == 128


def test_solutes_are_those_of_the_papers():
    """Mohandas et al. 2026: 11 elements and the vacancy in 5 shells; of Fang et al. 2026 the 20 elements, and 3 shells."""
    steel, molybdenum = load_suite("fe-steel"), load_suite("mo-dilute")
    names = [name for _, name in units(steel) if name.startswith("binding_energy")]
    assert (len(names), len(set(names))) == (390, 390)
    assert {"binding_energy(vac-Sn,1)", "binding_energy(Cu-Ni,2)"} <= set(names)
    assert (len(molybdenum.binding.solutes), molybdenum.binding.shells) == (21, 3)


def test_a_host_of_one_s_own_takes_ten_lines(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text(TEN_LINES)
    assert len(TEN_LINES.split("\n")) <= 13
    settings = load_suite(path)
    assert settings.cases[0].element == "W"
    assert ("bcc-W", "binding_energy(vac-Re,1)") in units(settings)


def test_relaxations_are_foreseen_without_a_potential(fe, bcc_fe):
    settings = Benchmark(properties=["lattice", "eos", "elastic", "vacancy"], cases=[bcc_fe])
    seen = []
    run_suite(fe, settings, cache_dir=None, on_relaxation=lambda *what: seen.append(what))
    assert relaxations(settings) == 2  # the perfect supercell and the one with the vacancy
    assert [(done, total) for done, total, _ in seen] == [(1, 2), (2, 2)]
    assert "vacancy" in seen[-1][2]


def test_what_cannot_be_foreseen_is_counted_when_it_comes(fe, bcc_fe, monkeypatch):
    monkeypatch.setattr(suite, "relaxations", lambda settings: 1)
    seen = []
    settings = Benchmark(properties=["vacancy"], cases=[bcc_fe])
    run_suite(fe, settings, cache_dir=None, on_relaxation=lambda *what: seen.append(what[:2]))
    assert seen == [(1, 1), (2, 2)]


def test_planning_is_undisturbed_by_what_a_property_does_with_its_numbers(bcc_fe):
    def compute(bench, case):
        bench.energy(suite.conventional_cell(case), "one")
        bench.energy(suite.conventional_cell(case), "one")
        raise ZeroDivisionError

    bench = PlanningBench()
    bench.foresee(compute, bcc_fe)
    assert len(bench.asked) == 1


def test_workers_begin_elsewhere_and_give_the_same_records(fe, bcc_fe, tmp_path):
    settings = Benchmark(properties=["lattice", "eos", "elastic", "vacancy"], cases=[bcc_fe])
    order: list[list[str]] = []
    results = []
    for worker in range(2):
        seen: list[str] = []
        found = run_suite(
            fe, settings, cache_dir=tmp_path, worker=worker, workers=2, on_record=lambda r, s=seen: s.append(r.property)
        )
        order.append(seen)
        results.append([(r.property, r.value) for r in found])
    assert order[0][0] == "lattice_constant"
    assert order[1][0] == "c11"
    assert results[0] == results[1]


def test_files_of_a_suite_lie_beside_it(tmp_path, monkeypatch):
    text = "benchmark: {properties: [errors], cases: [bcc-Fe], errors: {frames: {bcc-Fe: dft.extxyz}}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_suite("../mine.yaml").errors.frames == {"bcc-Fe": tmp_path / "dft.extxyz"}
