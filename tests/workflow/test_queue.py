"""Tasks as Slurm jobs, with a Slurm of shell scripts: sbatch starts the job in the background, squeue lists the living."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from aldriver.core.errors import AldriverError, InputError
from aldriver.workflow import cluster, control
from aldriver.workflow.campaign import create
from aldriver.workflow.generation import labels_workflow
from aldriver.workflow.launchpad import session
from aldriver.workflow.run import run

SBATCH = """#!/bin/sh
id=$((1001 + $(ls "$FAKE_SLURM" | grep -c script)))
cp "$1" "$FAKE_SLURM/$id.script"
[ -e "$FAKE_SLURM/refuse" ] && { echo "sbatch: error: invalid partition" >&2; exit 1; }
[ -e "$FAKE_SLURM/never-start" ] || {
    setsid bash "$1" > "$FAKE_SLURM/$id.out" 2>&1 < /dev/null &
    echo $! > "$FAKE_SLURM/$id.pid"
}
echo "Submitted batch job $id"
"""
SQUEUE = """#!/bin/sh
[ -e "$FAKE_SLURM/down" ] && exit 1
for file in "$FAKE_SLURM"/*.pid; do
    [ -e "$file" ] || continue
    stat=/proc/$(cat "$file")/stat
    [ -e "$stat" ] && ! grep -q ') Z' "$stat" && basename "$file" .pid
done
exit 0
"""
QUEUE = {
    "dft": {"nodes": 2, "ntasks": 64, "walltime": "04:00:00", "queue": "standard", "pre_rocket": "module() { :; }"}
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Folder in which the jobs of a make-believe Slurm are kept."""
    folder, programs = tmp_path / "slurm", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield folder
    for file in folder.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


@pytest.fixture
def queued(stubs, write_recipe, tmp_path):
    label = {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 4, "pack": 2}
    recipe = write_recipe(label=label, stop={"generations": 1}, resources={"workers": 1, "queue": QUEUE})
    return create(recipe, tmp_path / "campaign")


def wait_for(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def up_to_the_labels(campaign):
    """Work until only tasks for the queue are left."""
    control.launch(campaign.root)
    control.work(campaign.root)
    assert campaign.is_published(1, "select") and not campaign.is_published(1, "label")


def fireworks(campaign, **query):
    with session() as lp:
        return list(lp.fireworks.find({"spec.campaign": campaign.id, **query}, {"_id": 0}))


def test_labels_go_to_the_queue_and_nothing_else_does(queued):
    cluster_specs = [fw.spec for fw in labels_workflow_after_selection(queued)]
    labels = [s for s in cluster_specs if s["stage"] == "label"]
    assert [s["_category"] for s in labels] == ["dft", "dft"]
    assert all(s["queued"] for s in labels)
    asked = labels[0]["_queueadapter"]
    assert (asked["nodes"], asked["walltime"], asked["queue"]) == (2, "04:00:00", "standard")
    assert not any("queued" in s for s in cluster_specs if s["stage"] != "label")


def labels_workflow_after_selection(campaign):
    up_to_the_labels(campaign)
    return labels_workflow(campaign, 1).fws


def test_the_files_are_fireworks_own_and_the_users_to_edit(queued):
    from fireworks import FWorker
    from fireworks.utilities.fw_serializers import load_object_from_file

    written = cluster.prepare(queued)
    folder = queued.root / "queue"
    assert {p.name for p in written} == {
        "slurm_template.txt", "my_launchpad.yaml", "qadapter-dft.yaml", "fworker-dft.yaml",
    }  # fmt: skip
    assert (folder / "my_launchpad.yaml").stat().st_mode & 0o077 == 0
    adapter = load_object_from_file(str(folder / "qadapter-dft.yaml"))
    adapter.update(QUEUE["dft"] | {"job_name": "x"})
    script = adapter.get_script_str(str(folder)).splitlines()
    assert "#SBATCH --partition=standard" in script and "#SBATCH --nodes=2" in script
    assert "#SBATCH --signal=B:TERM@120" in script and "#SBATCH --no-requeue" in script
    assert not [line for line in script if "$$" in line]
    worker = FWorker.from_file(str(folder / "fworker-dft.yaml"))
    assert (worker.query["spec.campaign"], worker.query["spec._category"]) == (queued.id, "dft")
    (folder / "slurm_template.txt").write_text(cluster.SLURM + "# mine\n")
    assert [p.name for p in cluster.prepare(queued)] == ["my_launchpad.yaml"]
    assert (folder / "slurm_template.txt").read_text().endswith("# mine\n")
    assert "this machine only" in cluster.out_of_reach()


def test_jobs_do_the_labels_and_the_campaign_goes_on(queued, slurm):
    up_to_the_labels(queued)
    assert control.work(queued.root) == 0  # what is for the queue is left to it
    cluster.prepare(queued)
    with session() as lp:
        result = cluster.submit(lp, queued)
        assert (len(result["jobs"]), result["recovered"]) == (2, [])
        assert cluster.submit(lp, queued)["jobs"] == []
    wait_for(lambda: not cluster.living_jobs())
    done = fireworks(queued, **{"spec.stage": "label"})
    assert {fw["state"] for fw in done} == {"COMPLETED"}, (slurm / "1001.out").read_text()
    control.work(queued.root)
    assert queued.frontier() == (1, True)
    (script, _) = sorted(slurm.glob("*.script"))
    text = script.read_text()
    assert "#SBATCH --ntasks=64" in text and "module() { :; }" in text and f"--fw_id {done[0]['fw_id']}" in text


def test_plain_qlaunch_understands_the_files(queued, slurm):
    up_to_the_labels(queued)
    cluster.prepare(queued)
    folder = queued.root / "queue"
    command = ["-l", "my_launchpad.yaml", "-w", "fworker-dft.yaml", "-q", "qadapter-dft.yaml", "-r", "singleshot"]
    program = Path(sys.executable).with_name("qlaunch")
    ran = subprocess.run([program, *command], cwd=folder, capture_output=True, text=True, timeout=100)
    assert len(list(slurm.glob("*.script"))) == 1, ran.stdout + ran.stderr
    wait_for(lambda: not cluster.living_jobs())
    assert [fw["state"] for fw in fireworks(queued, **{"spec.stage": "label"})].count("COMPLETED") == 1


def test_jobs_that_died_or_never_started_are_given_again_but_not_while_slurm_is_silent(queued, slurm):
    up_to_the_labels(queued)
    cluster.prepare(queued)
    (slurm / "never-start").touch()
    with session() as lp:
        assert len(cluster.submit(lp, queued, most=1)["jobs"]) == 1
        (slurm / "down").touch()
        assert cluster.recover(lp, queued) == []
        (slurm / "down").unlink()
        (slurm / "never-start").unlink()
        (queued.root / ".stub-misbehave").write_text("label die-once 1")  # kill -9 in the second label of a pack
        result = cluster.submit(lp, queued)
        assert len(result["jobs"]) == 2
        assert "(job 1001)" in result["recovered"][0]
        wait_for(lambda: not cluster.living_jobs())
        (lost,) = fireworks(queued, state="RUNNING")
        assert lost["spec"]["indices"] == [0, 1]
        again = cluster.submit(lp, queued)
        assert (len(again["jobs"]), len(again["recovered"])) == (1, 1)
    wait_for(lambda: not cluster.living_jobs())
    control.work(queued.root)
    assert queued.frontier() == (1, True)
    starts = [
        line for line in (queued.root / ".stub-counts").read_text().splitlines() if line.startswith("label-start")
    ]
    assert len(starts) == len(set(starts)) == 3  # the label before the kill was not made again


def test_a_run_submits_by_itself_and_goes_on_when_a_job_dies(queued, slurm, monkeypatch):
    monkeypatch.setattr("aldriver.workflow.run.SUBMIT_S", 1.0)
    (queued.root / ".stub-misbehave").write_text("label die-once 1")
    events = []
    too_long = threading.Timer(300, control.cancel, [queued.root])
    too_long.start()
    outcome = run(queued.root, on_event=events.append)
    too_long.cancel()
    assert outcome.state == "finished", outcome.reason
    warnings = [e["message"] for e in events if e["event"] == "warning"]
    assert [w for w in warnings if "this machine only" in w]
    assert len(list(slurm.glob("*.script"))) >= 3
    fates = json.loads((queued.stage(1, "label") / "labels.json").read_text())
    assert [f["status"] for f in fates] == ["ok", "ok", "ok"]


def test_trouble_is_told_in_words(queued, slurm, write_recipe, tmp_path, monkeypatch):
    up_to_the_labels(queued)
    with session() as lp:
        with pytest.raises(InputError, match="aldriver queue init"):
            cluster.submit(lp, queued)
        cluster.prepare(queued)
        (slurm / "refuse").touch()
        with pytest.raises(AldriverError, match=r"refused a job \(sbatch: error: invalid partition; .*launcher_"):
            cluster.submit(lp, queued)
        assert {fw["state"] for fw in fireworks(queued, **{"spec.stage": "label"})} == {"READY"}
        resources = yaml.safe_load((queued.root / "queue" / "qadapter-dft.yaml").read_text())
        (queued.root / "queue" / "qadapter-dft.yaml").write_text(yaml.safe_dump(resources | {"colour": "green"}))
        with pytest.raises(InputError, match="colour has no place in .*slurm_template.txt"):
            cluster.submit(lp, queued)
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(AldriverError, match="'sbatch' was not found"):
            cluster.submit(lp, queued)
        assert cluster.living_jobs() is None
    with pytest.raises(InputError, match="sends nothing to a queue"):
        cluster.prepare(campaign_without_queue(write_recipe, tmp_path))


def campaign_without_queue(write_recipe, tmp_path):
    return create(write_recipe("plain.yaml"), tmp_path / "plain")


def test_the_commands_prepare_and_submit(queued, slurm, capsys):
    from aldriver.cli.main import main

    up_to_the_labels(queued)
    with contextlib.suppress(SystemExit):
        main(["queue", "init", str(queued.root), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["written"]) == 4 and "MongoDB" in answer["problem"]
    with contextlib.suppress(SystemExit):
        main(["queue", "submit", str(queued.root), "--most", "1", "--json"])
    assert json.loads(capsys.readouterr().out) == {"jobs": ["1001"], "recovered": []}
