"""The store: immutable published directories, the append-only ledger, the campaign lock.

Files are the truth: a stage writes into a temporary sibling and publishes it with one rename, together with a manifest
of SHA-256 sums. What is in the directories is the stages' business.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aldriver.core.errors import CampaignBusyError, StoreError
from aldriver.core.leftovers import beating, temporary_sibling
from aldriver.core.records import dumps, read_json

MANIFEST = "manifest.json"


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    """Flush a file or directory to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn 'no space', 'read-only' and 'permission denied' into one clear error naming the place."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{where}: no space left on the disk. Free some space and run `aldriver resume`: "
                "everything published so far is safe."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES):
            raise StoreError(f"{where}: cannot be written ({error.strerror})") from error
        raise


def atomic_write(path: Path, data: str | bytes) -> None:
    """Replace a file in one step: a reader sees the old text or the new, never a part."""
    path = Path(path)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}.tmp")
    with disk_errors(path):
        try:
            with tmp.open("wb") as handle:
                handle.write(data.encode() if isinstance(data, str) else data)
                handle.flush()
                os.fsync(handle.fileno())
            tmp.replace(path)
            fsync_path(path.parent)
        finally:
            tmp.unlink(missing_ok=True)


@contextmanager
def publish(final: Path) -> Iterator[Path]:
    """Write a directory atomically: yields a temporary sibling, renames it to `final` when the block ends well.

    If another process published `final` meanwhile, ours is dropped: the first one stands. On an exception nothing
    is published and the temporary directory is removed.

    Raises
    ------
    StoreError
        When the disk is full or not writable.
    """
    final = Path(final)
    tmp = temporary_sibling(final)
    with disk_errors(final):
        try:
            tmp.mkdir(parents=True)
            with beating(tmp):
                yield tmp
                _write_manifest(tmp)
            try:
                tmp.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not is_published(final):
                    raise
            fsync_path(final.parent)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)


@contextmanager
def publish_together(root: Path, *, at_once: int = 500) -> Iterator[Callable[[str], Path]]:
    """Publish many small directories below `root`, each as whole as by `publish`, with one flush for `at_once` of them.

    Yields a function: name of a directory to the temporary folder to fill before it is called again. When the process
    dies, or on an exception, those not yet published leave nothing but temporary folders (``remove_leftovers``).

    Raises
    ------
    StoreError
        When the disk is full or not writable.
    """
    waiting: dict[Path, Path] = {}

    def flush() -> None:
        for tmp in waiting:
            _write_manifest(tmp, flush=False)
        os.sync()  # contents reach the disk before their names do
        for tmp, final in waiting.items():
            if is_published(final):
                shutil.rmtree(tmp)
            else:
                tmp.rename(final)
        fsync_path(root)
        waiting.clear()

    def new(name: str) -> Path:
        if len(waiting) >= at_once:
            flush()
        tmp = temporary_sibling(root / name)
        tmp.mkdir(parents=True)
        waiting[tmp] = root / name
        return tmp

    with disk_errors(root):
        try:
            yield new
            flush()
        finally:
            for tmp in waiting:
                shutil.rmtree(tmp, ignore_errors=True)


def _write_manifest(folder: Path, *, flush: bool = True) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    sums = {}
    for path in files:
        if flush:
            fsync_path(path)
        sums[path.relative_to(folder).as_posix()] = sha256_file(path)
    text = dumps({"published": time.time(), "host": socket.gethostname(), "files": sums})
    if flush:
        atomic_write(folder / MANIFEST, text)
    else:
        (folder / MANIFEST).write_text(text)


def is_published(folder: Path) -> bool:
    """Whether a stage directory is complete (its manifest exists)."""
    return (Path(folder) / MANIFEST).is_file()


def verify(folder: Path) -> None:
    """Check each file of a published directory against its manifest.

    Raises
    ------
    StoreError
        Naming the first file that is missing or was changed.
    """
    folder = Path(folder)
    if not is_published(folder):
        raise StoreError(f"{folder}: not a published directory ({MANIFEST} is missing)")
    for name, digest in read_json(folder / MANIFEST)["files"].items():
        path = folder / name
        if not path.is_file():
            raise StoreError(f"{path}: listed in {MANIFEST} but missing")
        if sha256_file(path) != digest:
            raise StoreError(f"{path}: was changed after it was published (SHA-256 differs from {MANIFEST})")


class Ledger:
    """Append-only list of commit points (``ledger.jsonl``), one JSON object a line.

    Appends are atomic between processes (one locked write, flushed to disk); a torn last line after a power cut is
    skipped on reading and repaired by the next append.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Add an event (``event`` and ``time`` plus `fields`); returns the entry."""
        entry = {"event": event, "time": time.time(), **fields}
        with disk_errors(self.path), self.path.open("a+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            handle.seek(0, os.SEEK_END)
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                torn = handle.read(1) != b"\n"
                handle.seek(0, os.SEEK_END)
                if torn:
                    handle.write(b"\n")
            handle.write(dumps(entry, indent=None).encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
        return entry

    def read(self) -> list[dict[str, Any]]:
        """All entries, oldest first; a torn line is skipped."""
        if not self.path.exists():
            return []
        entries = []
        for line in self.path.read_text().splitlines():
            with suppress(ValueError):
                entries.append(json.loads(line))
        return entries

    def find(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Entries of one kind whose fields match."""
        return [e for e in self.read() if e.get("event") == event and all(e.get(k) == v for k, v in fields.items())]


@contextmanager
def exclusive(path: Path, *, what: str) -> Iterator[int]:
    """Hold an exclusive lock file; the kernel frees it when the process dies, however it dies.

    Yields the file descriptor: processes that inherit it keep the lock until the last of them has died.

    Raises
    ------
    CampaignBusyError
        When another process holds it; the message names that process.
    """
    path = Path(path)
    with disk_errors(path):
        handle = path.open("a+")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            raise CampaignBusyError(f"{what} is in use by {holder}. Wait for it, or stop it first.") from error
        handle.seek(0)
        handle.truncate()
        handle.write(f"pid {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield handle.fileno()
