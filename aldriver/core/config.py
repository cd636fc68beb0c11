"""The user's configuration: which Python runs what needs an environment of its own (families of potentials, GPAW).

It lies in ``~/.config/aldriver.toml`` (``$XDG_CONFIG_HOME`` is respected; ``$ALDRIVER_CONFIG`` names another file)::

    [backends.sevennet]
    python = "/path/to/environment/bin/python"

``python -m aldriver.core.config set backends.sevennet.python PATH`` writes it. Starting that Python is
the business of ``potentials/remote.py`` and ``label/gpaw.py``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.store import atomic_write

BACKENDS = {
    "gpaw": "run `make setup-gpaw` in a checkout of aldriver",
    "sevennet": "run `make setup-sevennet` in a checkout of aldriver",
    "mace": "install it beside aldriver with `pip install 'aldriver[mace]'`",
}
"""What may need a Python of its own, and how to get it."""
KEYS = ("python",)


def config_path() -> Path:
    """Where the configuration lies, whether it is there or not."""
    named = os.environ.get("ALDRIVER_CONFIG")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "aldriver.toml"


def backend_python(backend: str) -> Path | None:
    """The Python of a backend: as configured, else of the environment ``make setup-<backend>`` makes; None if neither.

    Raises
    ------
    InputError
        When the configuration is not understood, or what it names is not there.
    """
    named = _load(config_path()).get(backend, {}).get("python")
    if named is None:
        beside = Path(__file__).resolve().parents[2] / f".venv-{backend}" / "bin" / "python"
        return beside if beside.is_file() else None
    python = Path(named).expanduser()
    if not (python.is_absolute() and python.is_file() and os.access(python, os.X_OK)):
        raise InputError(
            f"{config_path()}: backends.{backend}.python = {named!r} is not the absolute path of a Python; "
            f"correct it, or {BACKENDS[backend]}"
        )
    return python


def required_python(backend: str) -> Path:
    """As :func:`backend_python`, but its absence is an error that says what to run.

    Raises
    ------
    InputError
        When no Python is configured.
    """
    python = backend_python(backend)
    if python is None:
        raise InputError(
            f"potentials of the family '{backend}' cannot run in this Python, and no other is configured: "
            f"{BACKENDS[backend]}, or name a Python that has aldriver and the family's package with "
            f"`python -m aldriver.core.config set backends.{backend}.python /path/to/bin/python`"
        )
    return python


def set_value(key: str, value: str, *, keep: bool = False) -> bool:
    """Write one value into the configuration, leaving the rest of the file (comments too) as it is.

    Parameters
    ----------
    key
        ``backends.<name>.python``.
    keep
        Leave the file alone when it has this key already.

    Returns
    -------
    bool
        Whether the file holds this value now.

    Raises
    ------
    InputError
        When the key is unknown, or the file is not understood or written in a way that only its author can change.
    """
    match = re.fullmatch(r"backends\.(\w+)\.(\w+)", key)
    if not match or match[1] not in BACKENDS or match[2] not in KEYS:
        raise InputError(
            f"unknown key '{key}'; there is {', '.join(f'backends.{b}.{k}' for b in BACKENDS for k in KEYS)}"
        )
    backend, name = match.groups()
    path = config_path()
    present = _load(path).get(backend, {}).get(name)
    if present == value or (present is not None and keep):
        return present == value
    lines = path.read_text().splitlines() if path.is_file() else []
    text = "\n".join(_with(lines, backend, f"{name} = {_quoted(value)}")) + "\n"
    try:
        _read(text, path)
        written = tomllib.loads(text)["backends"][backend][name] == value
    except (InputError, tomllib.TOMLDecodeError, KeyError, TypeError):
        written = False
    if not written:
        raise InputError(
            f"{path}: is written in a way that cannot be changed safely; put {key} = {_quoted(value)} there"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text)
    return True


def _with(lines: list[str], backend: str, entry: str) -> list[str]:
    """The lines with an entry of ``[backends.<backend>]`` set: replaced, put under its header, or appended."""
    key = entry.split(" ")[0]
    header = re.compile(rf"\s*\[\s*backends\s*\.\s*{backend}\s*\]\s*(#.*)?$")
    start = next((i for i, line in enumerate(lines) if header.match(line)), None)
    if start is None:
        return [*lines, *([""] if lines and lines[-1].strip() else []), f"[backends.{backend}]", entry]
    for i in range(start + 1, len(lines)):
        if lines[i].lstrip().startswith("["):
            break
        if re.match(rf"\s*{key}\s*=", lines[i]):
            return [*lines[:i], entry, *lines[i + 1 :]]
    return [*lines[: start + 1], entry, *lines[start + 1 :]]


def _quoted(value: str) -> str:
    """A TOML basic string."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _load(path: Path) -> dict[str, dict[str, str]]:
    """``backends`` of the file; empty where there is no file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    return _read(text, path)


def _read(text: str, path: Path) -> dict[str, dict[str, str]]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    _check(data, ("backends",), "", text, path)
    backends = _table(data.get("backends", {}), "backends", text, path)
    _check(backends, BACKENDS, "backends.", text, path)
    for backend, entries in backends.items():
        _check(_table(entries, f"backends.{backend}", text, path), KEYS, f"backends.{backend}.", text, path)
        for key, value in entries.items():
            if not isinstance(value, str):
                line = _line(text, key)
                raise InputError(f"{path}, line {line}: backends.{backend}.{key} must be a string (got {value!r})")
    return backends


def _table(value: Any, name: str, text: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}, line {_line(text, name.split('.')[-1])}: {name} must be a table (got {value!r})")
    return value


def _check(table: dict[str, Any], allowed: Collection[str], prefix: str, text: str, path: Path) -> None:
    for key in table:
        if key not in allowed:
            names = ", ".join(prefix + name for name in allowed)
            raise InputError(f"{path}, line {_line(text, key)}: unknown key '{prefix}{key}'; allowed: {names}")


def _line(text: str, key: str) -> int:
    """Line (1-based) on which a key stands, as a table's name or before an equals sign."""
    word = rf"""(?:^|[\s.\["']){re.escape(key)}["']?\s*[\].=]"""
    return next((i for i, line in enumerate(text.splitlines(), 1) if re.search(word, line.split("#")[0])), 1)


def main(argv: Sequence[str] | None = None) -> int:
    """``set KEY VALUE`` writes a value, ``path`` says where the configuration lies."""
    parser = argparse.ArgumentParser(prog="python -m aldriver.core.config", description="The user's configuration.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("path", help="print where it lies")
    setter = commands.add_parser("set", help="write a value")
    setter.add_argument("key", help="e.g. backends.sevennet.python")
    setter.add_argument("value")
    setter.add_argument("--keep", action="store_true", help="leave the file alone when it has the key already")
    options = parser.parse_args(argv)
    try:
        if options.command == "path":
            print(config_path())
        elif set_value(options.key, options.value, keep=options.keep):
            print(f"{config_path()}: {options.key} = {_quoted(options.value)}")
        else:
            print(f"{config_path()}: has another {options.key} and was left alone. To use this one, put there:")
            print(f"    {options.key.split('.')[-1]} = {_quoted(options.value)}")
    except AldriverError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
