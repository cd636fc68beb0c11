"""``aldriver benchmark``: a property suite on one potential."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aldriver.cli.common import Device, Json, console, emit, number, progress
from aldriver.core.errors import InputError


def benchmark(
    potential: Annotated[str, typer.Argument(help="chgnet:0.3.0, eam:FILE or a saved directory.")],
    structure: Annotated[
        list[str] | None,
        typer.Option("--structure", help="e.g. bcc-Fe, fcc-Cu, diamond-Si, or a file; may be repeated."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="quick, ... (recipes/suites), or a YAML file with cases and properties."),
    ] = None,
    properties: Annotated[
        str | None, typer.Option("--properties", help="Comma-separated; default: those of the suite.")
    ] = None,
    supercell: Annotated[
        str | None,
        typer.Option("--supercell", help="For defects; default: bcc 4x4x4 (128 atoms), fcc 3x3x3, diamond 2x2x2."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder that keeps finished relaxations: a run that was killed goes on."),
    ] = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Benchmark POTENTIAL on a suite, or on the crystals given."""
    settings = _settings(suite, structure or [], properties, _supercell(supercell))
    from aldriver.benchmark.suite import run_suite
    from aldriver.potentials import load

    loaded = load(potential, device=device)
    with progress(f"Benchmark of {loaded.name}") as advance:

        def relaxed(done: int, total: int, slot: str) -> None:
            advance(note=slot, n=0)
            advance.to(done, total)

        records = run_suite(
            loaded,
            settings,
            cache_dir=cache,
            on_record=lambda r: advance(note=f"{r.property} of {r.case}", n=0),
            on_relaxation=relaxed,
        )
    result = {"potential": loaded.name, "fingerprint": loaded.fingerprint, "records": records}
    if not emit(result, json_to):
        from rich.table import Table

        table = Table("case", "property", "value", "±", "unit", "force calls", "s", "remark", title=loaded.name)
        for r in records:
            remark = r.reason or ("" if r.converged else "not converged")
            table.add_row(r.case, r.property, number(r.value), number(r.error, 2), r.unit, str(r.force_calls),
                          f"{r.seconds:.1f}", remark)  # fmt: skip
        console.print(table)
    if any(r.value is None or not r.converged for r in records):
        raise typer.Exit(1)


def _settings(
    suite: str | None, structures: list[str], properties: str | None, supercell: tuple[int, int, int] | None
) -> Any:
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
