"""``aldriver status``: where campaigns stand, from one projected query and the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aldriver.cli.common import Json, console, emit, number

Launchpad = Annotated[Path | None, typer.Option("--launchpad", help="launchpad.yaml to use.")]


def status(
    campaign: Annotated[Path | None, typer.Argument(help="Campaign directory; default: all on the launchpad.")] = None,
    launchpad: Launchpad = None,
    json_to: Json = None,
) -> None:
    """Generation, stage, labels, errors and benchmark per generation, decisions, cost, what runs now, ETA."""
    from aldriver.workflow import status as reader

    if campaign is not None:
        found = [reader.status(campaign, launchpad=launchpad)]
    else:
        found = reader.status_all(launchpad=launchpad)
    if emit(found[0] if campaign is not None else {"campaigns": found}, json_to):
        return
    for one in found:
        show(one)
    if not found:
        console.print("no campaign on this launchpad; `aldriver run RECIPE` starts one")


def show(state: dict[str, Any]) -> None:
    """Print one campaign's status."""
    console.print(state)
