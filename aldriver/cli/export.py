"""``aldriver export``: a potential as files that LAMMPS and its own program can run, each run and compared first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aldriver.cli.common import Device, Json, console, emit, progress

if TYPE_CHECKING:
    from aldriver.export.surrogate import Material
    from aldriver.potentials import Potential


def export(
    potential: Annotated[str, typer.Argument(help="chgnet:0.3.0, eam:FILE, a saved directory or a campaign.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist yet.")],
    structure: Annotated[
        Path | None, typer.Option("--structure", help="Cell for the comparison run; default: one of the potential's.")
    ] = None,
    surrogate: Annotated[
        bool | None,
        typer.Option(
            "--surrogate/--no-surrogate",
            help="Distil a fast ML-POD potential too; default: for a campaign, and where --frames is given.",
        ),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option("--frames", help="Configurations the surrogate is made from, where there is no campaign."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", min=0.0, help="Force error a surrogate may have, meV/Å; default: the recipe's."),
    ] = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Export POTENTIAL (or a campaign's promoted one) to OUT: for LAMMPS, with its detector and a model card.

    Potentials of CHGNet, MACE and SevenNet are also written as a file of that program. A surrogate is refused when its
    force error is above the tolerance.
    """
    from aldriver.core.errors import InputError
    from aldriver.core.frames import read_frames
    from aldriver.core.records import read_json

    source, training, detector = potential, None, Path(potential) / "detector"
    atoms = read_frames(structure)[0] if structure is not None else None
    campaign = Path(potential) if (Path(potential) / "campaign.json").is_file() else None
    if campaign is not None:
        from aldriver.core.systems import build_systems
        from aldriver.workflow.campaign import open_campaign
        from aldriver.workflow.distil import campaign_facts
        from aldriver.workflow.status import promoted_detector, promoted_potential

        source = str(promoted_potential(campaign))
        detector = promoted_detector(campaign)
        training = read_json(Path(source) / "card.json") | campaign_facts(campaign, Path(source).name)
        atoms = atoms or build_systems(open_campaign(campaign).recipe)[-1]
    elif (Path(potential) / "config.json").is_file():
        training = _training(Path(potential))
    if out.exists():
        raise InputError(f"{out}: exists already; exports are never overwritten, name a new folder")
    if surrogate and campaign is None and frames is None:
        raise InputError("a surrogate is made from configurations: name a file of them (--frames), or a campaign")
    from aldriver.export.lammps import export_potential
    from aldriver.potentials import load

    loaded = load(source, device=device)
    wanted = surrogate if surrogate is not None else campaign is not None or frames is not None
    material = _material(loaded, campaign, detector, frames, tolerance) if wanted else None
    with progress(f"Export of {loaded.name}") as advance:

        def report(note: str, done: int, total: int) -> None:
            advance(note, 0)
            advance.to(done, total)

        result = export_potential(
            loaded,
            out,
            detector_dir=detector if detector.is_dir() else None,
            structure=atoms,
            training=training,
            material=material,
            on_progress=report,
        )
    if not emit(result, json_to):
        _show(result, out)
    if not any(f["status"] == "exported" for f in result["forms"]):
        raise typer.Exit(1)


def _show(result: dict[str, Any], out: Path) -> None:
    for form in result["forms"]:
        files = f" ({', '.join(form['files'])})" if form["files"] else ""
        text = f"{form['form']}{files}: {form['status'].replace('_', ' ')} {form.get('reason') or ''}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    made = result["surrogate"]
    if made is not None and "speed" in made:
        held, speed = made["from_parent"]["held_out"]["forces_rmse_meV_A"], made["speed"]
        text = f"surrogate: {held:.1f} meV/Å from the potential on held-out frames (tolerated "
        text += f"{made['tolerance_meV_A']:.1f}), {speed['surrogate_cpu_us_atom_step']:.0f} µs/atom/step, "
        console.print(f"{text}{speed['ratio']:.0f} times faster", highlight=False, soft_wrap=True)
    console.print(f"Exported to {out}")


def _material(
    potential: Potential, campaign: Path | None, detector: Path, frames: Path | None, tolerance: float | None
) -> Material:
    """What the surrogate is made from: a campaign, or a file of configurations (labelled ones tell the own error)."""
    if campaign is not None:
        from aldriver.detect import Detector
        from aldriver.workflow.distil import campaign_material

        return campaign_material(
            campaign, Detector.load(detector, potential), potential, max_force_rmse_meV_A=tolerance
        )
    from aldriver.core.frames import label_of, read_frames
    from aldriver.export.surrogate import HELD_OUT_EVERY, Material

    assert frames is not None
    given = read_frames(frames)
    heldout = given[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    learn = [atoms for i, atoms in enumerate(given) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
    labelled = [atoms for atoms in heldout if label_of(atoms, "forces") is not None]
    return Material(learn=learn, heldout=heldout, labelled=labelled, max_force_rmse_meV_A=tolerance)


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
