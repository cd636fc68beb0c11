"""``aldriver label``: label frames with the engine of a recipe, without a campaign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aldriver.cli.common import Json, console, emit, progress
from aldriver.core.errors import AldriverError, InputError


def label(
    frames: Annotated[Path, typer.Argument(help="Frames to label (extended XYZ or any ASE-readable file).")],
    recipe: Annotated[Path, typer.Option("--recipe", help="Recipe whose `label` block says how.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the label store (made if needed).")] = Path("labels"),
    json_to: Json = None,
) -> None:
    """Label FRAMES; each becomes a value or a reason. Frames labelled before are taken from the store."""
    from aldriver.core.frames import read_frames, with_labels, write_frames
    from aldriver.core.recipe import load_recipe

    todo = read_frames(frames)
    if not todo:
        raise InputError(f"{frames}: holds no frames")
    settings = load_recipe(recipe).label
    from aldriver.label import make_labeler
    from aldriver.label.cache import label_frame

    elements = sorted({s for f in todo for s in f.get_chemical_symbols()})
    labeler, spec = make_labeler(settings, elements)
    problems = labeler.preflight()
    if problems:
        raise AldriverError("cannot label here:\n" + "\n".join(f"  - {p}" for p in problems))
    rows, good = [], []
    out.mkdir(parents=True, exist_ok=True)
    with progress(f"Labelling with {settings.engine}", total=len(todo)) as advance:
        for frame in todo:
            done = label_frame(frame, labeler, spec, out)
            rows.append({"frame_id": frame.info["frame_id"], "key": done.key, "status": done.status,
                         "reason": done.reason, "energy": done.energy, "seconds": done.seconds})  # fmt: skip
            if done.status == "ok" and done.energy is not None and done.forces is not None:
                good.append(with_labels(frame, energy=done.energy, forces=done.forces, stress=done.stress,
                                        magmoms=done.magmoms, label_key=done.key))  # fmt: skip
            advance(note=done.status)
    dataset = out / "dataset.extxyz"
    write_frames(dataset, good)
    failed = [r for r in rows if r["status"] != "ok"]
    if not emit({"labels": rows, "dataset": dataset, "ok": len(good), "failed": len(failed)}, json_to):
        console.print(f"{len(good)} labelled, {len(failed)} without a label; good ones in {dataset}")
        for row in failed:
            console.print(f"  {row['frame_id']}: {row['status']}: {row['reason']}")
    if not good:
        raise typer.Exit(1)
