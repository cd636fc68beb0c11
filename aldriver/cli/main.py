"""The ``aldriver`` command: collects the commands and turns errors into messages and exit codes.

Exit codes: 0 done, 1 failed with a reason, 2 bad input.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import aldriver
from aldriver.cli import (
    benchmark,
    campaign,
    compare,
    convert,
    db,
    detector,
    doctor,
    evaluate,
    export,
    label,
    monitor,
    queue,
    report,
    schema,
    status,
    train,
)
from aldriver.cli.common import json_argv, log
from aldriver.core.errors import AldriverError
from aldriver.core.records import dumps

app = typer.Typer(
    help="Refine universal interatomic potentials with just the DFT they need.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(campaign.run)
app.command("launch")(campaign.launch)
app.command("work")(campaign.work)
app.command("resume")(campaign.resume)
app.command("cancel")(campaign.cancel)
app.command("status")(status.status)
app.command("benchmark")(benchmark.benchmark)
app.command("compare")(compare.compare)
app.command("evaluate")(evaluate.evaluate)
app.command("train")(train.train)
app.command("convert")(convert.convert)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.command("schema")(schema.schema)
app.add_typer(label.app, name="label")
app.add_typer(detector.app, name="detector")
app.add_typer(monitor.app, name="monitor")
app.add_typer(db.app, name="db")
app.add_typer(queue.app, name="queue")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"aldriver {aldriver.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script."""
    args = json_argv(sys.argv[1:] if argv is None else argv)
    try:
        app(args=args, prog_name="aldriver")
    except AldriverError as error:
        if "--json" in args:
            sys.stdout.write(dumps({"error": str(error), "exit_code": error.exit_code}) + "\n")
        log.print(f"[bold red]aldriver:[/] {_escaped(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        log.print("stopped; `aldriver resume DIR` goes on from here")
        sys.exit(1)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
