from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from label_stubs import script

from aldriver.core.records import dumps, read_json
from aldriver.label.process import (
    MARKER,
    PGID_FILE,
    cancel_on_signals,
    child_environment,
    clean_orphans,
    is_alive,
    run_process,
)


def run(tmp_path, body, **options):
    program = script(tmp_path / "program", body)
    options = {"timeout_s": 20.0, "grace_s": 0.5} | options
    return run_process([str(program)], cwd=tmp_path, stdout=tmp_path / "out", stderr=tmp_path / "err", **options)


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def pids_in(path: Path) -> list[int]:
    return [int(w) for w in path.read_text().split()] if path.exists() else []


def test_a_command_ends_with_its_status_output_and_cpu_time(tmp_path):
    result = run(tmp_path, "echo hello; echo oops >&2; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exit 3")
    assert (result.outcome, result.returncode, result.message) == ("done", 3, "exit status 3")
    assert (tmp_path / "out").read_text() == "hello\n"
    assert (tmp_path / "err").read_text() == "oops\n"
    assert 0.02 < result.cpu_s <= result.seconds * 1.5 + 0.05
    assert not (tmp_path / PGID_FILE).exists()


@pytest.mark.parametrize(("body", "timeout_s", "outcome"), [("exit 3", 60, "done"), ("exec sleep 60", 0.3, "timeout")])
def test_without_pidfd_the_end_is_noticed_all_the_same(tmp_path, monkeypatch, body, timeout_s, outcome):
    def refused(_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refused)  # as a kernel before 5.3
    result = run(tmp_path, body, timeout_s=timeout_s)
    assert result.outcome == outcome
    assert result.returncode == (3 if outcome == "done" else -signal.SIGTERM)


def test_children_count_in_the_cpu_time(tmp_path):
    burn = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.3: pass'"
    assert run(tmp_path, f"{burn}").cpu_s > 0.29


def test_threads_and_marker_reach_the_child(tmp_path):
    run(tmp_path, f"echo $OMP_NUM_THREADS ${MARKER}", env=child_environment(threads=3))
    threads, marker = (tmp_path / "out").read_text().split()
    assert threads == "3"
    assert len(marker) == 32
    root = os.geteuid() == 0
    assert ("OMPI_ALLOW_RUN_AS_ROOT" in child_environment()) is root or "OMPI_ALLOW_RUN_AS_ROOT" in os.environ


def test_a_missing_program_is_an_outcome_not_an_exception(tmp_path):
    result = run_process(["no-such-program-x"], cwd=tmp_path, stdout=tmp_path / "o", stderr=tmp_path / "e", timeout_s=1)
    assert result.outcome == "missing"
    assert "no-such-program-x" in result.message
    (tmp_path / "text").write_bytes(b"\x7fnot a program")
    (tmp_path / "text").chmod(0o755)
    out, err = tmp_path / "o", tmp_path / "e"
    result = run_process([str(tmp_path / "text")], cwd=tmp_path, stdout=out, stderr=err, timeout_s=1)
    assert result.outcome == "missing"
    assert "Exec format error" in result.message
    assert not (tmp_path / PGID_FILE).exists()


def test_timeout_ends_the_group_with_grandchildren_even_those_that_ignore_sigterm_or_leave_the_session(tmp_path):
    body = f"""
sleep 300 & echo $! >> {tmp_path}/pids
sh -c 'trap "" TERM; echo $$ >> {tmp_path}/pids; while true; do sleep 0.2; done' &
setsid sh -c 'echo $$ >> {tmp_path}/pids; exec sleep 300' &
echo $$ >> {tmp_path}/pids
wait"""
    start = time.monotonic()
    result = run(tmp_path, body, timeout_s=1.0, grace_s=0.4)
    assert result.outcome == "timeout"
    assert "time limit" in result.message
    assert time.monotonic() - start < 8
    pids = pids_in(tmp_path / "pids")
    assert len(pids) == 4
    assert not [p for p in pids if is_alive(p)]


def test_what_a_finished_program_leaves_behind_is_ended(tmp_path):
    result = run(tmp_path, f"sleep 300 & echo $! > {tmp_path}/pids\nexit 0")
    assert result.outcome == "done"
    assert not is_alive(pids_in(tmp_path / "pids")[0])


def test_a_stopped_process_is_ended_too(tmp_path):
    assert run(tmp_path, "kill -STOP $$; sleep 1", timeout_s=0.5, grace_s=0.2).outcome == "timeout"


def test_cancel_from_another_thread(tmp_path):
    cancel = threading.Event()
    threading.Timer(0.4, cancel.set).start()
    start = time.monotonic()
    assert run(tmp_path, "exec sleep 300", cancel=cancel).outcome == "cancelled"
    assert time.monotonic() - start < 5


def test_a_signal_kills_the_child_with_its_name_in_the_message(tmp_path):
    result = run(tmp_path, "kill -SEGV $$")
    assert result.returncode == -signal.SIGSEGV
    assert "SIGSEGV" in result.message


def test_signals_cancel_first_and_are_delivered_afterwards():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("outer"))
    try:
        event = threading.Event()
        with cancel_on_signals(event), cancel_on_signals(threading.Event()):
            os.kill(os.getpid(), signal.SIGTERM)
            assert event.wait(1)
            assert seen == []
        assert seen == ["outer"]
        with cancel_on_signals(threading.Event()):
            pass
        assert seen == ["outer"]
    finally:
        signal.signal(signal.SIGTERM, before)


RUNNER = """
import sys
from pathlib import Path
from aldriver.label.process import run_process
here = Path(sys.argv[1])
run_process([str(here / "program")], cwd=here, stdout=here / "out", stderr=here / "err", timeout_s=100, grace_s=1)
(here / "returned").touch()
"""


def start_runner(tmp_path):
    script(tmp_path / "program", f"sleep 300 & echo $$ $! > {tmp_path}/pids\nwait")
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)])
    assert wait_for(lambda: len(pids_in(tmp_path / "pids")) == 2, 30)
    return runner, pids_in(tmp_path / "pids")


def test_sigterm_to_the_runner_ends_the_engine_before_the_runner_obeys(tmp_path):
    runner, pids = start_runner(tmp_path)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(20) == -signal.SIGTERM
    assert not [p for p in pids if is_alive(p)]
    assert not (tmp_path / PGID_FILE).exists()
    assert not (tmp_path / "returned").exists()


def test_kill_9_of_the_runner_leaves_an_orphan_that_is_ended_at_the_next_start(tmp_path):
    runner, pids = start_runner(tmp_path)
    assert wait_for(lambda: read_json(tmp_path / PGID_FILE)["pid"] == pids[0])
    assert clean_orphans(tmp_path.parent) == 0  # its starter lives: hands off
    assert all(is_alive(p) for p in pids)
    runner.kill()
    runner.wait(10)
    assert all(is_alive(p) for p in pids)
    record = read_json(tmp_path / PGID_FILE)
    assert record["pgid"] == pids[0]
    assert isinstance(record["start_ticks"], int)
    assert clean_orphans(tmp_path.parent) == 2
    assert wait_for(lambda: not any(is_alive(p) for p in pids), 5)
    assert clean_orphans(tmp_path.parent) == 0
    assert not (tmp_path / PGID_FILE).exists()


def test_an_orphan_is_found_by_its_mark_even_if_its_number_never_reached_the_disk(tmp_path):
    mark = "a" * 32
    orphan = subprocess.Popen(["sleep", "300"], env={**os.environ, MARKER: mark}, start_new_session=True)
    try:
        record = {"pid": None, "start_ticks": None, "marker": mark, "host": os.uname().nodename}
        (tmp_path / PGID_FILE).write_text(dumps(record | {"owner_pid": 2**22 + 1, "owner_start_ticks": 1}))
        assert clean_orphans(tmp_path) == 1
        assert orphan.wait(5) == -signal.SIGTERM
    finally:
        orphan.kill()
        orphan.wait()


def test_a_reused_process_number_is_left_alone(tmp_path):
    innocent = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        record = {"pid": innocent.pid, "start_ticks": 1, "marker": "b" * 32, "host": os.uname().nodename}
        (tmp_path / PGID_FILE).write_text(dumps(record | {"owner_pid": 2**22 + 1, "owner_start_ticks": 1}))
        assert clean_orphans(tmp_path) == 0
        elsewhere = record | {"host": "another-host", "owner_pid": 2**22 + 1, "owner_start_ticks": 1}
        (tmp_path / PGID_FILE).write_text(dumps(elsewhere))
        assert clean_orphans(tmp_path) == 0
        assert (tmp_path / PGID_FILE).exists()
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_zombie_does_not_count_as_alive():
    child = subprocess.Popen(["true"])
    try:
        assert wait_for(lambda: not is_alive(child.pid), 5)
        assert Path(f"/proc/{child.pid}").exists()
    finally:
        child.wait()


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_ranks_that_mpirun_started_end_with_it(tmp_path):
    rank = script(tmp_path / "rank", f"echo $$ >> {tmp_path}/pids\nexec sleep 300")
    launcher = f"exec mpirun -np 2 --oversubscribe {rank}"
    result = run(tmp_path, launcher, timeout_s=4.0, grace_s=2.0)
    pids = pids_in(tmp_path / "pids")
    if result.outcome == "done" and not pids:
        pytest.skip(f"mpirun does not start ranks here: {(tmp_path / 'err').read_text()[:200]}")
    assert result.outcome == "timeout"
    assert len(pids) == 2
    assert not [p for p in pids if is_alive(p)]
