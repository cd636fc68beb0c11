"""The embedded launchpad database: SecantusDB as a detached service, started on demand and found again.

What is stored in it is FireWorks' business (``launchpad.py``); nothing in it is the truth about a campaign.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.store import atomic_write, disk_errors

HOST = "127.0.0.1"
USER = "aldriver"
DATABASE = "fireworks"
CACHE = "128M"
START_TIMEOUT_S = 40.0
MAX_LOG_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Service:
    """A running server: where it listens and which process it is (`started` tells a reused pid from ours)."""

    host: str
    port: int
    pid: int
    started: float
    home: Path


def state_home() -> Path:
    """``ALDRIVER_HOME``, or ``aldriver`` in the user's state directory (XDG)."""
    if os.environ.get("ALDRIVER_HOME"):
        return Path(os.environ["ALDRIVER_HOME"]).expanduser().resolve()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().resolve() / "aldriver"


def service_home() -> Path:
    """Folder of the embedded database: data, log, credentials and ``service.json``."""
    return state_home() / "launchpad"


def credentials(home: Path | None = None) -> tuple[str, str]:
    """User and password of the embedded database, made at its first start and kept in a 0600 file.

    Raises
    ------
    InputError
        When there is no embedded database yet.
    """
    path = (home or service_home()) / "credentials.json"
    try:
        data = json.loads(path.read_text())
        return data["username"], data["password"]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no embedded launchpad yet; `aldriver db start` makes one") from error
    except (OSError, ValueError, KeyError) as error:
        raise AldriverError(f"{path}: credentials cannot be read ({error})") from error


def find(home: Path | None = None, *, timeout_s: float = 3.0) -> Service | None:
    """The running server, verified by process start time and an authenticated ping; None when there is none."""
    service = _recorded(home or service_home())
    return service if service is not None and _alive(service) and _ping(service, timeout_s) else None


def start(*, port: int | None = None) -> Service:
    """The running server, or a new one on the same data; of racing callers one starts it, the others find it.

    Parameters
    ----------
    port
        Fixed port (default: the last one, else a free one).

    Raises
    ------
    AldriverError
        When it does not come up; the end of its log is quoted.
    InputError
        When a fixed `port` is taken.
    """
    home = service_home()
    with disk_errors(home):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.chmod(0o700)
    with _locked(home):
        service = find(home)
        if service is not None:
            return service
        _end_hung(home)
        service = _adopt(home)
        if service is not None:
            return service
        if not (home / "credentials.json").exists():
            _provision(home)
        return _launch(home, port)


def stop(*, timeout_s: float = 8.0) -> bool:
    """Stop the server this state directory owns; False when none is running.

    One that does not end within `timeout_s` is killed: what it acknowledged is on disk.
    """
    home = service_home()
    if not home.exists():
        return False
    with _locked(home):
        service = _recorded(home)
        if service is None or not _alive(service):
            return False
        _end(service, timeout_s)  # service.json stays: the next start takes the same port, if it can
        return True


def status() -> dict[str, Any]:
    """Plain facts of the embedded database: running, host, port, pid, home, log, size in bytes."""
    home = service_home()
    service = find(home)
    data = home / "db"
    size = sum(f.stat().st_size for f in data.rglob("*") if f.is_file()) if data.exists() else 0
    found = asdict(service) if service is not None else {"host": HOST, "port": None, "pid": None, "started": None}
    return {**found, "running": service is not None, "home": str(home), "log": str(home / "service.log"), "bytes": size}


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / "service.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _recorded(home: Path) -> Service | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        data = json.loads((home / "service.json").read_text())
        return Service(host=data["host"], port=data["port"], pid=data["pid"], started=data["started"], home=home)
    return None


def _record(service: Service) -> None:
    text = json.dumps({**asdict(service), "home": str(service.home)}, indent=2)
    atomic_write(service.home / "service.json", text)


def _start_time(pid: int) -> float | None:
    """Start of a process (s since the epoch); None when it is gone or a zombie."""
    import psutil

    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # bury it if it was our own child
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.create_time()
    return None


def _alive(service: Service) -> bool:
    started = _start_time(service.pid)
    return started is not None and abs(started - service.started) < 2.0


def _ping(service: Service, timeout_s: float, *, auth: bool = True) -> bool:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    kwargs: dict[str, Any] = {}
    if auth:
        try:
            user, password = credentials(service.home)
        except AldriverError:
            return False
        kwargs = {"username": user, "password": password, "authSource": "admin"}
    ms = int(timeout_s * 1000)
    client: Any = MongoClient(
        service.host, service.port, serverSelectionTimeoutMS=ms, connectTimeoutMS=ms, socketTimeoutMS=ms, **kwargs
    )
    try:
        client.admin.command("listDatabases" if auth else "ping")
        return True
    except PyMongoError:
        return False
    finally:
        client.close()


def _adopt(home: Path) -> Service | None:
    """A server on our data whose starter died before it could write ``service.json``."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error, ValueError, OSError):
            if process.uids().real != os.getuid():
                continue
            words = process.cmdline()
            if "secantus" not in words or str(home / "db") not in words or "--auth" not in words:
                continue
            port = int(words[words.index("--port") + 1])
            service = Service(host=HOST, port=port, pid=process.pid, started=process.create_time(), home=home)
            if _wait_up(service, START_TIMEOUT_S, auth=True):
                _record(service)
                return service
    return None


def _end_hung(home: Path) -> None:
    """End a server of ours that lives but does not answer: it holds the data's lock."""
    service = _recorded(home)
    if service is not None and _alive(service) and not _ping(service, 20.0):
        _end(service, 5.0)


def _end(service: Service, timeout_s: float) -> None:
    import psutil

    if not _alive(service):
        return
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(service.pid)
        process.terminate()  # psutil checks the start time again before it signals
        try:
            process.wait(timeout_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(timeout_s)


def _free_port(wanted: int | None) -> int:
    for port in (wanted, 0):
        if port is None:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return probe.getsockname()[1]
    raise AldriverError(f"no free port on {HOST} for the embedded launchpad")


def _spawn(home: Path, port: int, *, auth: bool) -> Service:
    config = home / "secantusd.toml"  # an explicit file, so that no other configuration is discovered
    config.touch()
    command = [sys.executable, "-m", "secantus", "--config", str(config), "--host", HOST, "--port", str(port)]
    command += ["--storage-path", str(home / "db"), "--standalone", "--sync-on-commit", "--cache-size", CACHE]
    command += ["--log-level", "WARNING", *(["--auth"] if auth else [])]
    log = home / "service.log"
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    log.touch(mode=0o600)
    # posix_spawn: nothing of ours is copied, and no object of ours outlives the call
    pid = os.posix_spawn(
        sys.executable,
        command,
        dict(os.environ),
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
        ],
    )
    return Service(host=HOST, port=port, pid=pid, started=_start_time(pid) or time.time(), home=home)


def _inheritable() -> list[int]:
    """Descriptors a child would inherit, such as a campaign's lock, which the server must not hold on to."""
    found = []
    for path in Path("/dev/fd").iterdir():
        with suppress(OSError):
            if int(path.name) > 2 and os.get_inheritable(int(path.name)):
                found.append(int(path.name))
    return found


def _wait_up(service: Service, timeout_s: float, *, auth: bool) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not _alive(service):
            return False
        with socket.socket() as probe:
            probe.settimeout(1.0)
            listening = probe.connect_ex((service.host, service.port)) == 0
        if listening and _ping(service, 5.0, auth=auth):
            return _alive(service)
        time.sleep(0.05)
    return False


def _provision(home: Path) -> None:
    """Create the database user. The server knows users only from a first start without authentication."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    password = secrets.token_urlsafe(24)
    service = _spawn(home, _free_port(None), auth=False)
    try:
        if not _wait_up(service, START_TIMEOUT_S, auth=False):
            raise AldriverError(_failure(home))
        client: Any = MongoClient(service.host, service.port, serverSelectionTimeoutMS=5000)
        try:
            for user in client.admin.command("usersInfo")["users"]:  # of an earlier, interrupted start
                client.admin.command("dropUser", user["user"])
            client.admin.command("createUser", USER, pwd=password, roles=["root"])
            users = [user["user"] for user in client.admin.command("usersInfo")["users"]]
        except PyMongoError as error:
            raise AldriverError(f"the embedded launchpad could not be set up: {error}") from error
        finally:
            client.close()
        if users != [USER]:
            raise AldriverError(f"the embedded launchpad has users nobody asked for ({users}); remove {home}")
    finally:
        _end(service, 10.0)
    path = home / "credentials.json"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        json.dump({"username": USER, "password": password}, handle)
        handle.flush()
        os.fsync(handle.fileno())


def _launch(home: Path, fixed: int | None) -> Service:
    last = _recorded(home)
    wanted = fixed if fixed is not None else (last.port if last is not None else None)
    for _ in range(3):
        port = _free_port(wanted)
        if fixed is not None and port != fixed:
            raise InputError(
                f"port {fixed} of {HOST} is taken by another program. Give another `port:` in launchpad.yaml, "
                "or leave it out and a free one is used."
            )
        service = _spawn(home, port, auth=True)
        _record(service)  # before it answers: whoever comes next must know the process that holds the data
        if _wait_up(service, START_TIMEOUT_S, auth=True):
            return service
        _end(service, 5.0)
        if fixed is None:
            wanted = None  # taken between the probe and the start: another free one
    (home / "service.json").unlink(missing_ok=True)
    raise AldriverError(_failure(home))


def _failure(home: Path) -> str:
    log = home / "service.log"
    tail = log.read_text(errors="replace").strip().splitlines()[-5:] if log.exists() else []
    quoted = "\n  ".join(tail) or "(empty)"
    return f"the embedded launchpad did not start. The end of {log}:\n  {quoted}"
