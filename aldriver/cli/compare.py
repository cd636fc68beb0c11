"""``aldriver compare``: potentials side by side against a reference, as a table and as an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from aldriver.cli.benchmark import measured, suite_settings
from aldriver.cli.common import Device, Json, console, emit, number, shown
from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from aldriver.benchmark.comparison import Candidate, Comparison
    from aldriver.benchmark.reference import Target
    from aldriver.benchmark.score import Key
    from aldriver.core.recipe_benchmark import Benchmark

CAMPAIGN_FILE = "campaign.json"


def compare(
    what: Annotated[
        list[str],
        typer.Argument(help="Results of `aldriver benchmark --json`, campaigns, or potentials with --suite."),
    ],
    reference: Annotated[
        str | None, typer.Option("--reference", help="A result or a campaign; default: published DFT.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Also potentials whose values are printed in papers.")
    ] = False,
    suite: Annotated[
        str | None, typer.Option("--suite", help="What potentials are benchmarked on, as for `aldriver benchmark`.")
    ] = None,
    structure: Annotated[
        list[str] | None, typer.Option("--structure", help="As for `aldriver benchmark`; may be repeated.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write the table with plots to this page.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes that share the work.")] = 1,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder that keeps finished relaxations of potentials.")
    ] = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Compare A B ...: each value with its error and deviation, a score on a fixed scale, and a figure of merit."""
    from aldriver.benchmark import comparison

    settings = suite_settings(suite, structure or []) if suite or structure else None
    candidates: list[Candidate] = []
    for name in what:
        candidates += _candidates(name, settings, workers=workers, cache=cache, device=device)
    if published:
        cases = dict.fromkeys(r.case for c in candidates for r in c.records)
        candidates += comparison.published_candidates(cases)
    found = comparison.compare(candidates, None if reference is None else targets(reference))
    if html is not None:
        from aldriver.report.verdict import write_page

        write_page(found, html, candidates)
    if not emit(found, json_to):
        _show(found)
        if html is not None:
            console.print(f"Page: {html}")


def targets(reference: str) -> dict[Key, Target]:
    """Reference values of a result of ``aldriver benchmark``, or those a campaign is judged against.

    Raises
    ------
    InputError
        When it is neither, or holds no value that can be trusted.
    """
    from aldriver.benchmark.comparison import read_candidate, targets_of

    path = Path(reference)
    if (path / CAMPAIGN_FILE).is_file():
        from aldriver.workflow.campaign import open_campaign
        from aldriver.workflow.storing import records_of

        found = targets_of(records_of(open_campaign(path), 0, "reference"), f"reference of {path.name}")
    elif path.is_file():
        candidate = read_candidate(path)
        found = targets_of(candidate.records, candidate.name)
    else:
        raise InputError(
            f"--reference {reference}: no such file or campaign. Give what `aldriver benchmark --json FILE` wrote; "
            "`aldriver benchmark --reference dft --spec FILE --json FILE` makes one with DFT"
        )
    if not found:
        raise InputError(f"--reference {reference}: holds no value that can be trusted")
    return found


def _candidates(
    name: str, settings: Benchmark | None, *, workers: int, cache: Path | None, device: str
) -> list[Candidate]:
    from aldriver.benchmark.comparison import Candidate, read_candidate
    from aldriver.benchmark.dispersion import dispersions

    path = Path(name)
    if (path / CAMPAIGN_FILE).is_file():
        return _generations(path)
    if path.suffix == ".json":
        return [read_candidate(path)]
    if settings is None:
        raise InputError(
            f"'{name}' is neither a result of `aldriver benchmark --json` nor a campaign; "
            "to benchmark potentials now, say on what: --suite NAME or --structure bcc-Fe"
        )
    from aldriver.workflow.measuring import Subject

    loaded, records = measured(Subject(potential=name, device=device), settings, cache=cache, workers=workers)
    curves = dispersions(loaded, settings, records, cache)
    return [Candidate(name=loaded.name, records=records, phonons=curves)]


def _generations(path: Path) -> list[Candidate]:
    """Each benchmarked generation of a campaign."""
    from aldriver.benchmark.comparison import Candidate
    from aldriver.workflow.campaign import open_campaign
    from aldriver.workflow.storing import records_of

    campaign = open_campaign(path)
    found = []
    for g in range(campaign.frontier()[0] + 1):
        records = records_of(campaign, g, "benchmark")
        if records:
            title = "foundation" if g == 0 else f"generation {g}"
            found.append(Candidate(name=f"{campaign.name}: {title}", records=records))
    if not found:
        raise InputError(f"{path}: has benchmarked no generation yet")
    return found


def _show(found: Comparison) -> None:
    from rich.table import Table

    from aldriver.benchmark.comparison import by_shell, shells

    table = Table("property", "reference", *map(escape, found.candidates))
    for column in table.columns:
        column.overflow = "fold"  # a digit less would be another number
    table.columns[0].no_wrap = True
    case = ""
    for row, *others in by_shell(found.rows):
        if row.case != case:
            case = row.case
            table.add_section()
            table.add_row(f"[bold]{escape(case)}[/]")
        if others:
            line = [row, *others]
            values = (
                " ".join(f"{cell.value:.3f}" for r in line if (cell := r.cells[name])) for name in found.candidates
            )
            table.add_row(escape(f"{shells(line)}, {row.unit}"), "", *values)
            continue
        cells = []
        for cell in row.cells.values():
            if cell is None:
                cells.append("—")
                continue
            off = "" if cell.deviation is None else f"\n{cell.deviation:+.1%}"
            cells.append(escape(f"{shown(cell.value, cell.error)}{off}{'' if cell.converged else ' !'}"))
        target = None if row.reference is None else row.reference.value
        table.add_row(escape(f"{row.property}, {row.unit}"), number(target), *cells)
    scores = [found.scores[name] for name in found.candidates]
    table.add_section()
    table.add_row("score (fixed scale)", "1", *(number(s.value, 2) for s in scores))
    table.add_row("figure of merit", "", *(number(found.merit[name], 2) for name in found.candidates))
    console.print(table)
    remarks = {
        f"{row.property} of {row.case}, {name}: {cell.reason}"
        for row in found.rows
        for name, cell in row.cells.items()
        if cell is not None and cell.reason
    }
    for text in [*sorted(remarks), *found.warnings]:
        console.print(f"[yellow]note:[/] {escape(text)}", highlight=False)
