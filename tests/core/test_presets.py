"""Presets: each is a label block that loads; what a recipe says itself comes before them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aldriver.core.errors import InputError
from aldriver.core.presets import LABELS
from aldriver.core.recipe import load_recipe
from aldriver.core.recipe_label import Label

RECIPE = {
    "name": "fe",
    "systems": [{"name": "bulk", "bulk": {"element": "Fe", "lattice": "bcc", "a": 2.86}}],
    "potential": "chgnet:0.2.0",
    "benchmark": {"cases": [{"name": "bcc-Fe", "element": "Fe", "lattice": "bcc", "a": 2.86}]},
}


def recipe(folder: Path, label: dict) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"label": label}))
    return path


def test_there_are_presets_for_every_kind_of_work():
    wanted = {"qe_metal", "qe_semiconductor", "gpaw_metal", "gpaw_liquid", "cp2k_liquid", "tblite_liquid"}
    assert wanted <= set(LABELS.names())
    assert LABELS.where().parts[-2:] == ("recipes", "labels")


@pytest.mark.parametrize("name", LABELS.names())
def test_a_preset_is_a_whole_label_block_and_says_what_it_is_for(name):
    label = Label.model_validate({"preset": name})
    assert label.engine == LABELS.load(name)["engine"]
    assert (LABELS.where() / f"{name}.yaml").read_text().startswith("# ")


def test_keys_of_the_recipe_come_before_those_of_the_preset(tmp_path):
    own = {"preset": "qe_metal", "budget": 7, "espresso": {"kpoints": [4, 4, 4], "pseudopotentials": {"Al": "Al.UPF"}}}
    label = load_recipe(recipe(tmp_path, own)).label
    base = LABELS.load("qe_metal")["espresso"]
    assert (label.engine, label.budget, label.espresso.kpoints) == ("espresso", 7, (4, 4, 4))
    assert label.espresso.ecutwfc_Ry == base["ecutwfc_Ry"]
    assert label.espresso.pseudopotentials == base["pseudopotentials"] | {"Al": "Al.UPF"}


def test_a_frozen_recipe_keeps_its_numbers_whatever_becomes_of_the_preset(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("engine: calculator\nreference: eam:Fe_mm.eam.fs\nbudget: 9\n")
    first = load_recipe(recipe(tmp_path, {"preset": "mine.yaml"})).label
    frozen = first.model_dump(mode="json")
    preset.write_text("engine: calculator\nreference: eam:Cu_mishin1.eam.alloy\nbudget: 3\n")
    again = Label.model_validate(frozen)
    assert (again.reference, again.budget) == (first.reference, 9)


def test_a_preset_of_ones_own_lies_beside_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("label: {engine: calculator, reference: 'eam:Fe_mm.eam.fs'}\n")
    monkeypatch.chdir("/")
    assert load_recipe(recipe(tmp_path, {"preset": "mine.yaml"})).label.reference == "eam:Fe_mm.eam.fs"


def test_a_wrong_name_is_told_what_was_meant(tmp_path):
    with pytest.raises(InputError, match="did you mean 'qe_metal'"):
        load_recipe(recipe(tmp_path, {"preset": "qe_metall"}))
    with pytest.raises(InputError, match="no such file"):
        load_recipe(recipe(tmp_path, {"preset": "none.yaml"}))
    (tmp_path / "odd.yaml").write_text("- engine\n")
    with pytest.raises(InputError, match="a preset is the label block"):
        load_recipe(recipe(tmp_path, {"preset": "odd.yaml"}))


def test_a_preset_never_changes_the_block_that_names_it():
    block = {"preset": "qe_metal", "espresso": {"ecutwfc_Ry": 60}}
    merged = LABELS.complete(block)
    assert merged["espresso"]["ecutwfc_Ry"] == 60
    assert block == {"preset": "qe_metal", "espresso": {"ecutwfc_Ry": 60}}
