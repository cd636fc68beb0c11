"""The benchmark of a campaign spread over tasks that share its store."""

import json

import pytest

from aldriver.benchmark.suite import run_suite
from aldriver.core.errors import InputError
from aldriver.core.store import publish, verify
from aldriver.workflow import control, stages
from aldriver.workflow.campaign import create
from aldriver.workflow.control import note_published
from aldriver.workflow.generation import generation_workflow
from aldriver.workflow.storing import records_of


def graph(workflow):
    """Parents of each task, by stage and index."""
    name = {fw.fw_id: (fw.spec["stage"], fw.spec["index"]) for fw in workflow.fws}
    parents = {n: set() for n in name.values()}
    for parent, children in workflow.links.items():
        for child in children:
            parents[name[child]].add(name[parent])
    return parents


def publish_json(folder, name, content):
    with publish(folder) as tmp:
        (tmp / name).write_text(json.dumps(content))


CASES = [{"name": "bcc-Fe", "element": "Fe", "lattice": "bcc", "a": 2.86, "supercell": [3, 3, 3]}]


def with_helpers(write_recipe, tmp_path, count=2):
    return create(write_recipe(benchmark={"cases": CASES, "helpers": count}), tmp_path / "campaign")


def trained(campaign, **result):
    """Generation 0 with the reference potential itself as the foundation."""
    from aldriver import load
    from aldriver.core.records import dumps
    from aldriver.potentials.bundle import save_bundle

    potential = load("chgnet:0.2.0")
    with publish(campaign.potential(potential.fingerprint)) as tmp:
        save_bundle(potential, tmp)
    facts = {"accepted": True, "reason": "", "fingerprint": potential.fingerprint, "e0_shift": None}
    with publish(campaign.stage(0, "train")) as tmp:
        (tmp / "result.json").write_text(dumps(facts | result))
    return potential


def test_helpers_come_between_training_and_benchmark(write_recipe, tmp_path):
    campaign = with_helpers(write_recipe, tmp_path)
    workflow = generation_workflow(campaign, 1)
    found = graph(workflow)
    helpers = {("relax", 0), ("relax", 1)}
    assert found["benchmark", None] == helpers
    assert all(found[h] == {("train", None)} for h in helpers)
    assert found["gate", None] == {("benchmark", None)}
    (gathering,) = [fw for fw in workflow.fws if fw.spec["stage"] == "benchmark"]
    assert gathering.spec["_allow_fizzled_parents"] is True


def test_what_is_done_is_not_put_on_the_launchpad_again(write_recipe, tmp_path):
    campaign = with_helpers(write_recipe, tmp_path)
    for stage in ("reference", "train"):
        publish_json(campaign.stage(0, stage), "result.json", {})
    publish_json(campaign.helper(0, 1), "made.json", {})
    assert set(graph(generation_workflow(campaign, 0))) == {("relax", 0), ("benchmark", None), ("gate", None)}
    publish_json(campaign.stage(0, "benchmark"), "records.json", [])
    assert set(graph(generation_workflow(campaign, 0))) == {("gate", None)}
    note_published(campaign)
    assert campaign.ledger.find("published", stage="relax", index=1)


def test_one_task_makes_the_relaxations_and_the_other_gathers_them(write_recipe, tmp_path, monkeypatch):
    campaign = with_helpers(write_recipe, tmp_path, count=1)
    potential = trained(campaign)
    stages.run_stage("relax", campaign, 0, 0)
    verify(campaign.helper(0, 0))
    (entry,) = campaign.ledger.find("published", stage="relax")
    assert entry["index"] == 0 and entry["seconds"] > 0

    from aldriver.benchmark import suite

    def refuse(*_, **__):
        raise AssertionError("the helper made it already")

    for protocol in suite.PROTOCOLS.values():
        monkeypatch.setattr(type(protocol), "compute", refuse, raising=False)
    stages.run_stage("benchmark", campaign, 0)
    records = json.loads((campaign.stage(0, "benchmark") / "records.json").read_text())
    assert len(records) == 9 and all(r["value"] is not None for r in records)
    again = run_suite(potential, campaign.recipe.benchmark, cache_dir=campaign.cache)
    assert [r.value for r in again] == [r["value"] for r in records]


def test_a_refused_training_has_nothing_to_relax(write_recipe, tmp_path):
    campaign = with_helpers(write_recipe, tmp_path)
    publish_json(
        campaign.stage(1, "train"), "result.json", {"accepted": False, "reason": "no better", "fingerprint": ""}
    )
    stages.run_stage("relax", campaign, 1, 0)
    assert json.loads((campaign.helper(1, 0) / "made.json").read_text()) == {"records": 0}


def test_a_campaign_goes_on_when_a_helper_breaks(stubs, write_recipe, tmp_path):
    campaign = with_helpers(write_recipe, tmp_path)
    (campaign.root / ".stub-misbehave").write_text("relax raise 1")
    control.launch(campaign.root)
    control.work(campaign.root)
    assert campaign.frontier() == (2, True)
    done = (campaign.root / ".stub-counts").read_text().splitlines()
    for generation in range(3):
        assert done.count(f"relax {generation} 0") == done.count(f"benchmark {generation}") == 1
    assert len(campaign.ledger.find("stage_failed", stage="relax")) == 3


def test_a_reference_made_before_judges_the_campaign(write_recipe, tmp_path):
    record = {"property": "c44", "case": "bcc-Fe", "value": 105.0, "unit": "GPa"}
    (tmp_path / "dft.json").write_text(json.dumps({"potential": "espresso: PBE", "records": [record]}))
    recipe = write_recipe(benchmark={"cases": CASES, "reference_file": "dft.json"})
    campaign = create(recipe, tmp_path / "campaign")
    stages.run_stage("reference", campaign, 0)
    (found,) = records_of(campaign, 0, "reference")
    assert (found.value, found.property) == (105.0, "c44")


def test_a_reference_that_is_not_there_is_said(write_recipe, tmp_path):
    campaign = create(write_recipe(benchmark={"cases": CASES, "reference_file": "gone.json"}), tmp_path / "campaign")
    with pytest.raises(InputError, match=r"gone\.json: not a result of `aldriver benchmark"):
        stages.run_stage("reference", campaign, 0)


def test_gate_rules_on_nothing_are_refused_at_the_start(write_recipe, tmp_path):
    campaign = create(write_recipe(gate={"must_have": ["binding_energy"]}), tmp_path / "campaign")
    with pytest.raises(InputError, match="the suite gives no 'binding_energy'"):
        stages.run_stage("reference", campaign, 0)
