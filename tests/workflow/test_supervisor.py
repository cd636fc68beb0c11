import contextlib
import json
import os
import random
import signal
import subprocess
import time

import psutil
import pytest

from aldriver.core.errors import CampaignBusyError
from aldriver.workflow import control, service
from aldriver.workflow.campaign import create, lock
from aldriver.workflow.launchpad import session
from aldriver.workflow.run import run


def lines(campaign):
    path = campaign.root / ".stub-counts"
    return path.read_text().splitlines() if path.exists() else []


def assert_complete(campaign, generations, interruptions):
    """One of each generation, each label there and none computed twice beyond those in flight."""
    assert campaign.frontier() == (generations, True)
    done = lines(campaign)
    for g in range(generations + 1):
        assert sum(line == f"gate {g}" for line in done) <= 1
        assert len(campaign.ledger.find("decision", generation=g)) == 1
    assert len(list(campaign.labels.iterdir())) == 3 * generations
    finished = [line for line in done if line.startswith("label ")]
    assert len(finished) == len(set(finished))
    started = [line for line in done if line.startswith("label-start")]
    assert len(started) <= 3 * generations + 2 * interruptions  # two workers: two in flight
    with session() as lp:
        numbers = [
            wf["metadata"]["generation"]
            for wf in lp.workflows.find({"metadata.campaign": campaign.id}, {"metadata": 1})
        ]
        assert len(numbers) == len(set(numbers))
        assert lp.fireworks.count_documents({"spec.campaign": campaign.id, "state": {"$ne": "COMPLETED"}}) == 0


def wait_for(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.02)


@pytest.fixture
def short_campaign(write_recipe, tmp_path):
    return create(write_recipe(stop={"generations": 1}), tmp_path / "short")


def test_run_ends_and_reports(stubs, campaign):
    events = []
    outcome = run(campaign.root, on_event=events.append)
    assert (outcome.state, outcome.generation) == ("finished", 2)
    assert outcome.reason == "all 2 generations are done"
    assert outcome.promoted == campaign.potential("fp2")
    kinds = [e["event"] for e in events]
    assert kinds.count("decision") == 3 and kinds.count("label") == 6 and "warning" not in kinds
    seen = {s["stage"] for e in events if e["event"] == "progress" for s in e["running"]}
    assert seen <= {"reference", "baseline", "train", "benchmark", "explore", "select", "label", "collect", "gate"}
    assert_complete(campaign, 2, 0)
    again = run(campaign.root)  # nothing is left: it says so at once
    assert again.state == "finished" and again.promoted == outcome.promoted


def test_killed_at_random_moments_it_resumes(stubs, write_recipe, tmp_path, start_run):
    campaign = create(write_recipe(stop={"generations": 3}), tmp_path / "c")
    (campaign.root / ".stub-nap").write_text("0.15")
    rng = random.Random(20261121)
    kills = 0
    while kills < 4:
        process = start_run(campaign.root)
        before = len(lines(campaign))
        wait_for(lambda p=process, n=before: len(lines(campaign)) > n or p.poll() is not None)
        time.sleep(rng.uniform(0.0, 0.9))
        if process.poll() is not None:
            break
        workers = [child.pid for child in psutil.Process(process.pid).children()]
        process.kill()
        kills += 1
        process.wait()
        wait_for(lambda w=workers: not any(psutil.pid_exists(pid) for pid in w), 5.0)
    assert kills >= 3
    outcome = run(campaign.root)
    assert outcome.state == "finished"
    assert_complete(campaign, 3, kills)


def test_the_database_killed_under_a_run_is_brought_back(stubs, write_recipe, tmp_path, start_run):
    campaign = create(write_recipe(stop={"generations": 2}), tmp_path / "c")
    (campaign.root / ".stub-nap").write_text("0.15")
    process = start_run(campaign.root)
    for count in (2, 9):
        wait_for(lambda n=count: len(lines(campaign)) >= n or process.poll() is not None)
        found = service.find()
        if found is not None:
            os.kill(found.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=100)
    assert "finished all 2 generations are done" in out, out + err
    assert_complete(campaign, 2, 2)


def test_a_second_run_is_refused(stubs, campaign):
    with lock(campaign), pytest.raises(CampaignBusyError, match="in use by pid"):
        run(campaign.root)


def test_a_failed_stage_ends_the_run_with_its_reason(stubs, short_campaign):
    campaign = short_campaign
    (campaign.root / ".stub-misbehave").write_text("train raise")
    outcome = run(campaign.root)
    assert outcome.state == "failed"
    assert outcome.reason == "train of generation 1 failed: train does not feel well"
    assert outcome.promoted == campaign.potential("fp0")
    (campaign.root / ".stub-misbehave").unlink()
    assert run(campaign.root).state == "finished"
    assert_complete(campaign, 1, 0)


def test_a_walker_whose_process_always_dies_ends_as_an_error(stubs, short_campaign):
    campaign = short_campaign
    (campaign.root / ".stub-misbehave").write_text("explore die 1")
    events = []
    outcome = run(campaign.root, workers=1, on_event=events.append)
    assert outcome.state == "finished"
    result = json.loads((campaign.walker(1, 1) / "result.json").read_text())
    assert result["reason"] == "error" and "died" in result["message"]
    assert json.loads((campaign.walker(1, 0) / "result.json").read_text())["reason"] == "completed"
    assert any("SIGKILL during explore 1 of generation 1" in e.get("message", "") for e in events)


def test_a_stage_whose_process_always_dies_ends_the_run(stubs, campaign):
    (campaign.root / ".stub-misbehave").write_text("baseline die")
    outcome = run(campaign.root, workers=1)
    assert outcome.state == "failed" and "SIGKILL during baseline" in outcome.reason


def test_cancel_ends_a_run(stubs, short_campaign, start_run):
    campaign = short_campaign
    (campaign.root / ".stub-nap").write_text("0.5")
    process = start_run(campaign.root)
    wait_for(lambda: len(lines(campaign)) >= 1)
    assert control.cancel(campaign.root)["stopped"]
    out, err = process.communicate(timeout=30)
    assert out.startswith("cancelled"), err
    (campaign.root / ".stub-nap").unlink()
    assert run(campaign.root).state == "finished"
    assert_complete(campaign, 1, 1)


def test_terminated_it_takes_its_workers_with_it(stubs, campaign, start_run):
    (campaign.root / ".stub-nap").write_text("0.5")
    process = start_run(campaign.root)
    wait_for(lambda: len(lines(campaign)) >= 1)
    workers = [child.pid for child in psutil.Process(process.pid).children()]
    assert len(workers) == 2
    process.terminate()
    process.communicate(timeout=30)
    assert not any(psutil.pid_exists(pid) for pid in workers)


def test_a_stage_that_hangs_is_ended_at_the_walltime(stubs, write_recipe, tmp_path):
    campaign = create(write_recipe(resources={"workers": 1, "walltime_s": 1}), tmp_path / "c")
    (campaign.root / ".stub-nap").write_text("60")
    outcome = run(campaign.root)
    assert outcome.state == "failed" and "SIGKILL during reference of generation 0" in outcome.reason


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB; skipped where one cannot be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_that_reason_and_it_resumes(stubs, write_recipe, small_disk):
    campaign = create(write_recipe(stop={"generations": 1}), small_disk / "c")
    (campaign.root / ".stub-nap").write_text("0.3")
    ballast = small_disk / "ballast"

    def fill(event):
        if event["event"] == "published" and event["stage"] == "benchmark" and event["generation"] == 0:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as handle:
                while True:
                    handle.write(b"x" * 1024)

    outcome = run(campaign.root, on_event=fill)
    assert outcome.state == "failed" and "no space left on the disk" in outcome.reason
    ballast.unlink()
    assert run(campaign.root).state == "finished"
    assert_complete(campaign, 1, 1)
