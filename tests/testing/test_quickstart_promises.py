"""The quickstart's promises: kept ones pass, and each broken one is named."""

from __future__ import annotations

import json

import pytest

from aldriver.testing.quickstart import check

REFERENCE = {"bulk_modulus": 177.8, "bulk_modulus_eos": 177.0, "vacancy_formation_energy": 1.722}


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def records(values, converged=True):
    return [{"property": k, "value": v, "converged": converged} for k, v in values.items()]


@pytest.fixture
def campaign(tmp_path):
    def build(*, values=None, rmse=30.0, labels=60, decisions=("promote", "promote", "hold"), reason="why"):
        best = max(g for g, d in enumerate(decisions) if d == "promote")
        for g, decision in enumerate(decisions):
            folder = tmp_path / f"generation-{g:03d}"
            write(folder / "gate" / "decision.json", {"generation": g, "decision": decision, "reason": reason})
            error = rmse if g == best else 10 * rmse
            write(folder / "benchmark" / "evaluation.json", {"test": {"forces_rmse_meV_A": error}})
            write(folder / "benchmark" / "records.json", records(REFERENCE | (values or {})))
        write(tmp_path / "generation-000" / "reference" / "records.json", records(REFERENCE))
        for i in range(labels):
            write(tmp_path / "labels" / str(i) / "label.json", {})
        return tmp_path

    return build


def broken(folder):
    return [p.name for p in check(folder) if not p.kept]


def test_all_kept(campaign):
    assert broken(campaign()) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"values": {"bulk_modulus": 170.0}}, "bulk_modulus"),
        ({"values": {"bulk_modulus_eos": 183.0}}, "bulk_modulus_eos"),
        ({"values": {"vacancy_formation_energy": 1.66}}, "vacancy_formation_energy"),
        ({"rmse": 40.5}, "force RMSE"),
        ({"labels": 61}, "labels"),
        ({"reason": ""}, "generation 2"),
    ],
)
def test_each_broken_promise_is_named(campaign, change, name):
    assert broken(campaign(**change)) == [name]
