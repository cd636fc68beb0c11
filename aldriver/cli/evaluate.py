"""``aldriver evaluate``: errors of a potential on labelled frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aldriver.cli.common import Device, Json, console, emit, number, progress


def evaluate(
    potential: Annotated[str, typer.Argument(help="chgnet:0.3.0, eam:FILE or a saved directory.")],
    frames: Annotated[Path, typer.Argument(help="Labelled frames (extended XYZ).")],
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Energy, force and stress errors of POTENTIAL on labelled FRAMES."""
    from aldriver.core.frames import read_frames

    labelled = read_frames(frames, labelled=True)
    from aldriver.benchmark.evaluate import evaluate as errors_of
    from aldriver.potentials import load

    loaded = load(potential, device=device)
    with progress(f"Evaluating {loaded.name}", total=len(labelled)) as advance:
        metrics = errors_of(loaded, labelled, on_progress=advance.to)
    result = {"potential": loaded.name, "fingerprint": loaded.fingerprint, "frames": str(frames), **metrics}
    if emit(result, json_to):
        return
    from rich.table import Table

    table = Table("", "MAE", "RMSE", title=f"{loaded.name} on {metrics['n_frames']} frames")
    for title, key, unit in (
        ("energy", "energy", "meV_atom"),
        ("force components", "forces", "meV_A"),
        ("stress", "stress", "GPa"),
    ):
        mae, rmse = metrics[f"{key}_mae_{unit}"], metrics[f"{key}_rmse_{unit}"]
        table.add_row(f"{title} ({unit.replace('_', '/')})", number(mae), number(rmse))
    console.print(table)
