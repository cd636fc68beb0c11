"""One OS process group per label: start, wall-time limit, cancel, CPU time, and the end of orphans after ``kill -9``.

What the process computes, and whether its output is any good, is the engine's module.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from aldriver.core.records import dumps, read_json
from aldriver.core.store import atomic_write

PGID_FILE = "process.json"
"""Written beside a running engine: who runs, who started it; removed when it has ended."""
MARKER = "ALDRIVER_PROCESS"
"""Environment variable that all descendants of an engine inherit: it tells them from a process that reuses the pid."""
_SLICE_S = 0.2
_GRACE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a process ended.

    Attributes
    ----------
    outcome
        ``done`` (it ended by itself), ``timeout``, ``cancelled``, or ``missing`` (it could not be started).
    returncode
        Exit status; negative: the signal that ended it; None when it never started.
    seconds, cpu_s
        Wall time, and user + system CPU time of the process and all the children it waited for.
    message
        A sentence when it did not end with 0.
    """

    outcome: Literal["done", "timeout", "cancelled", "missing"]
    returncode: int | None
    seconds: float
    cpu_s: float
    message: str = ""


def child_environment(*, threads: int = 1) -> dict[str, str]:
    """Environment of an engine: a fixed number of threads; Open MPI may run as root when we do (the child alone)."""
    env = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        env[name] = str(threads)
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env


def run_process(
    command: Sequence[str],
    *,
    cwd: Path,
    stdout: Path,
    stderr: Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cancel: threading.Event | None = None,
    grace_s: float = _GRACE_S,
) -> RunResult:
    """Run a command in a session of its own and wait; when it returns, no process of that session is left.

    At the time limit, on `cancel`, and on SIGTERM/SIGINT/SIGHUP to this process (main thread), the whole session gets
    SIGTERM and, after `grace_s`, SIGKILL; a signal is delivered again afterwards (see :func:`cancel_on_signals`).
    While it runs, ``cwd/process.json`` names it, so that :func:`clean_orphans` can end it if this process is killed.
    """
    cancel = cancel or threading.Event()
    marker = uuid.uuid4().hex
    record = cwd / PGID_FILE
    full_env = {**(child_environment() if env is None else env), MARKER: marker}
    start = time.monotonic()
    with cancel_on_signals(cancel):
        if cancel.is_set():
            return RunResult(outcome="cancelled", returncode=None, seconds=0.0, cpu_s=0.0, message="cancelled")
        # the marker is on disk before the process is there: no moment in which kill -9 leaves an unknown orphan
        _write_record(record, command, marker, pid=None)
        try:
            child = _start(command, cwd, full_env, stdout, stderr)
        except OSError as error:
            record.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            message = f"'{command[0]}' could not be started: {error.strerror}"
            return RunResult(outcome="missing", returncode=None, seconds=0.0, cpu_s=0.0, message=message)
        outcome: Literal["done", "timeout", "cancelled"] = "cancelled"
        try:
            _write_record(record, command, marker, pid=child.pid)
            outcome = _wait(child.pid, start + timeout_s, cancel)
        finally:
            # while the leader is unreaped its pid, and so the session's number, cannot be reused
            end_session(child.pid, marker, grace_s=grace_s if outcome != "done" else 0.5)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            record.unlink(missing_ok=True)
    seconds = time.monotonic() - start
    return RunResult(
        outcome=outcome,
        returncode=child.returncode,
        seconds=seconds,
        cpu_s=usage.ru_utime + usage.ru_stime,
        message=_explain(outcome, child.returncode, seconds),
    )


def _start(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], stdout: Path, stderr: Path
) -> subprocess.Popen[bytes]:
    with stdout.open("wb") as out, stderr.open("wb") as err:
        return subprocess.Popen(
            list(command), cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )


def _wait(pid: int, deadline: float, cancel: threading.Event) -> Literal["done", "timeout", "cancelled"]:
    with _end_of(pid) as ended:
        while True:
            left = deadline - time.monotonic()
            if ended(max(0.0, min(_SLICE_S, left))):
                return "done"
            if cancel.is_set():
                return "cancelled"
            if left <= 0:
                return "timeout"


@contextmanager
def _end_of(pid: int) -> Iterator[Callable[[float], bool]]:
    """A function that waits some seconds for the end of a child and says whether it has come; it reaps nothing."""

    def look(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= end:
                return False
            time.sleep(min(0.02, max(0.0, end - time.monotonic())))
        return True

    try:
        fd = os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3, or a container that forbids it
        yield look
        return
    try:
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(fd, select.POLLIN)
        yield lambda seconds: bool(poll.poll(1e3 * seconds))
    finally:
        os.close(fd)


def _explain(outcome: str, returncode: int, seconds: float) -> str:
    if outcome == "timeout":
        return f"stopped at its time limit after {seconds:.0f} s"
    if outcome == "cancelled":
        return "cancelled"
    if returncode < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-returncode).name}"
        return f"killed by signal {-returncode}"
    return f"exit status {returncode}" if returncode else ""


_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_forwarding = False


@contextmanager
def cancel_on_signals(cancel: threading.Event) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP set `cancel`; at the end of the block the signal is delivered again.

    So the engine's processes end and nothing half-made is published before this process obeys the signal. Works in
    the main thread only (elsewhere Python delivers no signals, and the block does nothing); nested blocks are free.
    """
    global _forwarding
    if _forwarding or threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)
        cancel.set()

    previous = {s: signal.signal(s, note) for s in _FORWARDED if signal.getsignal(s) is not signal.SIG_IGN}
    _forwarding = True
    try:
        yield
    finally:
        _forwarding = False
        for signum, handler in previous.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if received:
            signal.raise_signal(received[0])


def _write_record(path: Path, command: Sequence[str], marker: str, *, pid: int | None) -> None:
    owner = os.getpid()
    data = {
        "pid": pid,
        "pgid": pid,
        "start_ticks": None if pid is None else _start_ticks(pid),
        "marker": marker,
        "owner_pid": owner,
        "owner_start_ticks": _start_ticks(owner),
        "host": socket.gethostname(),
        "command": list(command),
    }
    atomic_write(path, dumps(data))


def _stat(pid: int) -> list[str] | None:
    """Fields of ``/proc/<pid>/stat`` after the name (state first), or None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _start_ticks(pid: int) -> int | None:
    """Start time of a process since boot in clock ticks (field 22 of its stat): pid + start time is unique."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def is_alive(pid: int, start_ticks: int | None = None) -> bool:
    """Whether a process runs (a zombie does not) and, if given, is the one that started at `start_ticks`."""
    fields = _stat(pid)
    return fields is not None and fields[0] not in "ZX" and (start_ticks is None or int(fields[19]) == start_ticks)


def session_members(session: int | None, marker: str) -> list[int]:
    """Living processes of a session, or with our marker in their environment (they may have left the session)."""
    needle = f"{MARKER}={marker}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        fields = _stat(pid)
        if fields is None or fields[0] in "ZX" or pid == os.getpid():
            continue
        if session is not None and int(fields[3]) == session:
            found.append(pid)
            continue
        with suppress(OSError):
            if needle in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def end_session(session: int | None, marker: str, *, grace_s: float = _GRACE_S) -> int:
    """End all living members: SIGTERM, then SIGKILL for those left after `grace_s`. Returns how many there were."""
    members = session_members(session, marker)
    count = len(members)
    deadline = time.monotonic() + grace_s
    signum = signal.SIGTERM
    while members:
        for pid in members:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signum)
        while members and time.monotonic() < deadline:
            time.sleep(0.01)
            members = [p for p in members if is_alive(p)]
        if signum == signal.SIGKILL and time.monotonic() > deadline + 2 * _GRACE_S:
            break  # in the kernel's hands (disk wait); nothing more can be done from here
        members = session_members(session, marker)  # someone may have been born meanwhile
        if members:
            signum = signal.SIGKILL
            time.sleep(0.01)
    return count


def clean_orphans(folder: Path, *, pattern: str = "**", remove: bool = False) -> int:
    """End engines whose starter is gone (killed with SIGKILL, power cut); returns how many processes were ended.

    Looks at every ``process.json`` below `folder`. Engines of a starter that still lives, and those of other
    hosts, are left alone.

    Parameters
    ----------
    pattern
        Glob of the work directories to look at.
    remove
        Also remove the work directories of starters that are gone.
    """
    ended = 0
    for record in sorted(Path(folder).glob(f"{pattern}/{PGID_FILE}")):
        with suppress(FileNotFoundError):
            data = read_json(record)
            if data["host"] != socket.gethostname() or is_alive(data["owner_pid"], data["owner_start_ticks"]):
                continue
            ended += end_session(_session_of(data), data["marker"])
            record.unlink(missing_ok=True)
            if remove:
                shutil.rmtree(record.parent, ignore_errors=True)
    return ended


def _session_of(data: dict[str, Any]) -> int | None:
    """Session number of a record if it can only be ours: its leader lives with the recorded start time."""
    pid, ticks = data["pid"], data["start_ticks"]
    if pid is None or ticks is None:
        return None
    fields = _stat(pid)
    return pid if fields is not None and int(fields[19]) == ticks else None
