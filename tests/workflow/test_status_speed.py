import json
import os
import subprocess
import sys
import time

import pytest

from aldriver.core.errors import InputError
from aldriver.workflow import control
from aldriver.workflow.campaign import create
from aldriver.workflow.launchpad import session
from aldriver.workflow.status import promoted_detector, promoted_potential, status, status_all

CODE = (
    "import re, sys; from aldriver.workflow.status import status; s = status(sys.argv[1])\n"
    "heavy = {'torch', 'pymatgen', 'fireworks', 'ase', 'scipy', 'sklearn'} & set(sys.modules)\n"
    "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"
    "print(sum(s['launchpad']['states'].values()), peak, sorted(heavy))"
)


def measured(root):
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CODE, str(root)], capture_output=True, text=True, check=True)
    tasks, kilobytes, heavy = done.stdout.split(maxsplit=2)
    return time.perf_counter() - began, int(tasks), int(kilobytes), heavy.strip()


def test_five_thousand_tasks_in_a_second(database, campaign):
    spec = {"campaign": campaign.id, "dir": str(campaign.root), "generation": 1, "stage": "label"}
    with session() as lp:
        first = lp.get_new_fw_id(5000)
        lp.fireworks.insert_many(
            {
                "fw_id": first + i,
                "name": f"label {i}",
                "state": "COMPLETED",
                "spec": {**spec, "index": i, "x": "y" * 200},
            }
            for i in range(5000)
        )
    seconds, tasks, kilobytes, heavy = min(measured(campaign.root) for _ in range(3))
    with session() as lp:
        lp.fireworks.delete_many({"spec.campaign": campaign.id})
    assert (tasks, heavy) == (5000, "[]")
    assert kilobytes < 200_000
    assert seconds < 1.0 * max(1.0, os.getloadavg()[0] / os.cpu_count())  # on a machine that is not busy


def test_status_follows_a_campaign(stubs, campaign):
    assert (status(campaign.root)["state"], status(campaign.root)["stage"]) == ("stopped", "reference")
    control.launch(campaign.root)
    now = status(campaign.root)
    assert (now["state"], now["launchpad"]["states"]) == ("waiting", {"READY": 1, "WAITING": 3})
    with pytest.raises(InputError, match="no potential has been promoted yet"):
        promoted_potential(campaign.root)
    control.work(campaign.root, max_tasks=8)
    now = status(campaign.root)
    assert (now["generation"], now["stage"]) == (1, "label")
    assert now["labels"] == {"done": 1, "failed": 0, "reasons": {}, "pending": 2}
    assert now["rounds"][0]["decision"]["decision"] == "promote"
    control.work(campaign.root)
    now = status(campaign.root)
    assert (now["state"], now["stage"], now["eta_s"]) == ("finished", "done", None)
    assert now["labels"]["done"] == 6
    assert [r["test"]["forces_rmse_meV_A"] for r in now["rounds"]] == pytest.approx([100, 50, 100 / 3])
    assert now["promoted"] == str(promoted_potential(campaign.root)) == str(campaign.potential("fp2"))
    assert promoted_detector(campaign.root) == campaign.potential("fp2") / "detector"
    newer = campaign.stage(2, "gate") / "detector"
    newer.mkdir()
    assert promoted_detector(campaign.root) == newer
    assert now["cost"]["total"] == pytest.approx(sum(v for k, v in now["cost"].items() if k != "total"), abs=1e-5)
    assert 0 <= now["cost"]["label"] - 6 * 0.1 / 3600 < 3 / 3600  # and the join's own moment
    json.dumps(now)


def test_failed_labels_are_counted_by_reason(campaign):
    for key, state, reason in (("a", "ok", ""), ("b", "timeout", "600 s"), ("c", "timeout", "600 s"), ("b", "ok", "")):
        campaign.ledger.append("label", key=key, status=state, reason=reason, generation=1, seconds=1.0, cpu_s=1.0)
    assert status(campaign.root)["labels"] == {"done": 2, "failed": 1, "reasons": {"timeout: 600 s": 1}, "pending": 0}


def test_a_failed_stage_is_shown_with_its_reason(stubs, campaign):
    (campaign.root / ".stub-misbehave").write_text("train raise")
    control.launch(campaign.root)
    control.work(campaign.root)
    now = status(campaign.root)
    assert now["state"] == "failed" and now["reason"] == "train of generation 1: train does not feel well"


def test_files_alone_are_enough(own_home, campaign):
    now = status(campaign.root)
    assert not now["launchpad"]["reachable"] and "not running" in now["launchpad"]["problem"]
    assert now["state"] == "stopped"


def test_an_unreachable_launchpad_is_said_quickly(campaign, tmp_path):
    file = tmp_path / "launchpad.yaml"
    file.write_text("host: 127.0.0.1\nport: 1\n")
    began = time.perf_counter()
    now = status(campaign.root, launchpad=file)
    assert not now["launchpad"]["reachable"] and now["launchpad"]["problem"]
    assert time.perf_counter() - began < 5.0


def test_all_campaigns_are_listed(stubs, campaign, write_recipe, tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "campaigns").mkdir(parents=True)
    monkeypatch.chdir(here)
    local = create(write_recipe(), here / "campaigns" / "local")
    control.launch(campaign.root)
    found = [s["id"] for s in status_all()]
    assert found.index(local.id) < found.index(campaign.id)
