"""``aldriver export``: a potential as files that LAMMPS and its own program can run, each run and compared first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aldriver.cli.common import Device, Json, console, emit


def export(
    potential: Annotated[str, typer.Argument(help="chgnet:0.3.0, eam:FILE, a saved directory or a campaign.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist yet.")],
    structure: Annotated[
        Path | None, typer.Option("--structure", help="Cell for the comparison run; default: one of the potential's.")
    ] = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Export POTENTIAL (or a campaign's promoted one) to OUT: for LAMMPS, with its detector and a model card.

    Potentials of CHGNet, MACE and SevenNet are also written as a file of that program.
    """
    from aldriver.core.errors import InputError
    from aldriver.core.frames import read_frames
    from aldriver.core.records import read_json

    source, training, detector = potential, None, Path(potential) / "detector"
    atoms = read_frames(structure)[0] if structure is not None else None
    if (Path(potential) / "campaign.json").is_file():
        from aldriver.core.systems import build_systems
        from aldriver.workflow.campaign import open_campaign
        from aldriver.workflow.status import promoted_detector, promoted_potential

        source = str(promoted_potential(Path(potential)))
        detector = promoted_detector(Path(potential))
        training = read_json(Path(source) / "card.json")
        atoms = atoms or build_systems(open_campaign(potential).recipe)[-1]
    elif (Path(potential) / "config.json").is_file():
        training = _training(Path(potential))
    if out.exists():
        raise InputError(f"{out}: exists already; exports are never overwritten, name a new folder")
    from aldriver.export.lammps import export_potential
    from aldriver.potentials import load

    loaded = load(source, device=device)
    result = export_potential(
        loaded, out, detector_dir=detector if detector.is_dir() else None, structure=atoms, training=training
    )
    if not emit(result, json_to):
        for form in result["forms"]:
            files = f" ({', '.join(form['files'])})" if form["files"] else ""
            text = f"{form['form']}{files}: {form['status']} {form.get('reason') or ''}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print(f"Exported to {out}")
    if not any(f["status"] == "exported" for f in result["forms"]):
        raise typer.Exit(1)


def _training(folder: Path) -> dict[str, Any]:
    """What a saved potential says of its training."""
    from aldriver.core.records import read_json
    from aldriver.potentials.bundle import describe_bundle

    config = describe_bundle(folder)
    extra = config.get("extra", {})
    keys = ("e0_shift", "strategy", "n_train", "n_valid")
    about = {key: extra.get(key) for key in keys} | {"parent": config.get("parent"), "validation": extra.get("after")}
    card = folder / "card.json"  # of a campaign
    return about | (read_json(card) if card.is_file() else {})
