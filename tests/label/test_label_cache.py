from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from label_stubs import CountingLabeler, silicon, spec

from aldriver.core.errors import StoreError
from aldriver.core.frames import read_frames
from aldriver.core.leftovers import FORGOTTEN_S, LOST_S
from aldriver.core.store import is_published, verify
from aldriver.label import Label, LabelLimits, label_frame
from aldriver.label.cache import label_key, read_label, tidy
from aldriver.label.process import is_alive


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def runs(log):
    return len(list(log.iterdir()))


def test_a_label_is_computed_once_and_published_whole(tmp_path, log):
    frame = silicon()
    frame.info |= {"group": "walker-1", "step": 40}
    labels = tmp_path / "labels"
    first = label_frame(frame, CountingLabeler(log), spec(), labels)
    second = label_frame(frame, CountingLabeler(log), spec(), labels)
    assert (first.status, first.cached, second.cached) == ("ok", False, True)
    assert runs(log) == 1
    assert first.energy == second.energy
    assert np.array_equal(first.forces, second.forces)
    verify(labels / first.key)
    (back,) = read_frames(labels / first.key / "frame.extxyz", labelled=True)
    assert (back.info["group"], back.info["label_key"]) == ("walker-1", first.key)
    parent = second.provenance["parent"]
    assert (parent["group"], parent["step"], parent["n_atoms"]) == ("walker-1", 40, 2)
    assert second.provenance["settings_digest"] == spec().digest()
    assert [p.name for p in labels.iterdir()] == [first.key]  # no lock, no temporary folder left


def test_another_frame_setting_or_code_is_another_label(log):
    class Other(CountingLabeler):
        code_id = "counting:2"

    base = label_key(silicon(), CountingLabeler(log), spec())
    assert label_key(silicon(), CountingLabeler(log), spec(timeout_s=1)) == base
    others = {
        label_key(silicon(seed=2), CountingLabeler(log), spec()),
        label_key(silicon(), CountingLabeler(log), spec(settings={"a": 2})),
        label_key(silicon(), Other(log), spec()),
    }
    assert len(others | {base}) == 4


class Emt(CountingLabeler):
    """Forces and moments that differ from site to site."""

    def label(self, frame, workdir):
        label = super().label(frame, workdir)
        atoms = frame.copy()
        atoms.calc = EMT()
        return replace(
            label,
            energy=atoms.get_potential_energy(),
            forces=atoms.get_forces(),
            magmoms=atoms.get_potential_energies(),
        )


def test_a_permuted_wrapped_frame_finds_its_label_in_its_own_order(tmp_path, log):
    frame = bulk("Cu", a=3.7, cubic=True)
    frame.symbols[:] = ["Cu", "Au", "Cu", "Au"]
    frame.rattle(0.2, seed=4)
    first = label_frame(frame, Emt(log), spec(), tmp_path)
    other = frame[[3, 1, 0, 2]]
    other.positions -= [frame.cell[0], 2 * frame.cell[1], [0, 0, 0], frame.cell[2]]
    other.wrap()
    second = label_frame(other, Emt(log), spec(), tmp_path)
    assert (second.cached, second.key, runs(log)) == (True, first.key, 1)
    truth = Emt(log).label(other, tmp_path)
    assert second.forces == pytest.approx(truth.forces, abs=1e-10)
    assert second.magmoms == pytest.approx(truth.magmoms, abs=1e-10)
    assert np.abs(second.forces - first.forces).max() > 0.1  # it would be seen if the order were wrong
    labelled = second.labelled(other)
    assert labelled.get_forces() == pytest.approx(truth.forces, abs=1e-10)
    again = label_frame(frame, Emt(log), spec(), tmp_path)
    assert np.array_equal(again.forces, first.forces)


def test_a_refused_label_with_too_few_forces_is_read_as_it_is(tmp_path, log):
    class Short(CountingLabeler):
        def label(self, frame, workdir):
            return Label(status="ok", energy=-1.0, forces=np.ones((1, 3)))

    assert label_frame(silicon(), Short(log), spec(), tmp_path).status == "rejected"
    assert label_frame(silicon()[[1, 0]], Short(log), spec(), tmp_path).forces.shape == (1, 3)


def test_failures_are_published_and_never_stop_the_siblings(tmp_path, log):
    frames = [silicon(seed=s) for s in range(4)]
    answers = ["ok", "raise", "unconverged", "ok"]
    results = [
        label_frame(f, CountingLabeler(log, answer=a), spec(), tmp_path) for f, a in zip(frames, answers, strict=True)
    ]
    assert [r.status for r in results] == ["ok", "failed", "unconverged", "ok"]
    assert "RuntimeError: the engine's reader stumbled" in results[1].reason
    again = [label_frame(f, CountingLabeler(log), spec(), tmp_path) for f in frames]
    assert [r.status for r in again] == ["ok", "failed", "unconverged", "ok"]
    assert runs(log) == 4
    assert all(is_published(tmp_path / r.key) for r in results)


def test_a_label_outside_the_gate_is_published_as_rejected(tmp_path):
    class Wild(CountingLabeler):
        def label(self, frame, workdir):
            return Label(status="ok", energy=float("nan"), forces=np.zeros((2, 3)))

    label = label_frame(silicon(), Wild(tmp_path), spec(), tmp_path / "labels")
    assert label.status == "rejected"
    stored = read_label(tmp_path / "labels" / label.key)
    assert stored.energy is None
    assert "not a finite number" in stored.reason


def test_a_stored_label_is_judged_by_the_limits_of_today(tmp_path, log):
    """Values that strict limits refused are there when the limits are widened, and the other way round."""
    strict, wide = LabelLimits(max_force_eV_A=0.1), LabelLimits(max_force_eV_A=50.0)
    frame = bulk("Cu", a=3.7, cubic=True)
    frame.rattle(0.2, seed=4)
    statuses = [label_frame(frame, Emt(log), spec(), tmp_path, limits=limits) for limits in (strict, wide, strict)]
    assert [(s.status, s.cached) for s in statuses] == [("rejected", False), ("ok", True), ("rejected", True)]
    assert statuses[1].labelled(frame).get_forces() == pytest.approx(Emt(log).label(frame, tmp_path).forces)
    assert "above the cap" in statuses[2].reason


def test_a_cancelled_label_is_not_published(tmp_path, log):
    labeler = CountingLabeler(log, seconds=30)
    threading.Timer(0.3, labeler.cancel).start()
    label = label_frame(silicon(), labeler, spec(), tmp_path / "labels")
    assert label.status == "cancelled"
    assert list((tmp_path / "labels").iterdir()) == []
    assert label_frame(silicon(), labeler, spec(), tmp_path / "labels").status == "cancelled"
    assert runs(log) == 1
    assert label_frame(silicon(), CountingLabeler(log), spec(), tmp_path / "labels").ok


def test_more_time_or_steps_or_a_wish_try_again_and_keep_the_old_record(tmp_path, log):
    frame = silicon()
    short = label_frame(frame, CountingLabeler(log, answer="timeout"), spec(timeout_s=10), tmp_path)
    assert label_frame(frame, CountingLabeler(log), spec(timeout_s=10), tmp_path).status == "timeout"
    assert (
        label_frame(frame, CountingLabeler(log, answer="unconverged"), spec(timeout_s=20), tmp_path).status
        == "unconverged"
    )
    assert read_label(tmp_path / f"{short.key}.attempt-1").status == "timeout"
    steps = spec(effort={"max_scf_steps": 200})
    assert label_frame(frame, CountingLabeler(log, answer="failed"), steps, tmp_path).status == "failed"
    assert label_frame(frame, CountingLabeler(log), steps, tmp_path).status == "failed"
    assert label_frame(frame, CountingLabeler(log), steps, tmp_path, again=("failed",)).ok
    assert [read_label(tmp_path / f"{short.key}.attempt-{i}").status for i in (1, 2, 3)] == [
        "timeout", "unconverged", "failed",
    ]  # fmt: skip
    assert label_frame(frame, CountingLabeler(log), steps, tmp_path, again=("failed",)).cached


def test_a_damaged_label_is_an_error_that_names_the_place(tmp_path, log):
    label = label_frame(silicon(), CountingLabeler(log), spec(), tmp_path)
    (tmp_path / label.key / "label.json").write_text('{"status": "ok", "ener')
    with pytest.raises(StoreError, match=label.key):
        label_frame(silicon(), CountingLabeler(log), spec(), tmp_path)


RACER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from label_stubs import CountingLabeler, silicon, spec
from aldriver.label import label_frame
log, labels, go = map(Path, sys.argv[2:5])
(log.parent / ("ready-" + sys.argv[5])).touch()
while not go.exists():
    time.sleep(0.005)
label = label_frame(silicon(), CountingLabeler(log, seconds=float(sys.argv[6])), spec(), labels)
print(label.status, label.cached)
"""


def racer(tmp_path, log, name, seconds):
    here = str(Path(__file__).parent)
    arguments = [here, log, tmp_path / "labels", tmp_path / "go", name, seconds]
    return subprocess.Popen([sys.executable, "-c", RACER, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_three_processes_with_the_same_frame_compute_it_once(tmp_path, log):
    racers = [racer(tmp_path, log, str(i), 0.5) for i in range(3)]
    wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == 3)
    (tmp_path / "go").touch()
    answers = sorted(r.communicate(timeout=30)[0].split()[1] for r in racers)
    assert runs(log) == 1
    assert answers == ["False", "True", "True"]


def test_the_lock_of_a_worker_that_died_after_publishing_goes_with_the_next_reader(tmp_path, log):
    labels = tmp_path / "labels"
    first = label_frame(silicon(), CountingLabeler(log), spec(), labels)
    lock = labels / f".{first.key}.lock"
    lock.touch()
    assert label_frame(silicon(), CountingLabeler(log), spec(), labels).cached
    assert not lock.exists()


def test_kill_9_frees_the_lock_and_the_next_one_computes(tmp_path, log):
    (tmp_path / "go").touch()
    victim = racer(tmp_path, log, "victim", 300)
    wait_for(lambda: runs(log) == 1)
    victim.kill()
    victim.communicate()
    assert list((tmp_path / "labels").glob(".tmp-*"))
    label = label_frame(silicon(), CountingLabeler(log), spec(), tmp_path / "labels")
    assert label.ok
    assert runs(log) == 2
    assert [p.name for p in (tmp_path / "labels").iterdir()] == [label.key]


def test_sigterm_ends_a_run_without_publishing_anything(tmp_path, log):
    (tmp_path / "go").touch()
    victim = racer(tmp_path, log, "victim", 300)
    wait_for(lambda: runs(log) == 1)
    victim.send_signal(signal.SIGTERM)
    victim.communicate(timeout=20)
    assert victim.returncode == -signal.SIGTERM
    assert [p for p in (tmp_path / "labels").iterdir() if not p.name.endswith(".lock")] == []


def test_tidy_ends_orphans_before_it_removes_their_folder(tmp_path):
    from aldriver.core.records import dumps
    from aldriver.label.process import MARKER, PGID_FILE

    orphan = subprocess.Popen(["sleep", "300"], env={**os.environ, MARKER: "c" * 32}, start_new_session=True)
    host = os.uname().nodename.replace("-", "_")
    folder = tmp_path / f".tmp-key-{host}-4194305-abcdef"
    work = folder / "second-start"
    work.mkdir(parents=True)
    record = {"pid": orphan.pid, "start_ticks": None, "marker": "c" * 32, "host": os.uname().nodename}
    (work / PGID_FILE).write_text(dumps(record | {"owner_pid": 4194305, "owner_start_ticks": 1}))
    try:
        wait_for(lambda: b"c" * 32 in Path(f"/proc/{orphan.pid}/environ").read_bytes())  # it has become `sleep`
        assert tidy(tmp_path) == 1
        assert not folder.exists()
        assert orphan.wait(5) == -signal.SIGTERM
        assert not is_alive(orphan.pid)
        assert tidy(tmp_path / "absent") == 0
    finally:
        orphan.kill()
        orphan.wait()


def test_a_lock_held_elsewhere_does_not_hold_up_a_cancel(tmp_path, log):
    (tmp_path / "go").touch()
    holder = racer(tmp_path, log, "holder", 300)
    try:
        wait_for(lambda: runs(log) == 1)
        labeler = CountingLabeler(log)
        threading.Timer(0.3, labeler.cancel).start()
        assert label_frame(silicon(), labeler, spec(), tmp_path / "labels").status == "cancelled"
        assert runs(log) == 1
    finally:
        holder.send_signal(signal.SIGTERM)
        holder.communicate(timeout=60)


def at_work_elsewhere(labels, key):
    """Directory of a worker on another host that is at a label, whose lock does not reach this one."""
    folder = labels / f".tmp-{key}-node_7-17-abcdef"
    folder.mkdir(parents=True)
    return folder


def test_a_label_that_another_host_is_at_is_waited_for(tmp_path, log):
    labels, mine, theirs = tmp_path / "labels", CountingLabeler(log), CountingLabeler(log)
    made = label_frame(silicon(), theirs, spec(), tmp_path / "there")
    folder = at_work_elsewhere(labels, made.key)

    def publish():
        (tmp_path / "there" / made.key).rename(labels / made.key)
        folder.rmdir()

    threading.Timer(0.5, publish).start()
    label = label_frame(silicon(), mine, spec(), labels)
    assert (label.ok, label.cached, runs(log)) == (True, True, 1)


def test_a_worker_of_another_host_without_a_sign_of_life_is_not_waited_for(tmp_path, log):
    labels = tmp_path / "labels"
    key = label_key(silicon(), CountingLabeler(log), spec())
    folder = at_work_elsewhere(labels, key)
    os.utime(folder, (time.time() - 2 * LOST_S,) * 2)
    assert label_frame(silicon(), CountingLabeler(log), spec(), labels).ok
    assert folder.exists()  # it may be suspended: what it has is its own until it is long forgotten
    os.utime(folder, (time.time() - 2 * FORGOTTEN_S,) * 2)
    tidy(labels)
    assert [p.name for p in labels.iterdir()] == [key]


class Greedy(CountingLabeler):
    """Writes more than a small disk holds."""

    def label(self, frame, workdir):
        (workdir / "big").write_bytes(b"x" * 10_000_000)
        return super().label(frame, workdir)


def test_a_full_disk_is_a_clear_error_and_not_a_failed_label(tmp_path, log):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        with pytest.raises(StoreError, match="no space left on the disk"):
            label_frame(silicon(), Greedy(log), spec(), disk / "labels")
        assert label_frame(silicon(seed=2), CountingLabeler(log), spec(), disk / "labels").ok  # room again
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_enospc_from_anywhere_in_the_engine_is_a_clear_error(tmp_path, log):
    class Full(CountingLabeler):
        def label(self, frame, workdir):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="no space left"):
        label_frame(silicon(), Full(log), spec(), tmp_path / "labels")
    assert [p for p in (tmp_path / "labels").iterdir() if p.name.startswith(".tmp")] == []


def test_a_file_system_without_locks_is_refused_in_words(tmp_path, log, monkeypatch):
    from aldriver.core import locks

    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with pytest.raises(StoreError, match="has no locks"):
        label_frame(silicon(), CountingLabeler(log), spec(), tmp_path / "labels")


def test_labels_folder_that_cannot_be_made(tmp_path, log):
    (tmp_path / "file").touch()
    with pytest.raises((StoreError, OSError)):
        label_frame(silicon(), CountingLabeler(log), spec(), tmp_path / "file" / "labels")
