"""Which launchpad to use, and a FireWorks ``LaunchPad`` on it: embedded by default, any MongoDB by ``launchpad.yaml``.

Starting the embedded database is ``service.py``'s business; what goes onto the launchpad is ``generation.py``'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.yamlfile import line_of, load_yaml
from aldriver.workflow import service

if TYPE_CHECKING:
    from fireworks import LaunchPad

FILE = "launchpad.yaml"
LOCK_SECONDS = 10
"""A workflow lock older than this belongs to a dead process (FireWorks: 300 s, and then it gives up)."""
PING_SECONDS = 30
TIMEOUT_S = 8.0
"""How long a lost server is waited for: longer than the embedded one needs to come back."""
_KEYS = {
    *("embedded", "host", "port", "name", "uri", "username", "password", "authsource", "uri_mode"),
    *("mongoclient_kwargs", "logdir", "strm_lvl", "user_indices", "wf_user_indices"),
}


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach a launchpad; the password is never shown by ``repr`` or :meth:`describe`."""

    embedded: bool
    host: str
    port: int | None
    name: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    authsource: str | None = None
    uri_mode: bool = False
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    source: Path | None = None

    def describe(self) -> str:
        """Where it is, safe to print."""
        if self.embedded:
            return f"embedded database on {self.host}:{self.port}"
        host = re.sub(r"//[^@/]*@", "//", self.host.split("?")[0]) if self.uri_mode else f"{self.host}:{self.port}"
        return f"MongoDB {host}, database {self.name} ({self.source})"

    def client(self, *, timeout_s: float = 15.0) -> Any:
        """A pymongo client (light: no FireWorks)."""
        from pymongo import MongoClient

        ms = int(timeout_s * 1000)
        options = {"serverSelectionTimeoutMS": ms, "connectTimeoutMS": ms, "tz_aware": False} | self.options
        if self.uri_mode:
            return MongoClient(self.host, **options)
        if self.username:
            options |= {"username": self.username, "password": self.password, "authSource": self.authsource}
        return MongoClient(self.host, self.port, **options)


def connection(path: Path | None = None, *, start: bool = True) -> Connection | None:
    """Where the launchpad is.

    Looked up in this order: `path`; ``./launchpad.yaml`` if it names a host or URI; the file in the environment
    variable ``ALDRIVER_LAUNCHPAD``; the embedded database, which is started unless `start` is False (then None when it
    is not running).

    Raises
    ------
    InputError
        When a file is missing or not understood.
    """
    port: int | None = None
    for file, explicit in _candidates(path):
        settings = _read(file)
        if settings.get("host") or settings.get("uri"):
            return _mongodb(settings, file)
        port = settings.get("port")
        if explicit:
            break
    found = service.start(port=port) if start else service.find()
    return None if found is None else _embedded(found)


def describe(path: Path | None = None) -> str:
    """One line on the launchpad that would be used; starts nothing."""
    where = connection(path, start=False)
    return where.describe() if where else f"embedded database (not running) in {service.service_home()}"


def connect(path: Path | None = None, *, timeout_s: float = TIMEOUT_S) -> LaunchPad:
    """FireWorks ``LaunchPad``, reachable and with its indexes; `timeout_s` is how long it waits for a lost server.

    Raises
    ------
    InputError
        When the launchpad file is not understood.
    AldriverError
        When the database cannot be reached.
    """
    where = connection(path)
    assert where is not None
    return open_launchpad(where, timeout_s=timeout_s)


def open_launchpad(where: Connection, *, timeout_s: float = TIMEOUT_S) -> LaunchPad:
    """FireWorks ``LaunchPad`` of a connection; see :func:`connect`."""
    from pymongo.errors import PyMongoError

    prepare_fireworks()
    from fireworks import LaunchPad

    options = {"serverSelectionTimeoutMS": int(timeout_s * 1000)} | where.options
    user: dict[str, Any] = {}
    if where.username and not where.uri_mode:
        user = {"username": where.username, "password": where.password, "authsource": where.authsource}
    launchpad = None
    try:
        launchpad = LaunchPad(
            host=where.host,
            port=where.port,
            name=where.name,
            uri_mode=where.uri_mode,
            strm_lvl="CRITICAL",
            user_indices=["spec.campaign"],
            wf_user_indices=["metadata.campaign"],
            mongoclient_kwargs=options,
            **user,
        )
        _initialise(launchpad)
    except PyMongoError as error:
        if launchpad is not None:
            launchpad.connection.close()
        hint = "see `aldriver db status`" if where.embedded else f"check {where.source} and the network"
        raise AldriverError(f"the launchpad ({where.describe()}) cannot be used: {_short(error)}; {hint}") from error
    return launchpad


@contextmanager
def session(path: Path | None = None) -> Iterator[LaunchPad]:
    """A launchpad for the length of a block; see :func:`connect`."""
    launchpad = connect(path)
    try:
        yield launchpad
    finally:
        launchpad.connection.close()


def write_launchpad_file(path: Path, *, launchpad: Path | None = None) -> Path:
    """Write a file for plain ``lpad -l FILE``; 0600, because it holds the password.

    Raises
    ------
    InputError
        When the file exists already or its folder does not.
    """
    import yaml

    where = connection(launchpad)
    assert where is not None
    content: dict[str, Any] = {"host": where.host, "port": where.port, "name": where.name, "uri_mode": where.uri_mode}
    content |= {"username": where.username, "password": where.password, "authsource": where.authsource}
    content |= {"mongoclient_kwargs": where.options, "logdir": None, "strm_lvl": "INFO"}
    content |= {"user_indices": ["spec.campaign"], "wf_user_indices": ["metadata.campaign"]}
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InputError(f"{path}: exists already; name a new file") from error
    with os.fdopen(descriptor, "w") as handle:
        yaml.safe_dump({k: v for k, v in content.items() if v not in (None, {})}, handle, sort_keys=False)
    return path


def prepare_fireworks() -> None:
    """Import FireWorks with settings under which a dead worker holds nobody up and nothing is printed."""
    from fireworks.core import launchpad as fw_launchpad
    from fireworks.core import rocket

    # the class keeps the values of import time as defaults, so that changing the configuration would come too late
    fw_launchpad.WFLock.__init__.__defaults__ = (LOCK_SECONDS, True)
    rocket.PING_TIME_SECS = PING_SECONDS
    rocket.PRINT_FW_JSON = False
    rocket.ROCKET_STREAM_LOGLEVEL = "CRITICAL"


def _initialise(launchpad: LaunchPad) -> None:
    """Counters and indexes of a new database, without touching what an old one holds (`reset` would)."""
    result = launchpad.fw_id_assigner.update_one(
        {}, {"$setOnInsert": {"next_fw_id": 1, "next_launch_id": 1}}, upsert=True
    )
    if result.upserted_id is not None:
        launchpad.tuneup()
    else:
        launchpad.fireworks.create_index("spec.campaign", background=True)
        launchpad.workflows.create_index("metadata.campaign", background=True)


def _candidates(path: Path | None) -> list[tuple[Path, bool]]:
    """Launchpad files to look at, and whether the user named them."""
    if path is not None:
        return [(Path(path), True)]
    found = []
    if Path(FILE).is_file():
        found.append((Path(FILE).resolve(), False))
    if os.environ.get("ALDRIVER_LAUNCHPAD"):
        found.append((Path(os.environ["ALDRIVER_LAUNCHPAD"]).expanduser(), True))
    return found


def _read(path: Path) -> dict[str, Any]:
    data, lines = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: a launchpad file is a mapping of keys such as `embedded`, `host`, `uri`")
    for key in data:
        if key not in _KEYS:
            allowed = ", ".join(sorted(_KEYS))
            raise InputError(f"{path}, line {line_of(lines, (key,))}: unknown key '{key}'; allowed: {allowed}")
    port = data.get("port")
    if port is not None and not (isinstance(port, int) and 0 < port < 65536):
        raise InputError(
            f"{path}, line {line_of(lines, ('port',))}: port must be a number from 1 to 65535 (got {port!r})"
        )
    return data


def _mongodb(settings: dict[str, Any], file: Path) -> Connection:
    if settings.get("embedded"):
        raise InputError(f"{file}: `embedded: true` and a host or uri exclude each other; remove one")
    uri = settings.get("uri") or (settings["host"] if settings.get("uri_mode") else None)
    name = settings.get("name") or "fireworks"
    return Connection(
        embedded=False,
        host=uri or settings["host"],
        port=None if uri else settings.get("port") or 27017,
        name=name,
        username=settings.get("username"),
        password=settings.get("password"),
        authsource=settings.get("authsource") or name,
        uri_mode=uri is not None,
        options=settings.get("mongoclient_kwargs") or {},
        source=file,
    )


def _embedded(found: service.Service) -> Connection:
    user, password = service.credentials(found.home)
    return Connection(
        embedded=True,
        host=found.host,
        port=found.port,
        name=service.DATABASE,
        username=user,
        password=password,
        authsource="admin",
    )


def _short(error: Exception) -> str:
    return str(error).split(", full error")[0].split(", Timeout")[0][:300]
