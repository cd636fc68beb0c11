"""Temporary directories: who writes in one, whether that writer lives, and the removal of what dead ones left.

A name says host and process. Of a process on another host nothing else is known, so that every writer touches its
directory once in a while; who has not for long is dead. What a directory becomes is ``store.py``'s business.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".tmp-"
BEAT_S = 30.0
"""How often a writer touches its directory."""
LOST_S = 600.0
"""A writer on another host that has not touched its directory for so long is dead (clocks may differ by minutes)."""
FORGOTTEN_S = 86400.0
"""Age at which what another host left is removed: a writer that was suspended, not dead, must not lose its work."""


def temporary_sibling(final: Path) -> Path:
    """Name of a new temporary directory beside `final`, with this host and process in it."""
    return final.with_name(f"{PREFIX}{final.name}-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:6]}")


@contextmanager
def beating(folder: Path) -> Iterator[None]:
    """Touch `folder` every ``BEAT_S`` seconds within the block."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_S):
            with suppress(OSError):
                os.utime(folder)

    thread = threading.Thread(target=beat, daemon=True, name="beat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def lives_elsewhere(folder: Path) -> bool:
    """Whether a temporary directory belongs to a writer on another host that gave a sign of life of late."""
    return _writer(folder)[0] != _host() and _silence_s(folder) < LOST_S


def is_left(folder: Path) -> bool:
    """Whether the writer of a temporary directory is gone: a process of this host that ended, or long forgotten."""
    host, pid = _writer(folder)
    if host == _host() and not Path(f"/proc/{pid}").exists():
        return True
    return _silence_s(folder) > FORGOTTEN_S


def remove_leftovers(root: Path, *, pattern: str = f"**/{PREFIX}*") -> int:
    """Remove temporary directories below `root` whose writers are gone; returns how many."""
    count = 0
    for folder in sorted(Path(root).glob(pattern)):
        if folder.is_dir() and is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)
            count += not folder.exists()
    return count


def _host() -> str:
    """This host, without the character that separates the parts of a name."""
    return re.sub(r"[^\w.]", "_", socket.gethostname())


def _writer(folder: Path) -> tuple[str, str]:
    """Host and process in a name; of a name of another form, empty ones, which are nobody's here."""
    match = re.search(r"-([\w.]+)-(\d+)-[0-9a-f]{6}$", folder.name)
    return (match[1], match[2]) if match else ("", "")


def _silence_s(folder: Path) -> float:
    """Seconds since the directory was touched; 0 when it is gone by now."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
