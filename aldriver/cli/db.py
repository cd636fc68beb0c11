"""``aldriver db``: the embedded launchpad database: start, stop, status, and a file for plain ``lpad``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aldriver.cli.common import Json, console, emit

app = typer.Typer(help="The embedded launchpad database (127.0.0.1 only).", no_args_is_help=True)


@app.command()
def start(json_to: Json = None) -> None:
    """Start it, or find the one that runs."""
    from aldriver.workflow import service

    found = service.start()
    if not emit(
        {"running": True, "host": found.host, "port": found.port, "pid": found.pid, "home": found.home}, json_to
    ):
        console.print(f"running on {found.host}:{found.port} (pid {found.pid}), data in {found.home}")


@app.command()
def stop(json_to: Json = None) -> None:
    """Stop it; everything acknowledged is on disk."""
    from aldriver.workflow import service

    stopped = service.stop()
    if not emit({"stopped": stopped}, json_to):
        console.print("stopped" if stopped else "was not running")


@app.command()
def status(json_to: Json = None) -> None:
    """Where it is, and whether it answers."""
    from aldriver.workflow import service

    state = service.status()
    if not emit(state, json_to):
        for key, value in state.items():
            console.print(f"{key}: {value}")


@app.command("launchpad-file")
def launchpad_file(
    path: Annotated[Path, typer.Argument(help="File to write; it holds the password (0600).")] = Path(
        "my_launchpad.yaml"
    ),
    json_to: Json = None,
) -> None:
    """Write a FireWorks launchpad file, for `lpad -l FILE ...`."""
    from aldriver.workflow.launchpad import write_launchpad_file

    written = write_launchpad_file(path)
    if not emit({"file": written}, json_to):
        console.print(f"{written}: use it as `lpad -l {written} get_wflows`")
