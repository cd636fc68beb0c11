"""Locks by file: a piece of work belongs to one worker at a time, and is free again when that worker dies.

A whole folder that one process holds, and others are turned away from, is ``store.exclusive``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from aldriver.core.errors import StoreError
from aldriver.core.store import disk_errors

_POLL_S = 0.2


@contextmanager
def held(path: Path, *, wait: bool = True, cancel: threading.Event | None = None) -> Iterator[bool]:
    """Hold the lock file `path` (True); False when another holds it and `wait` is off, or `cancel` is set meanwhile.

    The kernel frees it when its holder dies; the file goes with the last holder.

    Raises
    ------
    StoreError
        When the file cannot be made, or the file system has no locks.
    """
    cancel = cancel or threading.Event()
    while True:
        with disk_errors(path):
            handle = path.open("a")
        try:
            while not _taken(handle, path):
                if not wait or cancel.wait(_POLL_S):
                    yield False
                    return
            same = False
            with suppress(FileNotFoundError):
                same = path.stat().st_ino == os.fstat(handle.fileno()).st_ino
            if not same:  # the holder before us removed the file: what we hold is nobody's lock
                continue
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            handle.close()


def remove_left(path: Path) -> None:
    """Remove the lock file of a worker that died when its work was done, just before it would have removed it."""
    if path.exists():
        with held(path, wait=False):
            pass


def _taken(handle: IO[str], path: Path) -> bool:
    """Take the lock, unless another worker holds it (False)."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        raise StoreError(
            f"{path.parent}: this file system has no locks ({error.strerror}), so two workers could do the same work. "
            "Put the campaign on one that has (Lustre: mounted with `flock`)."
        ) from error
