"""Temporary directories: those of the dead go, those of the living stay, whichever host they are on."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from aldriver.core import leftovers
from aldriver.core.leftovers import FORGOTTEN_S, LOST_S, beating, is_left, lives_elsewhere, remove_leftovers
from aldriver.core.store import publish

DEAD = 999999999  # beyond any pid


def temporary(root, host, pid, *, silent_s=0.0):
    folder = root / f".tmp-walker-003-{host}-{pid}-abc123"
    folder.mkdir(parents=True)
    os.utime(folder, (time.time() - silent_s,) * 2)
    return folder


@pytest.mark.parametrize("name", ["login-1.cluster", "plain"])
def test_of_this_host_the_dead_are_removed_at_once_and_the_living_are_not(tmp_path, monkeypatch, name):
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    here = leftovers._host()
    dead = temporary(tmp_path / "generation-001", here, DEAD)
    alive = temporary(tmp_path, here, os.getpid())
    reused = temporary(tmp_path / "labels", here, os.getpid(), silent_s=2 * FORGOTTEN_S)  # the pid is another's by now
    assert remove_leftovers(tmp_path) == 2
    assert (dead.exists(), alive.exists(), reused.exists()) == (False, True, False)


@pytest.mark.parametrize(
    ("silent_s", "lives", "left"), [(1.0, True, False), (2 * LOST_S, False, False), (2 * FORGOTTEN_S, False, True)]
)
def test_of_another_host_only_the_time_since_its_last_sign_counts(tmp_path, silent_s, lives, left):
    for pid in (DEAD, os.getpid()):
        folder = temporary(tmp_path, "node_7", pid, silent_s=silent_s)
        assert (lives_elsewhere(folder), is_left(folder)) == (lives, left)
    assert remove_leftovers(tmp_path) == (2 if left else 0)


def test_what_is_published_names_host_and_process_and_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "BEAT_S", 0.01)
    with publish(tmp_path / "stage") as tmp:
        assert leftovers._writer(tmp) == (leftovers._host(), str(os.getpid()))
        assert not lives_elsewhere(tmp) and not is_left(tmp)
        os.utime(tmp, (0, 0))
        end = time.monotonic() + 60
        while tmp.stat().st_mtime < 1:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not [t for t in threading.enumerate() if t.name == "beat"]


def test_a_directory_that_is_gone_stops_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "BEAT_S", 0.001)
    with beating(tmp_path / "absent"):
        time.sleep(0.05)
    assert lives_elsewhere(tmp_path / ".tmp-x-node_7-1-abc123")  # it has just been published or removed: look again
