"""Tasks that need a Python of their own: where they are placed, and who does them."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from aldriver.core import config
from aldriver.core.errors import InputError
from aldriver.workflow.campaign import create
from aldriver.workflow.environments import category_of, elsewhere, pythons
from aldriver.workflow.generation import generation_workflow
from aldriver.workflow.launchpad import session
from aldriver.workflow.run import run

NEEDS = {"baseline", "explore", "select", "train", "benchmark"}
needs_sevenn_elsewhere = pytest.mark.skipif(
    importlib.util.find_spec("sevenn") is not None, reason="here sevenn needs no other Python"
)


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """This very Python as that of SevenNet: enough where stages are stubs."""
    path = tmp_path / "aldriver.toml"
    path.write_text(f'[backends.sevennet]\npython = "{sys.executable}"\n')
    monkeypatch.setenv("ALDRIVER_CONFIG", str(path))


def categories(campaign, generation):
    workflow = generation_workflow(campaign, generation)
    return {fw.spec["stage"]: fw.spec.get("_category") for fw in workflow.fws}


def test_stages_that_need_the_potential_get_its_category(write_recipe, tmp_path):
    campaign = create(write_recipe(potential="sevennet:7net-0"), tmp_path / "c")
    found = categories(campaign, 0) | categories(campaign, 1)
    assert {stage for stage, category in found.items() if category == "sevennet"} == NEEDS
    assert {found["gate"], found["reference"]} == {None}


def test_other_potentials_need_none(campaign):
    assert set((categories(campaign, 0) | categories(campaign, 1)).values()) == {None}


def test_the_recipe_goes_first(write_recipe, tmp_path):
    resources = {"categories": {"explore": "gpu"}, "queue": {"sevennet": {"account": "x"}}}
    campaign = create(write_recipe(potential="sevennet:7net-0", resources=resources), tmp_path / "c")
    found = categories(campaign, 1)
    assert (found["explore"], found["train"]) == ("gpu", "sevennet")
    specs = {fw.spec["stage"]: fw.spec for fw in generation_workflow(campaign, 1).fws}
    assert specs["train"]["_queueadapter"]["account"] == "x"


def test_a_reference_may_need_one_too(write_recipe, tmp_path):
    label = {"engine": "calculator", "reference": "sevennet:7net-0", "budget": 4}
    campaign = create(write_recipe(label=label), tmp_path / "c")
    recipe = campaign.recipe
    assert {s for s in (*NEEDS, "reference", "label", "collect", "gate") if category_of(recipe, s)} == {
        "reference",
        "label",
    }


def test_the_family_of_a_saved_potential_is_read_from_its_config(write_recipe, tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "config.json").write_text('{"family": "sevennet"}')
    campaign = create(write_recipe(potential=str(folder)), tmp_path / "c")
    assert categories(campaign, 1)["train"] == "sevennet"


@needs_sevenn_elsewhere
def test_a_missing_python_is_said_before_anything_is_started(write_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("ALDRIVER_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setattr(config, "__file__", str(tmp_path / "aldriver" / "core" / "config.py"))
    campaign = create(write_recipe(potential="sevennet:7net-0"), tmp_path / "c")
    with pytest.raises(InputError, match="make setup-sevennet"):
        run(campaign.root)
    assert not (campaign.root / "logs").exists()


@needs_sevenn_elsewhere
def test_each_kind_of_worker_does_its_own_tasks_only(configured, stubs, write_recipe, tmp_path):
    campaign = create(write_recipe(potential="sevennet:7net-0", stop={"generations": 1}), tmp_path / "c")
    assert elsewhere() == ["sevennet"] and set(pythons(campaign.recipe)) == {"sevennet"}
    events = []
    outcome = run(campaign.root, on_event=events.append)
    assert outcome.state == "finished", outcome.reason
    assert not [e for e in events if e["event"] == "warning"]
    with session() as lp:
        stage = {fw["fw_id"]: fw["spec"]["stage"] for fw in lp.fireworks.find({"spec.campaign": campaign.id})}
        done = {
            (stage[one["fw_id"]], one["fworker"]["category"]) for one in lp.launches.find() if one["fw_id"] in stage
        }
    assert {s for s, category in done if category == "sevennet"} == NEEDS
    assert {s for s, category in done if not category} == {"reference", "label", "collect", "gate"}
    logs = {p.name for p in (campaign.root / "logs").iterdir()}
    assert {"worker-0.log", "worker-1.log", "worker-sevennet-0.log", "worker-sevennet-1.log"} <= logs
