"""Several labels in one task, and what a signal in the middle of them leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase.build import bulk

from aldriver.core.errors import AldriverError
from aldriver.core.frames import frame_hash, write_frames
from aldriver.core.store import publish
from aldriver.label.process import is_alive
from aldriver.workflow import control, interrupt, packs
from aldriver.workflow.campaign import create
from aldriver.workflow.generation import labels_workflow
from aldriver.workflow.launchpad import session

UPF = """<UPF version="2.0.1">
<PP_HEADER
element="Si"
functional=" SLA  PW   PBE  PBE"
z_valence="4.000e0"
/>
</UPF>
"""
# Runs that start in the same moment must not take the same number: a directory can be made only once.
PW = """#!/bin/sh
n=1; until mkdir {here}/run-$n 2>/dev/null; do n=$((n + 1)); done
echo "$$ $(pwd)" >> {here}/runs
while [ -e {here}/hold-$n ]; do sleep 0.05; done
cat <<END
     Program PWSCF v.6.7MaX starts on 21Nov2026 at  2:51: 2
     number of atoms/cell      =            2
     kinetic-energy cutoff     =      20.0000  Ry
!    total energy              =     -15.50000000 Ry
     convergence has been achieved in   8 iterations
     Forces acting on atoms (cartesian axes, Ry/au):
     atom    1 type  1   force =     0.01000000   -0.02000000    0.00000000
     atom    2 type  1   force =    -0.01000000    0.02000000    0.00000000
   JOB DONE.
END
"""


@pytest.fixture
def silicon(write_recipe, tmp_path):
    """A campaign whose pw.x is a script, with four selected frames; `pack` and `at_once` as asked."""

    def make(**label):
        (tmp_path / "pw.x").write_text(PW.format(here=tmp_path))
        (tmp_path / "pw.x").chmod(0o755)
        (tmp_path / "Si.UPF").write_text(UPF)
        espresso = {"command": str(tmp_path / "pw.x"), "pseudo_dir": str(tmp_path), "ecutwfc_Ry": 20}
        espresso |= {"pseudopotentials": {"Si": "Si.UPF"}}
        block = {"engine": "espresso", "espresso": espresso, "budget": 4, "timeout_s": 60, "retries": 0}
        systems = [{"name": "si", "bulk": {"element": "Si", "lattice": "diamond", "a": 5.43, "cubic": False}}]
        cases = {"cases": [{"name": "si", "element": "Si", "lattice": "diamond", "a": 5.43}]}
        campaign = create(write_recipe(label=block | label, systems=systems, benchmark=cases), tmp_path / "campaign")
        frames = []
        for seed in range(4):
            atoms = bulk("Si", a=5.43)
            atoms.rattle(0.05, seed=seed)
            atoms.info = {"frame_id": frame_hash(atoms), "group": f"w{seed}", "origin": "flagged", "ratio": 2.0}
            frames.append(atoms)
        with publish(campaign.stage(1, "select")) as tmp:
            write_frames(tmp / "selected.extxyz", frames)
            (tmp / "selection.json").write_text(json.dumps({"n_selected": 4}))
        return campaign

    return make


@pytest.fixture
def worker():
    """Start workers of a campaign; those that a failed test leaves are ended."""
    started = []

    def start(campaign):
        code = f"from aldriver.workflow import control; control.work({str(campaign.root)!r})"
        process = subprocess.Popen([sys.executable, "-c", code], cwd=campaign.root, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def runs(tmp_path: Path) -> list[int]:
    log = tmp_path / "runs"
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for(condition, seconds=180.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def statuses(campaign):
    return [f["status"] for f in json.loads((campaign.stage(1, "label") / "labels.json").read_text())]


def test_frames_are_packed_into_tasks(silicon):
    campaign = silicon(pack=3)
    specs = [fw.spec for fw in labels_workflow(campaign, 1).fws if fw.spec["stage"] == "label"]
    assert [packs.indices_of(spec) for spec in specs] == [[0, 1, 2], [3]]
    assert packs.packs(range(5), 2) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("pack", "at_once"), [(3, 1), (4, 4)])
def test_a_pack_is_labelled_once_in_order_or_side_by_side(silicon, database, worker, tmp_path, pack, at_once):
    campaign = silicon(pack=pack, at_once=at_once)
    if at_once > 1:
        for k in range(1, 5):
            (tmp_path / f"hold-{k}").touch()
    with session() as lp:
        lp.add_wf(labels_workflow(campaign, 1))
    process = worker(campaign)
    if at_once > 1:
        wait_for(lambda: len(runs(tmp_path)) == 4)  # all of them run before any has ended
        for k in range(1, 5):
            (tmp_path / f"hold-{k}").unlink()
    assert process.wait(180) == 0
    assert statuses(campaign) == ["ok"] * 4
    assert len(runs(tmp_path)) == 4
    entries = campaign.ledger.find("label", generation=1)
    assert sorted(e["index"] for e in entries) == [0, 1, 2, 3]


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_a_signal_interrupts_comes_back_and_what_was_finished_stays(silicon, database, worker, tmp_path, at_once):
    campaign = silicon(pack=4, at_once=at_once)
    for k in (2, 3):
        (tmp_path / f"hold-{k}").touch()
    with session() as lp:
        lp.add_wf(labels_workflow(campaign, 1))
    process = worker(campaign)
    # one is done, the others of this moment are being computed
    wait_for(lambda: len(campaign.ledger.find("label")) == 1 and len(runs(tmp_path)) == 1 + at_once)
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == -signal.SIGTERM  # the signal is obeyed, after the launchpad was told
    assert not [pid for pid in runs(tmp_path) if is_alive(pid)]
    (note,) = campaign.ledger.find("interrupted")
    done = {e["index"] for e in campaign.ledger.find("label")}
    assert len(done) == 1 and sorted(note["left"]) == sorted({0, 1, 2, 3} - done)
    assert not campaign.ledger.find("stage_failed")
    with session() as lp:
        states = {
            (fw["name"], fw["state"])
            for fw in lp.fireworks.find({"spec.campaign": campaign.id}, {"name": 1, "state": 1})
        }
        assert ("g001 collect", "WAITING") in states
        assert {state for name, state in states if "label" in name} == {"COMPLETED", "READY"}
    for k in (2, 3):
        (tmp_path / f"hold-{k}").unlink()
    assert worker(campaign).wait(180) == 0
    assert statuses(campaign) == ["ok"] * 4
    assert len(campaign.ledger.find("label")) == 4
    assert not list(campaign.labels.glob(".*"))


def test_kill_9_in_the_middle_of_a_pack_loses_no_finished_label(silicon, database, worker, tmp_path):
    campaign = silicon(pack=4)
    (tmp_path / "hold-3").touch()
    with session() as lp:
        lp.add_wf(labels_workflow(campaign, 1))
    process = worker(campaign)
    wait_for(lambda: len(runs(tmp_path)) == 3)
    process.kill()
    process.wait()
    (tmp_path / "hold-3").unlink()
    wait_for(lambda: not is_alive(runs(tmp_path)[2]))
    with session() as lp:
        (fw,) = lp.fireworks.find({"spec.campaign": campaign.id, "state": "RUNNING"}, {"fw_id": 1})
        lp.rerun_fw(fw["fw_id"])
    assert worker(campaign).wait(180) == 0
    assert statuses(campaign) == ["ok"] * 4
    assert len(runs(tmp_path)) == 3 + 2  # the first two were not computed again


def test_a_broken_frame_does_not_stop_the_others_of_its_pack(stubs, write_recipe, tmp_path):
    label = {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 4, "pack": 3}
    campaign = create(write_recipe(label=label, stop={"generations": 1}), tmp_path / "c")
    (campaign.root / ".stub-misbehave").write_text("label raise 0")
    control.launch(campaign.root)
    control.work(campaign.root)
    assert campaign.frontier() == (1, True)
    assert statuses(campaign) == ["failed", "ok", "ok"]


def test_a_task_that_is_always_interrupted_gives_up_with_a_reason():
    spec = {"indices": [4, 5]}
    assert packs.interruptions(spec, [5]) == 0
    assert packs.interruptions(spec, [4, 5]) == 1
    assert packs.interruptions(spec | {"interruptions": 1}, [4, 5]) == 2
    with pytest.raises(AldriverError, match="more walltime"):
        packs.interruptions(spec | {"interruptions": 2}, [4, 5])


def test_a_held_signal_is_obeyed_after_the_block_and_not_before():
    seen = []
    previous = signal.signal(signal.SIGTERM, lambda signum, _: seen.append(signum))
    try:
        with interrupt.holding():
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for(interrupt.pending)
        assert seen == []
        interrupt.obey()
        wait_for(lambda: seen == [signal.SIGTERM])
        assert not interrupt.pending()
        interrupt.obey()
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, previous)
