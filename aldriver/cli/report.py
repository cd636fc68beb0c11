"""``aldriver report``: one self-contained HTML file of a campaign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aldriver.cli.common import Json, console, emit
from aldriver.core.errors import InputError


def report(
    campaign: Annotated[Path, typer.Argument(help="Campaign directory.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file; default: report.html in the campaign.")] = None,
    json_to: Json = None,
) -> None:
    """Write a self-contained HTML report: errors, parity, detector, benchmark, labels, decisions."""
    if not (campaign / "campaign.json").is_file():
        raise InputError(f"{campaign}: not a campaign directory (campaign.json is missing)")
    from aldriver.report import write_report

    path = write_report(campaign, out or campaign / "report.html")
    if not emit({"report": path}, json_to):
        console.print(f"Report: {path}")
