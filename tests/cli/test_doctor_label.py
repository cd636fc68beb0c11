"""``aldriver doctor --recipe``: what it says of a label engine, and the test label it computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aldriver.cli.doctor import recipe_checks
from aldriver.core.recipe import load_recipe

RECIPE = {
    "name": "cu",
    "systems": [{"name": "bulk", "bulk": {"element": "Cu", "lattice": "fcc", "a": 3.61}}],
    "potential": "eam:Cu_mishin1.eam.alloy",
    "benchmark": {"cases": [{"name": "fcc-Cu", "element": "Cu", "lattice": "fcc", "a": 3.61}]},
}


@pytest.fixture
def checks(tmp_path: Path):
    def _checks(label: dict, *, test_label: bool = True):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(RECIPE | {"label": label}))
        found = recipe_checks(load_recipe(path), test_label=test_label)
        return {c.name: c for c in found}

    return _checks


EMT = {"engine": "ase", "ase": {"calculator": "ase.calculators.emt:EMT"}}


def test_a_ready_engine_computes_a_test_label(checks):
    found = checks(EMT)
    assert found["label engine ase"].ok
    assert "stand-in" in found["label engine ase"].detail
    assert found["test label"].ok
    assert found["test label"].detail.startswith("Cu in ")


def test_without_a_test_label_nothing_is_run(checks):
    assert "test label" not in checks(EMT, test_label=False)


def test_a_missing_engine_is_a_sentence_and_nothing_is_tried(checks):
    found = checks({"engine": "gpaw", "gpaw": {"command": "/no/such/python", "ecut_eV": 300}})
    assert not found["label engine gpaw"].ok
    assert "label.gpaw.command" in found["label engine gpaw"].detail
    assert "test label" not in found


def test_an_engine_that_fails_its_test_label(checks):
    arguments = {"engine": "ase", "ase": {"calculator": "ase.calculators.lj:LennardJones", "arguments": {"rc": "far"}}}
    found = checks(arguments)
    assert found["label engine ase"].ok
    assert not found["test label"].ok
    assert "failed" in found["test label"].detail
