"""``aldriver label``: label frames without a campaign, take in finished results, relabel, compute isolated atoms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from aldriver.cli.common import Json, console, emit, progress
from aldriver.core.errors import AldriverError, InputError

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_label import Label as LabelBlock
    from aldriver.label import Label, Labeler, LabelSpec

Spec = Annotated[
    Path | None,
    typer.Option("--spec", "--recipe", help="How: a recipe, or a file with its `label` block."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the label store (made if needed).")]


class _DefaultRun(TyperGroup):
    """``aldriver label FRAMES ...`` means ``aldriver label run FRAMES ...``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_DefaultRun,
    no_args_is_help=True,
    help="Label frames, take in finished DFT results, relabel, compute isolated atoms. `label FRAMES` is `label run`.",
)


@app.command("run")
def run(
    frames: Annotated[Path, typer.Argument(help="Frames to label (extended XYZ or any ASE-readable file).")],
    spec: Spec = None,
    out: Out = Path("labels"),
    json_to: Json = None,
) -> None:
    """Label FRAMES; each becomes a value or a reason. Frames labelled before are taken from the store."""
    from aldriver.core.frames import read_frames

    todo = read_frames(frames)
    if not todo:
        raise InputError(f"{frames}: holds no frames")
    _label_all(todo, _block(spec), out, json_to)


@app.command("redo")
def redo(
    campaign: Annotated[Path, typer.Argument(help="Campaign, label store, or file of frames to label anew.")],
    spec: Spec = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the new labels (not the old one).")] = None,
    json_to: Json = None,
) -> None:
    """Label a data set at another level of theory, into a store of its own; goes on where it was stopped."""
    from aldriver.label import make_labeler
    from aldriver.label.redo import frames_of, refuse_other_levels

    settings = _block(spec)
    out = out or Path(f"{campaign.name or 'labels'}-{settings.engine}")
    if out.resolve() in (campaign.resolve(), (campaign / "labels").resolve()):
        raise InputError(f"--out {out} holds the old labels: two levels of theory do not go into one store")
    frames = frames_of(campaign)
    refuse_other_levels(out, make_labeler(settings, _elements(frames))[1])
    _label_all(frames, settings, out, json_to)


@app.command("atoms")
def atoms(
    elements: Annotated[list[str], typer.Argument(help="Chemical symbols.")],
    spec: Spec = None,
    out: Out = Path("atoms"),
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="Labelled frames, for elements whose atom does not converge.")
    ] = None,
    box: Annotated[float, typer.Option("--box", min=6.0, help="Edge of the cell, Å.")] = 12.0,
    json_to: Json = None,
) -> None:
    """Energy of isolated atoms (E0): big box, Γ point, spin-polarised, by the engine of the labels."""
    from aldriver.label.atoms import isolated_atoms

    with progress("Isolated atoms", total=len(elements)) as advance:
        result = isolated_atoms(elements, _block(spec), out, box_A=box, dataset=dataset, advance=advance)
    if not emit(result, json_to):
        for element, row in result["atoms"].items():
            energy = "no energy" if row["energy_eV"] is None else f"{row['energy_eV']:.6f} eV"
            console.print(f"  {element}: {energy} ({row['from']})", markup=False)
    if any(row["energy_eV"] is None for row in result["atoms"].values()):
        raise typer.Exit(1)


@app.command("ingest")
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Folders, archives (.tar.gz, .zip) and files of DFT outputs.")],
    spec: Spec = None,
    out: Out = Path("labels"),
    spin: Annotated[
        list[str] | None, typer.Option("--spin", help="ELEMENT=LEAST:MOST, mean moment in µB (several times).")
    ] = None,
    interrupted: Annotated[
        bool, typer.Option("--interrupted", help="Also take the whole ionic steps of runs that did not end well.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also list the files that are no outputs.")] = False,
    json_to: Json = None,
) -> None:
    """Take finished VASP, Quantum ESPRESSO, GPAW and extended XYZ results into a label store, through the gate."""
    from aldriver.label.gate import LabelLimits
    from aldriver.label.ingest import ingest as take_in
    from aldriver.label.levels import describe, wanted_settings

    missing = [p for p in paths if not p.exists()]
    if missing:
        raise InputError(f"{missing[0]}: no such file or folder")
    settings = None if spec is None else _block(spec)
    wanted = None if settings is None else wanted_settings(settings)
    limits = None if settings is None else LabelLimits.of(settings)
    if spin:
        from dataclasses import replace

        limits = replace(limits or LabelLimits(), moments=_windows(spin))
    level = "" if wanted is None else describe(wanted)
    with progress("Reading") as advance:
        result = take_in(
            paths, out, limits=limits, wanted=wanted, level=level, interrupted=interrupted,
            advance=lambda note: advance(note=Path(note).name),
        )  # fmt: skip
    data = result.to_json()
    if not emit(data, json_to):
        _show(data, everything)
    if not data["accepted"]:
        raise typer.Exit(1)


def _windows(spin: list[str]) -> dict[str, tuple[float, float]]:
    windows = {}
    for text in spin:
        element, _, window = text.partition("=")
        least, _, most = window.partition(":")
        try:
            windows[element] = (float(least), float(most))
        except ValueError:
            raise InputError(f"--spin {text}: give ELEMENT=LEAST:MOST in µB, e.g. Fe=1.5:3.2") from None
    return windows


def _show(data: dict[str, Any], everything: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("file", "fate", "atoms", "eV/atom", "level or reason")
    table.columns[0].overflow = table.columns[4].overflow = "fold"
    for rows in _grouped([r for r in data["files"] if everything or r["fate"] != "skipped"]):
        row, last = rows[0], rows[-1]
        energies = [f"{r['energy_eV_atom']:.3f}" for r in (row, last) if r["energy_eV_atom"] is not None]
        file = row["source"] if len(rows) == 1 else f"{row['source']} to {last['source'].rpartition(' ')[2]}"
        said = "; ".join(t for t in ((row["level"] if row["fate"] == "accepted" else ""), row["reason"]) if t)
        cells = (file, row["fate"], row["formula"], " to ".join(dict.fromkeys(energies)), said)
        table.add_row(*map(escape, cells))
    console.print(table)
    skipped = "" if everything else " (--all lists those)"
    counts = f"{data['accepted']} accepted, {data['refused']} refused, {data['skipped']} no outputs{skipped}"
    console.print(counts, markup=False)
    for level, path in data["datasets"].items():
        console.print(f"  {path}: {level}", markup=False)


def _grouped(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Neighbouring steps of one run that shared one fate, for one kind of reason."""
    from itertools import groupby

    from aldriver.core.reasons import kind

    def alike(row: dict[str, Any]) -> tuple[str, ...]:
        run = row["source"].rpartition("#step ")[0] or row["source"]
        return run, row["fate"], row["level"], row["formula"], kind(row["reason"])

    return [list(group) for _, group in groupby(rows, key=alike)]


def _block(spec: Path | None) -> LabelBlock:
    from aldriver.core.recipe import load_label

    if spec is None:
        raise InputError("say how to label: --spec FILE, a recipe or a file with its `label` block")
    return load_label(spec)


def _label_all(todo: list[Atoms], settings: LabelBlock, out: Path, json_to: str | None) -> None:
    """Label frames one after the other, write the data set of the good ones, and say what became of each."""
    from aldriver.core.frames import write_frames
    from aldriver.core.reasons import count_reasons
    from aldriver.label import LabelLimits, make_labeler
    from aldriver.label.cache import label_frame

    labeler, spec = make_labeler(settings, _elements(todo))
    _preflight(labeler)
    limits = LabelLimits.of(settings)
    rows: list[dict[str, Any]] = []
    good: list[Atoms] = []
    out.mkdir(parents=True, exist_ok=True)
    with progress(f"Labelling with {settings.engine}", total=len(todo)) as advance:
        for frame in todo:
            done = label_frame(frame, labeler, spec, out, limits=limits)
            rows.append({"frame_id": frame.info["frame_id"], "key": done.key, "status": done.status,
                         "reason": done.reason, "energy": done.energy, "seconds": done.seconds})  # fmt: skip
            if done.ok:
                good.append(_labelled(done, frame, spec))
            advance(note=done.status)
    dataset = out / "dataset.extxyz"
    write_frames(dataset, good)
    failed = [r for r in rows if r["status"] != "ok"]
    result = {"labels": rows, "dataset": dataset, "ok": len(good), "failed": len(failed)}
    if not emit(result | {"reasons": count_reasons(r["reason"] for r in failed)}, json_to):
        console.print(f"{len(good)} labelled, {len(failed)} without a label; good ones in {dataset}")
        for row in failed:
            console.print(f"  {row['frame_id']}: {row['status']}: {row['reason']}")
    if not good:
        raise typer.Exit(1)


def _elements(frames: list[Atoms]) -> list[str]:
    return sorted({s for f in frames for s in f.get_chemical_symbols()})


def _preflight(labeler: Labeler) -> None:
    problems = labeler.preflight()
    if problems:
        raise AldriverError("cannot label here:\n" + "\n".join(f"  - {p}" for p in problems))


def _labelled(label: Label, frame: Atoms, spec: LabelSpec) -> Atoms:
    out = label.labelled(frame)
    out.info["level"] = spec.level
    return out
