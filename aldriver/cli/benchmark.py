"""``aldriver benchmark``: the standard property suite on one potential."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aldriver.cli.common import Device, Json, console, emit, number, progress
from aldriver.core.errors import InputError

ALL = ("lattice", "eos", "elastic", "vacancy")
DEFAULT = ",".join(ALL)


def benchmark(
    potential: Annotated[str, typer.Argument(help="chgnet:0.3.0, eam:FILE or a saved directory.")],
    structure: Annotated[
        list[str], typer.Option("--structure", help="e.g. bcc-Fe, fcc-Cu, diamond-Si, or a file; may be repeated.")
    ],
    properties: Annotated[str, typer.Option("--properties", help=f"Comma-separated; default: {DEFAULT}.")] = DEFAULT,
    supercell: Annotated[
        str | None,
        typer.Option("--supercell", help="For the vacancy; default: bcc 4x4x4 (128 atoms), fcc 3x3x3, diamond 2x2x2."),
    ] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder that keeps finished properties.")] = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Lattice constant, E-V curve, elastic constants and vacancy formation energy of POTENTIAL."""
    wanted = [p.strip() for p in properties.split(",") if p.strip()]
    unknown = sorted(set(wanted) - set(ALL))
    if unknown or not wanted:
        raise InputError(f"--properties: unknown {', '.join(unknown) or '(none given)'}; allowed: {', '.join(ALL)}")
    from aldriver.benchmark.cases import case_by_name
    from aldriver.core.recipe_benchmark import Benchmark

    cases = [case_by_name(name, supercell=_supercell(supercell)) for name in structure]
    settings = Benchmark.model_validate({"properties": wanted, "cases": [c.model_dump() for c in cases]})
    from aldriver.benchmark.suite import run_suite
    from aldriver.potentials import load

    loaded = load(potential, device=device)
    with progress(f"Benchmark of {loaded.name}") as advance:
        records = run_suite(loaded, settings, cache_dir=cache, on_record=lambda r: advance(note=r.property))
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


def _supercell(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) != 3 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise InputError(f"--supercell {text!r}: give three positive numbers, e.g. 4x4x4")
    a, b, c = (int(p) for p in parts)
    return a, b, c
