"""Publishing, verifying, the ledger and the lock: nothing half-written is ever seen."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aldriver.core import store
from aldriver.core.errors import CampaignBusyError, StoreError
from aldriver.core.leftovers import remove_leftovers


def test_publish_is_all_or_nothing(tmp_path):
    final = tmp_path / "stage"
    with pytest.raises(RuntimeError), store.publish(final) as tmp:
        (tmp / "a.txt").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with store.publish(final) as tmp:
        (tmp / "sub").mkdir()
        (tmp / "sub" / "a.txt").write_text("whole")
        assert not final.exists()
    assert store.is_published(final)
    store.verify(final)


def test_the_first_publisher_stands(tmp_path):
    final = tmp_path / "stage"
    with store.publish(final) as late:
        (late / "who").write_text("late")
        with store.publish(final) as early:
            (early / "who").write_text("early")
    assert (final / "who").read_text() == "early"
    assert [p.name for p in tmp_path.iterdir()] == ["stage"]


@pytest.mark.parametrize(
    ("harm", "message"), [("edit", "was changed"), ("remove", "missing"), ("manifest", "not a pub")]
)
def test_verify_names_the_damaged_file(tmp_path, harm, message):
    final = tmp_path / "stage"
    with store.publish(final) as tmp:
        (tmp / "data.txt").write_text("x")
    if harm == "edit":
        (final / "data.txt").write_text("y")
    else:
        (final / ("data.txt" if harm == "remove" else store.MANIFEST)).unlink()
    with pytest.raises(StoreError, match=message):
        store.verify(final)


def test_full_disk_is_a_clear_error(tmp_path):
    mount = tmp_path / "tiny"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        with pytest.raises(StoreError, match="no space left on the disk"), store.publish(mount / "stage") as tmp:
            (tmp / "big").write_bytes(b"0" * 200_000)
        assert list(mount.iterdir()) == []
        with pytest.raises(StoreError, match="no space left"):
            store.atomic_write(mount / "file", b"0" * 200_000)
    finally:
        subprocess.run(["umount", mount], check=True)


def test_atomic_write_leaves_no_litter(tmp_path):
    path = tmp_path / "file"
    store.atomic_write(path, "one")
    store.atomic_write(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def _append(path: str, worker: int, n: int) -> None:
    ledger = store.Ledger(path)
    for i in range(n):
        ledger.append("tick", worker=worker, i=i)


def test_ledger_survives_many_writers_and_a_torn_line(tmp_path):
    path = tmp_path / "ledger.jsonl"
    context = mp.get_context("fork")
    workers = [context.Process(target=_append, args=(str(path), w, 30)) for w in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    ledger = store.Ledger(path)
    assert sorted((e["worker"], e["i"]) for e in ledger.read()) == [(w, i) for w in range(3) for i in range(30)]
    with path.open("ab") as handle:
        handle.write(b'{"event": "torn", "ti')
    ledger.append("after")
    events = [e["event"] for e in ledger.read()]
    assert "torn" not in events
    assert events[-1] == "after"
    assert ledger.find("tick", worker=1, i=3)[0]["i"] == 3


def test_lock_is_exclusive_and_dies_with_its_process(tmp_path):
    lock = tmp_path / ".lock"
    code = (
        "import sys, time; from pathlib import Path; from aldriver.core.store import exclusive\n"
        "with exclusive(Path(sys.argv[1]), what='the campaign'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(CampaignBusyError, match=f"pid {holder.pid}"), store.exclusive(lock, what="the campaign"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with store.exclusive(lock, what="the campaign"):
        assert f"pid {os.getpid()}" in lock.read_text()


def test_kill_during_publish_leaves_nothing_published(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from aldriver.core.store import publish\n"
        "with publish(Path(sys.argv[1])) as tmp:\n"
        "    (tmp / 'a').write_text('x'); print('in', flush=True); time.sleep(60)"
    )
    final: Path = tmp_path / "stage"
    writer = subprocess.Popen([sys.executable, "-c", code, final], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    time.sleep(0.05)
    assert not final.exists()
    assert remove_leftovers(tmp_path) == 1


def test_many_published_together_are_as_whole_as_one(tmp_path):
    seen = []
    with store.publish_together(tmp_path, at_once=2) as new:
        for k in range(5):
            (new(f"d{k}") / "x").write_text(str(k))
            seen.append([store.is_published(tmp_path / f"d{i}") for i in range(5)].count(True))
    assert seen == [0, 0, 2, 2, 4]  # nothing is seen before it is on disk
    for k in range(5):
        store.verify(tmp_path / f"d{k}")
    with pytest.raises(KeyError), store.publish_together(tmp_path) as new:
        (new("late") / "x").write_text("1")
        (new("d0") / "x").write_text("another")
        raise KeyError
    assert not store.is_published(tmp_path / "late")
    with store.publish_together(tmp_path) as new:
        (new("d0") / "x").write_text("another")
    assert (tmp_path / "d0" / "x").read_text() == "0"  # the first publisher stands
    assert not list(tmp_path.glob(".tmp-*"))
