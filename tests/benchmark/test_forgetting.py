from __future__ import annotations

import dataclasses

import pytest

from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.potentials.probe import probe_cells


def drift(potential, case="bcc-Fe", **options):
    settings = Benchmark(properties=["forgetting"], cases=[case], forgetting=options)
    return {r.property: r for r in run_suite(potential, settings, cache_dir=None)}


def test_a_potential_has_forgotten_nothing_of_itself(chgnet020):
    found = drift(chgnet020, foundation="chgnet:0.2.0")
    assert all(r.converged and r.value == pytest.approx(0.0, abs=1e-3) for r in found.values())
    assert found["forgetting_drift"].force_calls == len(probe_cells(exclude={"Fe"}))


def test_a_drift_of_known_size(chgnet020, changed):
    """All that hold titanium move by 0.1 eV/atom, iron by 5: only the first is forgetting."""

    def move(atoms, p):
        symbols = set(atoms.get_chemical_symbols())
        per_atom = 0.1 if "Ti" in symbols else 5.0 if "Fe" in symbols else 0.0
        return dataclasses.replace(p, energy=p.energy + per_atom * len(atoms))

    found = drift(changed(chgnet020, move), foundation="chgnet:0.2.0")
    moved = sum("Ti" in a.get_chemical_symbols() for a in probe_cells(exclude={"Fe"}))
    share = moved / len(probe_cells(exclude={"Fe"}))
    assert found["forgetting_drift(worst)"].value == pytest.approx(100.0, abs=0.1)
    assert found["forgetting_drift"].value == pytest.approx(100.0 * share**0.5, abs=0.1)
    excluded = drift(changed(chgnet020, move), foundation="chgnet:0.2.0", exclude=["Ti"])
    assert excluded["forgetting_drift"].value == pytest.approx(0.0, abs=1e-3)


def test_without_a_foundation_or_common_cells_is_a_reason(chgnet020, fe):
    for found, words in (
        (drift(fe), "benchmark.forgetting.foundation"),
        (drift(fe, foundation="nothing:here"), "nothing"),
        (drift(fe, foundation="chgnet:0.2.0"), "no cell of the probe in common"),
    ):
        assert all(r.value is None and words in r.reason for r in found.values())
