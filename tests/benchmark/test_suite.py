from __future__ import annotations

import dataclasses
import json
import sqlite3

import numpy as np
import pytest

from aldriver.benchmark import elastic, suite
from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.store import Store
from aldriver.benchmark.suite import run_suite
from aldriver.core.errors import InputError, StoreError
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.records import PropertyRecord

ALL = ["lattice", "eos", "elastic", "vacancy"]
NAMES = [
    "lattice_constant",
    "bulk_modulus_eos",
    "eos_volume",
    "c11",
    "c12",
    "c44",
    "c_prime",
    "bulk_modulus",
    "vacancy_formation_energy",
]


@pytest.fixture
def settings(bcc_fe):
    return Benchmark(properties=ALL, cases=[bcc_fe])


def values(records):
    return {r.property: r.value for r in records}


def test_the_whole_suite(fe, settings, bcc_fe):
    seen = []
    records = run_suite(fe, settings, cache_dir=None, on_record=seen.append)
    assert records == seen
    assert [r.property for r in records] == NAMES
    assert all(r.converged and r.value is not None and r.reason == "" for r in records)
    assert all(r.force_calls > 0 and r.atom_calls > 0 and r.seconds > 0 and r.case == "bcc-Fe" for r in records)
    assert {r.protocol for r in records} == {"lattice/1", "eos/1", "elastic/1", "vacancy/1 3x3x3"}
    by_name = {r.property: r for r in records}
    assert by_name["lattice_constant"].unit == "Å"
    assert by_name["c11"].unit == "GPa"
    assert by_name["vacancy_formation_energy"].unit == "eV"
    vacancy = by_name["vacancy_formation_energy"]
    assert vacancy.atom_calls == 54 + 53 * (vacancy.force_calls - 1)


def test_published_iron(fe, settings):
    found = values(run_suite(fe, settings, cache_dir=None))
    assert found["lattice_constant"] == pytest.approx(2.855, abs=5e-4)
    assert found["bulk_modulus_eos"] == pytest.approx(177, abs=0.5)
    assert found["bulk_modulus"] == pytest.approx(177.8, abs=0.5)  # (243.4 + 2 × 145.0)/3
    assert found["vacancy_formation_energy"] == pytest.approx(1.72, abs=0.005)


def test_only_what_was_asked_for(fe, bcc_fe):
    records = run_suite(fe, Benchmark(properties=["elastic"], cases=[bcc_fe]), cache_dir=None)
    assert {r.property for r in records} == set(elastic.PROPERTIES)


def test_a_cache_hit_takes_no_force_call(fe, changed, settings, tmp_path):
    counted = changed(fe, lambda _, p: p)
    first = run_suite(counted, settings, cache_dir=tmp_path)
    spent, counted.calls = counted.calls, 0
    again = run_suite(counted, settings, cache_dir=tmp_path)
    assert (spent > 0, counted.calls) == (True, 0)
    assert again == first


def test_the_shared_lattice_is_computed_once(fe, changed, settings):
    counted = changed(fe, lambda _, p: p)
    records = {r.property: r for r in run_suite(counted, settings, cache_dir=None)}
    once = ("lattice_constant", "eos_volume", "c11", "c44", "vacancy_formation_energy")
    assert counted.calls == sum(records[name].force_calls for name in once)


def test_another_potential_or_supercell_is_not_in_the_cache(fe, changed, settings, bcc_fe, tmp_path):
    run_suite(fe, settings, cache_dir=tmp_path)
    other = changed(fe, lambda _, p: p)
    run_suite(other, settings, cache_dir=tmp_path)
    assert other.calls > 0
    other.calls = 0
    larger = bcc_fe.model_copy(update={"supercell": (2, 2, 3)})
    run_suite(other, Benchmark(properties=ALL, cases=[larger]), cache_dir=tmp_path)
    records = run_suite(other, Benchmark(properties=["vacancy"], cases=[larger]), cache_dir=tmp_path)
    assert other.calls == records[0].force_calls  # the vacancy alone, and once


def test_another_protocol_version_is_computed_again(fe, changed, settings, tmp_path, monkeypatch):
    counted = changed(fe, lambda _, p: p)
    run_suite(counted, settings, cache_dir=tmp_path)
    counted.calls = 0
    newer = dataclasses.replace(suite.PROTOCOLS["eos"], version=2)
    monkeypatch.setitem(suite.PROTOCOLS, "eos", newer)
    run_suite(counted, settings, cache_dir=tmp_path)
    assert counted.calls == 11


def test_a_kill_loses_one_property_at_most(fe, changed, settings, tmp_path):
    def killed_at_the_vacancy(atoms, p):
        if len(atoms) > 10:
            raise KeyboardInterrupt
        return p

    with pytest.raises(KeyboardInterrupt):
        run_suite(changed(fe, killed_at_the_vacancy), settings, cache_dir=tmp_path)
    resumed = changed(fe, lambda _, p: p)
    records = run_suite(resumed, settings, cache_dir=tmp_path)
    assert resumed.calls == records[-1].force_calls


def test_a_damaged_cache_file_is_computed_again(fe, settings, tmp_path):
    first = run_suite(fe, settings, cache_dir=tmp_path)
    (tmp_path / "benchmark.sqlite").write_bytes(b"not a database" * 100)
    assert values(run_suite(fe, settings, cache_dir=tmp_path)) == pytest.approx(values(first))
    assert len(list(tmp_path.glob("benchmark.sqlite.damaged-*"))) == 1  # nothing is thrown away


def test_a_failing_property_is_a_record_with_a_reason(fe, changed, settings, tmp_path):
    def fails_on_large_cells(atoms, p):
        if len(atoms) > 10:
            raise RuntimeError("out of memory\n  in the graph")
        return p

    potential = changed(fe, fails_on_large_cells)
    records = {r.property: r for r in run_suite(potential, settings, cache_dir=tmp_path)}
    vacancy = records.pop("vacancy_formation_energy")
    assert (vacancy.value, vacancy.converged) == (None, False)
    assert vacancy.reason == "out of memory in the graph"
    assert vacancy.force_calls == 1
    assert all(r.converged for r in records.values())
    potential.change = lambda _, p: p  # what failed is tried again
    assert run_suite(potential, settings, cache_dir=tmp_path)[-1].value == pytest.approx(1.72, abs=0.01)


def test_nan_never_passes_as_a_value(fe, changed, settings):
    broken = changed(fe, lambda _, p: dataclasses.replace(p, stress=np.full(6, np.nan)))
    records = run_suite(broken, settings, cache_dir=None)
    assert [r.property for r in records] == NAMES
    assert all(r.value is None and not r.converged for r in records)
    assert "stress that is not finite" in records[0].reason
    assert all("lattice constant" in r.reason for r in records[1:])


def test_an_unconverged_lattice_keeps_the_rest_from_being_computed(fe, changed, settings):
    pushed = changed(fe, lambda _, p: dataclasses.replace(p, stress=np.full(6, -0.1)))
    records = run_suite(pushed, settings, cache_dir=None)
    assert [r.converged for r in records] == [False] * len(NAMES)
    assert records[0].value is not None  # shown, never trusted
    assert all(r.value is None and "25%" in r.reason and r.force_calls == 0 for r in records[1:])


def test_a_reference_has_units_of_what_is_not_asked_for_too(bcc_fe):
    found = suite.units(Benchmark(properties=["lattice"], cases=[bcc_fe]))
    assert found["bcc-Fe", "bulk_modulus_eos"] == "GPa"
    assert found["bcc-Fe", "vacancy_formation_energy"] == "eV"


def test_an_unknown_element_is_bad_input(fe):
    with pytest.raises(InputError, match="does not know the element Cu"):
        run_suite(fe, Benchmark(cases=[case_by_name("fcc-Cu")]), cache_dir=None)


def test_a_full_disk_is_said(fe, settings, tmp_path, monkeypatch):
    def full(self):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "_open", full)
    with pytest.raises(StoreError, match="disk is full"):
        run_suite(fe, settings, cache_dir=tmp_path)


def test_records_are_json(fe, settings):
    from aldriver.core.records import dumps

    keys = set(json.loads(dumps(run_suite(fe, settings, cache_dir=None)))[0])
    assert keys == {f.name for f in dataclasses.fields(PropertyRecord)}
