import json
import socket
import subprocess
import sys

import pytest

from aldriver.core.errors import CampaignBusyError
from aldriver.core.store import publish
from aldriver.workflow import control
from aldriver.workflow.campaign import create, lock
from aldriver.workflow.generation import ensure_generation, generation_workflow, labels_workflow
from aldriver.workflow.launchpad import session
from aldriver.workflow.tasks import LABEL_ATTEMPTS


def publish_json(folder, name, content):
    with publish(folder) as tmp:
        (tmp / name).write_text(json.dumps(content))


def graph(workflow):
    """Parents of each task, by stage and index."""
    name = {fw.fw_id: (fw.spec["stage"], fw.spec["index"]) for fw in workflow.fws}
    parents = {n: set() for n in name.values()}
    for parent, children in workflow.links.items():
        for child in children:
            parents[name[child]].add(name[parent])
    return parents


def add(launchpad, campaign, generation):
    with lock(campaign):
        return ensure_generation(launchpad, campaign, generation)


def counts(campaign):
    lines = (campaign.root / ".stub-counts").read_text().splitlines()
    return {line: lines.count(line) for line in lines if not line.startswith(("label-start", "died"))}


def test_generation_zero_is_the_baseline(campaign):
    assert graph(generation_workflow(campaign, 0)) == {
        ("reference", None): set(),
        ("baseline", None): {("reference", None)},
        ("benchmark", None): {("baseline", None)},
        ("gate", None): {("benchmark", None)},
    }


def test_a_generation_explores_then_selects_trains_and_decides(campaign):
    walkers = {("explore", 0), ("explore", 1)}
    assert graph(generation_workflow(campaign, 1)) == {w: set() for w in walkers} | {
        ("select", None): walkers,
        ("train", None): {("select", None)},
        ("benchmark", None): {("train", None)},
        ("gate", None): {("benchmark", None)},
    }


def test_what_is_published_is_left_out(campaign):
    publish_json(campaign.walker(1, 0), "result.json", {})
    assert ("explore", 0) not in graph(generation_workflow(campaign, 1))
    publish_json(campaign.stage(1, "select"), "selection.json", {})
    # the selection's task stays, for it makes the labels
    assert set(graph(generation_workflow(campaign, 1))) == {(s, None) for s in ("select", "train", "benchmark", "gate")}
    publish_json(campaign.stage(1, "label"), "labels.json", [])
    publish_json(campaign.stage(1, "train"), "result.json", {})
    assert graph(generation_workflow(campaign, 1)) == {
        ("benchmark", None): set(),
        ("gate", None): {("benchmark", None)},
    }
    assert labels_workflow(campaign, 1) is None


def test_specs_carry_references_only(campaign):
    for fw in generation_workflow(campaign, 1).fws:
        assert {k for k in fw.spec if not k.startswith("_")} == {"campaign", "dir", "generation", "index", "stage"}
        assert fw.tasks[0].fw_name.startswith("{{aldriver.workflow.tasks.")  # `rlaunch` finds it by this name


def test_categories_and_queues_follow_the_recipe(write_recipe, tmp_path):
    resources = {
        "categories": {"label": "dft", "train": "gpu"},
        "queue": {"dft": {"nodes": 4, "walltime": "12:00:00"}},
        "walltime_s": 7200,
    }
    campaign = create(write_recipe(resources=resources), tmp_path / "c")
    by_stage = {fw.spec["stage"]: fw.spec for fw in generation_workflow(campaign, 1).fws}
    assert by_stage["train"]["_category"] == "gpu"
    assert by_stage["train"]["_queueadapter"]["walltime"] == "02:00:00"
    assert "_category" not in by_stage["explore"] and "_category" not in by_stage["gate"]
    assert {fw.spec["stage"]: fw.spec for fw in generation_workflow(campaign, 0).fws}["baseline"]["_category"] == "gpu"


def test_work_goes_through_all_generations_once(stubs, campaign):
    assert control.launch(campaign.root)["added"]
    assert not control.launch(campaign.root)["added"]
    assert control.work(campaign.root) == 4 + 2 * (2 + 1 + 3 + 1 + 3)
    assert campaign.frontier() == (2, True)
    assert set(counts(campaign).values()) == {1}
    (finished,) = campaign.ledger.find("finished")
    assert finished["promoted"] == "fp2"
    assert not control.resume(campaign.root)["generation"] > 2
    assert len(campaign.ledger.find("finished")) == 1


def test_a_rerun_of_any_task_appends_nothing_and_computes_nothing(stubs, campaign):
    control.launch(campaign.root)
    control.work(campaign.root)
    before = counts(campaign)
    with session() as lp:
        mine = {"spec.campaign": campaign.id}
        total = lp.fireworks.count_documents(mine)
        for stage in ("gate", "label", "explore"):
            fw = lp.fireworks.find_one({**mine, "spec.stage": stage, "spec.generation": 1}, {"fw_id": 1})
            lp.rerun_fw(fw["fw_id"])
            assert control.work_loop(lp, campaign) >= 1
        assert lp.workflows.count_documents({"metadata.campaign": campaign.id}) == 3
        assert lp.fireworks.count_documents(mine) == total
        assert lp.fireworks.count_documents({**mine, "state": {"$ne": "COMPLETED"}}) == 0
    assert counts(campaign) == before


def test_a_failed_label_task_does_not_stop_its_siblings(stubs, campaign):
    (campaign.root / ".stub-misbehave").write_text("label raise 1")
    control.launch(campaign.root)
    control.work(campaign.root)
    assert campaign.frontier() == (2, True)
    fates = [f["status"] for f in json.loads((campaign.stage(1, "label") / "labels.json").read_text())]
    assert fates == ["ok", "failed", "ok"]
    assert len(campaign.ledger.find("stage_failed", stage="label")) == 2 * LABEL_ATTEMPTS


def test_a_label_task_that_broke_before_it_had_a_value_is_tried_again(stubs, campaign):
    (campaign.root / ".stub-misbehave").write_text("label raise-once 1")
    control.launch(campaign.root)
    control.work(campaign.root)
    assert campaign.frontier() == (2, True)
    assert len(campaign.ledger.find("stage_failed", stage="label")) == 1
    for generation in (1, 2):
        fates = json.loads((campaign.stage(generation, "label") / "labels.json").read_text())
        assert [f["status"] for f in fates] == ["ok", "ok", "ok"]


def test_a_failed_stage_says_why_and_resumes(stubs, campaign):
    (campaign.root / ".stub-misbehave").write_text("train raise")
    control.launch(campaign.root)
    control.work(campaign.root)
    assert campaign.frontier() == (1, False)
    assert campaign.ledger.find("stage_failed")[-1]["reason"] == "train does not feel well"
    (campaign.root / ".stub-misbehave").unlink()
    control.resume(campaign.root)
    control.work(campaign.root)
    assert campaign.frontier() == (2, True)
    assert set(counts(campaign).values()) == {1}


def test_resume_works_on_a_wiped_launchpad(stubs, campaign):
    control.launch(campaign.root)
    control.work(campaign.root, max_tasks=9)
    with session() as lp:
        for collection in (lp.workflows, lp.fireworks, lp.launches, lp.fw_id_assigner):
            collection.delete_many({})
    control.resume(campaign.root)
    control.work(campaign.root)
    assert campaign.frontier() == (2, True)
    assert set(counts(campaign).values()) == {1}


def test_resume_clears_lost_runs_locks_and_orphans(stubs, campaign):
    control.launch(campaign.root)
    control.work(campaign.root, max_tasks=5)
    with session() as lp:
        mine = {"spec.campaign": campaign.id}
        # a worker that died in the middle of things: running, the workflow locked, a task of no workflow
        fw = lp.fireworks.find_one({**mine, "state": "READY"}, {"_id": 0})
        lp.fireworks.update_one({"fw_id": fw["fw_id"]}, {"$set": {"state": "RUNNING"}})
        lp.workflows.update_many({"metadata.campaign": campaign.id}, {"$set": {"locked": True}})
        lp.fireworks.insert_one(fw | {"fw_id": lp.get_new_fw_id(), "state": "READY"})
        control.resume(campaign.root)
        assert lp.fireworks.count_documents({**mine, "state": "RUNNING"}) == 0
        assert control.work_loop(lp, campaign) > 0
    assert campaign.frontier() == (2, True)
    assert set(counts(campaign).values()) == {1}


def test_resume_waits_for_workers_elsewhere_unless_forced(stubs, campaign):
    control.launch(campaign.root)
    with session() as lp:
        from fireworks import FWorker

        lp.checkout_fw(FWorker("aldriver other-host 4711"), "/tmp")
    with pytest.raises(CampaignBusyError, match=r"reference by aldriver other-host 4711.*--force"):
        control.resume(campaign.root)
    control.resume(campaign.root, force=True)
    with session() as lp:
        lp.checkout_fw(FWorker(f"aldriver {control.socket.gethostname()} 999999999"), "/tmp")
    control.resume(campaign.root)  # a dead process of this very host holds nobody up


def test_an_accepted_change_after_the_end_goes_on(stubs, campaign, write_recipe):
    control.launch(campaign.root)
    control.work(campaign.root)
    changed = create(write_recipe(stop={"generations": 3}), campaign.root, accept_changes=True)
    assert changed.frontier() == (3, False)
    control.resume(campaign.root)
    control.work(campaign.root)
    assert changed.frontier() == (3, True)


def test_work_takes_only_its_campaign_and_category(stubs, campaign, write_recipe, tmp_path):
    other = create(write_recipe(resources={"categories": {"benchmark": "bench"}}), tmp_path / "other")
    control.launch(campaign.root)
    control.launch(other.root)
    assert control.work(other.root, category="bench") == 1  # the reference; what follows has no category
    assert other.is_published(0, "reference") and not campaign.is_published(0, "reference")
    assert control.work(other.root, max_tasks=1) == 1
    assert control.work(max_tasks=1) == 1


def test_cancel_defuses_and_resume_goes_on(stubs, campaign):
    control.launch(campaign.root)
    control.work(campaign.root, max_tasks=3)
    result = control.cancel(campaign.root, reason="enough")
    assert result["workflows"] == 1 and result["stopped"] and not result["problem"]
    assert control.work(campaign.root) == 0
    assert campaign.ledger.find("cancelled")[0]["reason"] == "enough"
    control.resume(campaign.root)
    assert not campaign.cancelled
    control.work(campaign.root)
    assert campaign.frontier() == (2, True)
    assert set(counts(campaign).values()) == {1}


def test_what_was_published_but_not_noted_is_noted_on_resume(stubs, campaign):
    control.launch(campaign.root)
    control.work(campaign.root, max_tasks=4)
    campaign.ledger.path.write_text("")
    control.resume(campaign.root)
    noted = {e["path"] for e in campaign.ledger.find("published")}
    assert {f"generation-000/{s}" for s in ("reference", "train", "benchmark", "gate")} <= noted
    assert len(campaign.ledger.find("decision")) == 1


def _checked_out(launchpad, campaign, worker):
    """A task that says it runs on `worker`."""
    from fireworks import FWorker

    add(launchpad, campaign, 0)
    fw, _ = launchpad.checkout_fw(FWorker(worker, query={"spec.campaign": campaign.id}), ".")
    return fw


def test_a_task_of_a_dead_worker_is_lost_and_one_of_a_living_worker_is_not(campaign, database):
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    with session() as launchpad:
        assert control.lost_tasks(launchpad, campaign) == []
        fw = _checked_out(launchpad, campaign, f"aldriver {socket.gethostname()} {gone.pid}")
        (lost,) = control.lost_tasks(launchpad, campaign)
        assert fw.name in lost
        assert control.live_workers(launchpad, campaign) == []


@pytest.mark.parametrize(
    ("code", "alive"), [("import time; 'aldriver'; time.sleep(60)", True), ("import time; time.sleep(60)", False)]
)
def test_a_process_number_used_again_by_another_program_is_no_worker(campaign, database, code, alive):
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        with session() as launchpad:
            _checked_out(launchpad, campaign, f"aldriver {socket.gethostname()} {process.pid}")
            assert bool(control.live_workers(launchpad, campaign)) == alive
            assert bool(control.lost_tasks(launchpad, campaign)) != alive
    finally:
        process.kill()
        process.wait()
