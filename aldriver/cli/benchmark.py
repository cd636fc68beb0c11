"""``aldriver benchmark``: a property suite on one potential."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from aldriver.cli.common import Device, Json, console, emit, number, progress, shown
from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from aldriver.benchmark.comparison import Comparison
    from aldriver.core.recipe_benchmark import Benchmark
    from aldriver.core.records import PropertyRecord
    from aldriver.potentials import Potential
    from aldriver.workflow.measuring import Subject

DFT = "dft"
"""The reference that is made instead of given."""


def benchmark(
    potential: Annotated[
        str | None, typer.Argument(help="chgnet:0.3.0, eam:FILE or a saved directory; none with --reference dft.")
    ] = None,
    structure: Annotated[
        list[str] | None,
        typer.Option("--structure", help="e.g. bcc-Fe, fcc-Cu, diamond-Si, or a file; may be repeated."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="quick, fe-steel, ... (recipes/suites), or a YAML file with a suite."),
    ] = None,
    properties: Annotated[
        str | None, typer.Option("--properties", help="Comma-separated; default: those of the suite.")
    ] = None,
    supercell: Annotated[
        str | None,
        typer.Option("--supercell", help="For defects; default: bcc 4x4x4 (128 atoms), fcc 3x3x3, diamond 2x2x2."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="A result to compare with (JSON); default: published DFT. `dft`: make one."),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option("--spec", help="With --reference dft: a recipe, or a file with its `label` block.")
    ] = None,
    labels: Annotated[Path, typer.Option("--labels", help="With --reference dft: folder of the labels.")] = Path(
        "labels"
    ),
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes that share the work.")] = 1,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder that keeps finished relaxations: a run that was killed goes on."),
    ] = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Benchmark POTENTIAL on a suite, or on the crystals given; with --reference dft, the engine of --spec."""
    settings = suite_settings(suite, structure or [], properties, _supercell(supercell))
    subject = _subject(potential, reference, spec, labels, device)
    from aldriver.benchmark.comparison import Candidate, compare
    from aldriver.benchmark.dispersion import dispersions
    from aldriver.cli.compare import targets

    wanted = None if reference in (None, DFT) else targets(str(reference))
    loaded, records = measured(subject, settings, cache=cache, workers=workers)
    curves = dispersions(loaded, settings, records, cache) if json_to is not None else {}
    found = compare([Candidate(name=loaded.name, records=records)], wanted)
    result = {
        "potential": loaded.name,
        "fingerprint": loaded.fingerprint,
        "records": records,
        "score": found.scores[loaded.name],
        "warnings": found.warnings,
    } | ({"phonons": curves} if curves else {})
    if not emit(result, json_to):
        _show(records, found)
    if any(r.value is None or not r.converged for r in records):
        raise typer.Exit(1)


def measured(
    subject: Subject, settings: Benchmark, *, cache: Path | None, workers: int
) -> tuple[Potential, list[PropertyRecord]]:
    """Benchmark a subject with a progress bar over its relaxations."""
    from aldriver.workflow.measuring import measure

    with progress(f"Benchmark of {subject.potential or DFT}") as advance:

        def relaxed(done: int, total: int, slot: str) -> None:
            advance(note=slot, n=0)
            advance.to(done, total)

        return measure(
            subject,
            settings,
            cache=cache,
            workers=workers,
            on_record=lambda r: advance(note=f"{r.property} of {r.case}", n=0),
            on_relaxation=relaxed,
        )


def _subject(potential: str | None, reference: str | None, spec: Path | None, labels: Path, device: str) -> Subject:
    from aldriver.core.recipe import load_label
    from aldriver.workflow.measuring import Subject

    if reference == DFT:
        if potential is not None:
            raise InputError(f"--reference dft measures with the engine of --spec; leave '{potential}' out")
        if spec is None:
            raise InputError("--reference dft: say how with --spec FILE, a recipe or a file with its `label` block")
        return Subject(label=load_label(spec), labels=labels)
    if potential is None:
        raise InputError("say what to benchmark: a POTENTIAL, or --reference dft with --spec FILE")
    if spec is not None:
        raise InputError("--spec says how --reference dft computes; it means nothing for a potential")
    return Subject(potential=potential, device=device)


def _show(records: list[PropertyRecord], found: Comparison) -> None:
    from rich.table import Column, Table

    from aldriver.benchmark.comparison import by_shell

    (name,) = found.candidates
    rows = {(row.case, row.property): row for row in found.rows}
    numbers = (Column(head, no_wrap=True) for head in ("value", "reference", "off", "calls", "s"))
    table = Table(Column("property", overflow="fold"), *numbers, title=name)
    remarks: list[str] = []
    case = ""
    pairs: dict[tuple[str, str], dict[str, list[float | None]]] = {}
    spent = {(r.case, r.property): r for r in records}
    for row, *others in by_shell(rows[r.case, r.property] for r in records):
        r = spent[row.case, row.property]
        if others:
            what, _, pair = row.property.rpartition(",")[0].partition("(")
            values = [spent[one.case, one.property].value for one in (row, *others)]
            pairs.setdefault((r.case, f"{what}, {r.unit}"), {})[pair] = [v for v in values if v is not None]
            continue
        if r.case != case:
            case = r.case
            table.add_section()
            table.add_row(f"[bold]{escape(case)}[/]")
        cell = row.cells[name]
        assert cell is not None
        target = None if row.reference is None else row.reference.value
        off = "—" if cell.deviation is None else f"{cell.deviation:+.1%}"
        mark = ""
        if cell.reason:
            remarks += [cell.reason] if cell.reason not in remarks else []
            mark = f" [{remarks.index(cell.reason) + 1}]"
        table.add_row(escape(f"{r.property}, {r.unit}{mark}"), shown(r.value, r.error), number(target), off,
                      str(r.force_calls), f"{r.seconds:.1f}")  # fmt: skip
    console.print(table)
    for (case, what), lines in pairs.items():
        heads = [Column(str(k + 1), justify="right") for k in range(max(len(v) for v in lines.values()))]
        table = Table(Column(escape(what), overflow="fold"), *heads, title=escape(case))
        for pair, values in lines.items():
            table.add_row(pair, *(f"{value:.3f}" for value in values))
        console.print(table)
    for k, remark in enumerate(remarks, start=1):
        console.print(f"[{k}] {remark}", markup=False, highlight=False)
    score = found.scores[name]
    if score.value is not None:
        missing = f", {score.missing} of them missing" if score.missing else ""
        console.print(f"Score {score.value:.2f} of 1 (fixed scale, {score.judged} values{missing})")
    for warning in found.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


def suite_settings(
    suite: str | None,
    structures: list[str],
    properties: str | None = None,
    supercell: tuple[int, int, int] | None = None,
) -> Benchmark:
    """The suite with what the command line changes in it."""
    from aldriver.benchmark.cases import case_by_name
    from aldriver.core.recipe import load_suite
    from aldriver.core.recipe_benchmark import Benchmark, property_names

    if suite is None and not structures:
        raise InputError("say what to benchmark: --suite NAME, or --structure bcc-Fe (fcc-Cu, diamond-Si, a file)")
    base: dict[str, Any] = {} if suite is None else load_suite(suite).model_dump()
    if structures:
        base["cases"] = [case_by_name(name, supercell=supercell).model_dump() for name in structures]
    elif supercell is not None:
        base["cases"] = [case | {"supercell": supercell} for case in base["cases"]]
    if properties is not None:
        wanted = [p.strip() for p in properties.split(",") if p.strip()]
        unknown = sorted(set(wanted) - set(property_names()))
        if unknown or not wanted:
            allowed = ", ".join(property_names())
            raise InputError(f"--properties: unknown {', '.join(unknown) or '(none given)'}; allowed: {allowed}")
        base["properties"] = wanted
    return Benchmark.model_validate(base)


def _supercell(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) != 3 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise InputError(f"--supercell {text!r}: give three positive numbers, e.g. 4x4x4")
    a, b, c = (int(p) for p in parts)
    return a, b, c
