"""What all commands share: where output goes, JSON, progress bars, loading with clear errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from aldriver.core.errors import InputError
from aldriver.core.records import dumps
from aldriver.core.store import atomic_write

Json = Annotated[
    str | None,
    typer.Option("--json", metavar="[FILE]", help="Write the result as JSON to FILE, or to stdout without FILE."),
]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]

console = Console()
log = Console(stderr=True)


def json_argv(argv: list[str]) -> list[str]:
    """Let ``--json`` stand alone or take a file: a bare one becomes ``--json -``.

    What follows is taken as the file unless it is an option, an existing directory, or an existing file that is not
    ``.json``: ``aldriver status --json DIR`` and ``aldriver run --json recipe.yaml`` mean what they look like.
    """
    out = []
    for i, arg in enumerate(argv):
        out.append(arg)
        if arg != "--json":
            continue
        following = argv[i + 1] if i + 1 < len(argv) else None
        if following is None or (following.startswith("-") and following != "-"):
            out.append("-")
        elif following != "-":
            path = Path(following)
            if path.is_dir() or (path.exists() and path.suffix != ".json"):
                out.append("-")
    return out


def emit(result: Any, json_to: str | None) -> bool:
    """Write `result` as JSON if asked for; True when that happened (so that tables are left out on stdout)."""
    if json_to is None:
        return False
    if json_to == "-":
        sys.stdout.write(dumps(result) + "\n")
        return True
    path = Path(json_to)
    if not path.parent.is_dir():
        raise InputError(f"--json {path}: the folder {path.parent} does not exist")
    atomic_write(path, dumps(result) + "\n")
    return False


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Any]:
    """Progress bar with time left on stderr; yields ``advance(note="", n=1)``, with ``advance.to(done, total)``."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=log, transient=True) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(note: str = "", n: int = 1) -> None:
            bar.update(task, advance=n, note=note)

        advance.to = lambda done, total: bar.update(task, completed=done, total=total)  # type: ignore[attr-defined]
        yield advance


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; an em dash where there is none."""
    return "—" if value is None else f"{value:.{digits}g}"


def shown(value: float | None, error: float | None) -> str:
    """A value with its error for a table, left out where it is below the digits shown: ``2.855``, ``243.3 ± 1``."""
    if value is None or error is None or not abs(error) > 0.0005 * abs(value):
        return number(value)
    return f"{number(value)} ± {number(error, 1)}"
