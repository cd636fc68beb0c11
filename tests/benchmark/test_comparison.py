"""Potentials side by side."""

from __future__ import annotations

import json

import pytest

from aldriver.benchmark.comparison import (
    Candidate,
    by_shell,
    compare,
    published_candidates,
    read_candidate,
    shells,
    targets_of,
)
from aldriver.benchmark.reference import Target, contradictions, published_targets
from aldriver.core.errors import InputError
from aldriver.core.records import PropertyRecord, dumps

REFERENCE = {
    ("bcc-Fe", "c44"): Target(value=100.0, unit="GPa", source="DFT"),
    ("bcc-Fe", "vacancy_formation_energy"): Target(value=2.0, unit="eV", source="DFT"),
}


def record(name, value, *, case="bcc-Fe", unit="GPa", **options):
    return PropertyRecord(property=name, case=case, value=value, unit=unit, **options)


def candidate(name, c44=100.0, ef=2.0, **options):
    rows = [record("c44", c44), record("vacancy_formation_energy", ef, unit="eV", error=0.001, **options)]
    return Candidate(name=name, records=rows)


def test_values_errors_deviations_and_scores():
    found = compare([candidate("a"), candidate("b", c44=50.0)], REFERENCE)
    assert found.candidates == ["a", "b"]
    c44, ef = found.rows
    assert (c44.reference.value, c44.cells["b"].value, c44.cells["b"].score) == (100.0, 50.0, 0.0)
    assert c44.cells["b"].deviation == pytest.approx(-0.5)
    assert ef.cells["a"].error == 0.001
    assert (found.scores["a"].value, found.scores["b"].value) == (1.0, 0.5)
    assert found.merit == {"a": 1.0, "b": 0.5}
    assert found.warnings == []


def test_another_generation_moves_no_score():
    before = compare([candidate("a", c44=80.0)], REFERENCE).scores["a"]
    more = Candidate(name="b", records=[*candidate("b").records, record("c11", 240.0)])
    assert compare([candidate("a", c44=80.0), more], REFERENCE).scores["a"] == before


def test_a_failed_property_is_shown_with_its_reason_and_scores_nothing():
    bad = candidate("bad", ef=1.9, converged=False, reason="stopped after 300 steps")
    none = Candidate(name="none", records=[record("c44", None, converged=False, reason="C' < 0")])
    found = compare([bad, none], REFERENCE)
    cell = found.rows[1].cells["bad"]
    assert (cell.value, cell.deviation, cell.score, cell.reason) == (1.9, None, 0.0, "stopped after 300 steps")
    assert found.rows[0].cells["none"].reason == "C' < 0"
    assert found.rows[1].cells["none"] is None  # not asked for, so not held against it
    assert found.scores["bad"].missing == 1
    assert found.scores["none"].value == 0.0


def test_what_has_no_reference_is_said():
    found = compare([Candidate(name="a", records=[record("c44", 1.0), record("c11", 1.0)])], REFERENCE)
    assert found.warnings == ["no reference, so not judged: c11 of bcc-Fe"]
    assert found.rows[1].cells["a"].score is None
    assert found.scores["a"].judged == 1


def test_the_published_values_are_the_default_reference():
    found = compare([candidate("a"), *published_candidates(["bcc-Fe"])])
    chgnet = found.rows[1].cells["chgnet:0.2.0 (published)"]
    assert chgnet.value == 0.73
    assert chgnet.deviation == pytest.approx((0.73 - 2.19) / 2.19)
    assert "Mohandas" in found.rows[1].reference.source
    assert found.merit["chgnet:0.2.0 fine-tuned (Mohandas 2026) (published)"] > found.merit["chgnet:0.2.0 (published)"]


def test_sources_that_contradict_themselves_judge_nobody():
    assert ("bcc-Fe", "c11") not in published_targets(["bcc-Fe"])  # only the contradictory set prints it
    assert any("contradicts itself" in text for text in contradictions(["bcc-Fe"]))
    assert any("3.25 and 3.67 eV" in text for text in contradictions(["diamond-Si"]))
    assert contradictions(["fcc-Ni"]) == []


def test_measured_records_are_a_reference_where_they_can_be_trusted():
    records = [record("c44", 99.0, error=0.5), record("c11", 1.0, converged=False), record("c12", None)]
    assert targets_of(records, "espresso") == {
        ("bcc-Fe", "c44"): Target(value=99.0, unit="GPa", error=0.5, source="espresso")
    }


def test_what_is_compared_must_differ_in_name():
    with pytest.raises(InputError, match="called 'a'"):
        compare([candidate("a"), candidate("a")], REFERENCE)
    with pytest.raises(InputError, match="nothing to compare"):
        compare([], REFERENCE)


def test_results_of_the_command_are_read_back(tmp_path):
    path = tmp_path / "fe.json"
    path.write_text(dumps({"potential": "eam", "fingerprint": "f" * 16, "records": candidate("eam").records}))
    assert read_candidate(path) == candidate("eam")
    for broken in ("[1]", "{}", json.dumps({"potential": "x", "records": [{"value": 1}]}), "no json"):
        path.write_text(broken)
        with pytest.raises(InputError, match="not a result of `aldriver benchmark"):
            read_candidate(path)


def test_shells_of_a_pair_are_one_line_unless_there_is_more_to_say():
    names = ["c11", *(f"binding_energy(Cu-Ni,{k})" for k in (1, 2, 3)), "binding_energy(vac-Cu,1)"]
    left = record("binding_energy(vac-Cu,2)", None, converged=False, reason="left its shell")
    records = [*(record(n, 0.1) for n in names), left]
    found = compare([Candidate(name="a", records=records)])
    lines = by_shell(found.rows)
    assert [shells(line) for line in lines] == [
        "c11",
        "binding_energy(Cu-Ni,1-3)",
        "binding_energy(vac-Cu,1)",
        "binding_energy(vac-Cu,2)",
    ]
    judged = compare(
        [Candidate(name="a", records=records)],
        {("bcc-Fe", "binding_energy(Cu-Ni,2)"): Target(value=0.2, unit="eV", source="DFT")},
    )
    assert [len(line) for line in by_shell(judged.rows)] == [1] * 6
