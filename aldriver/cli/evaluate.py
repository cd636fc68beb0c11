"""``aldriver evaluate``: errors of a potential on labelled frames, overall, by element and by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aldriver.cli.common import Device, Json, console, emit, number, progress

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.potentials import Potential, Prediction

SHOWN = 15
"""Most groups and compositions in a table; JSON has all."""


class Shift(StrEnum):
    """When energies of the labels are moved onto the potential's scale."""

    auto = "auto"
    never = "never"
    always = "always"


Potentials = Annotated[str, typer.Argument(help="chgnet:0.3.0, sevennet:7net-0, eam:FILE or a saved directory.")]
Frames = Annotated[list[Path], typer.Argument(help="Labelled frames (extended XYZ); one file or several.")]
Head = Annotated[str | None, typer.Option("--head", help="Of a MACE model with several heads.")]


def evaluate(
    potential: Potentials,
    frames: Frames,
    e0_shift: Annotated[
        Shift,
        typer.Option(
            "--e0-shift",
            help="Move the labels' energies onto the potential's scale, by a constant per element: the one recorded at "
            "its training, else a least-squares fit on these frames; auto: only where they are > 50 meV/atom apart.",
        ),
    ] = Shift.auto,
    plot: Annotated[Path | None, typer.Option("--plot", help="Parity figure: FILE.html, FILE.png or FILE.svg.")] = None,
    head: Head = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Energy, force and stress errors of POTENTIAL on labelled FRAMES: overall, by element, composition and group.

    Frames belong to the group their `group` says, else to their file.
    """
    from aldriver.core.frames import read_frames

    if plot is not None:
        from aldriver.report.parity import check_path

        check_path(plot)
    labelled, groups = [], []
    for file in frames:
        found = read_frames(file, labelled=True, groups=False)
        labelled += found
        groups += [str(atoms.info.get("group", file.stem)) for atoms in found]
    from aldriver.benchmark.evaluate import predict
    from aldriver.potentials import load
    from aldriver.train.prepare import on_scale_of

    loaded = load(potential, device=device, head=head)
    with progress(f"Evaluating {loaded.name}", total=len(labelled)) as advance:
        predictions = predict(loaded, labelled, on_progress=advance.to)
    labelled = on_scale_of(loaded, labelled)
    shift, origin = _shift(e0_shift, potential, loaded, labelled, predictions)
    result = {
        "potential": loaded.name,
        "fingerprint": loaded.fingerprint,
        "frames": [str(file) for file in frames],
        "e0_shift": shift,
        "e0_shift_from": origin,
        **_errors(labelled, predictions, groups, shift),
    }
    if plot is not None:
        from aldriver.report.parity import parity_panels, write_parity

        panels, names = parity_panels(labelled, predictions, groups, e0_shift=shift)
        result["plot"] = write_parity(plot, panels, names, title=f"{loaded.name} on {len(labelled)} frames")
    if not emit(result, json_to):
        _show(result)


def _errors(
    frames: Sequence[Atoms], predictions: Sequence[Prediction], groups: Sequence[str], shift: Mapping[str, float] | None
) -> dict[str, Any]:
    from aldriver.benchmark.evaluate import composition, errors, errors_by_element, errors_by_group

    compositions = [composition(atoms) for atoms in frames]
    return {
        **errors(frames, predictions, e0_shift=shift),
        "elements": errors_by_element(frames, predictions),
        "compositions": errors_by_group(frames, predictions, compositions, e0_shift=shift),
        "groups": errors_by_group(frames, predictions, groups, e0_shift=shift),
    }


def _shift(
    mode: Shift, ref: str, potential: Potential, frames: Sequence[Atoms], predictions: Sequence[Prediction]
) -> tuple[dict[str, float] | None, str | None]:
    """Energy shift by element (eV) and where it is from (``training``, ``fit``); None where there is none."""
    if mode is Shift.never:
        return None, None
    from aldriver.potentials.bundle import recorded_shift
    from aldriver.train.energies import fit_e0_shift

    recorded = recorded_shift(ref)
    symbols = {symbol for atoms in frames for symbol in atoms.get_chemical_symbols()}
    if recorded and symbols <= set(recorded):
        return {symbol: recorded[symbol] for symbol in sorted(symbols)}, "training"
    when: Any = mode.value
    fitted = fit_e0_shift(frames, potential, mode=when, predicted=[p.energy for p in predictions])
    return fitted, None if fitted is None else "fit"


def _show(result: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    title = f"{escape(result['potential'])} on {result['n_frames']} frames, {result['n_atoms']} atoms"
    table = Table("", "MAE", "RMSE", title=title, title_justify="left")
    for name, key, unit in (
        ("energy", "energy", "meV_atom"),
        ("force components", "forces", "meV_A"),
        ("stress", "stress", "GPa"),
    ):
        mae, rmse = result[f"{key}_mae_{unit}"], result[f"{key}_rmse_{unit}"]
        shown = unit.replace("_", "/").replace("/A", "/Å")
        table.add_row(f"{name} ({shown})", number(mae), number(rmse))
    console.print(table)
    if result["n_not_finite"]:
        console.print(
            f"[bold red]{result['n_not_finite']} frames gave numbers that are not finite: there is no mean error[/]"
        )
    _show_shift(result)
    if len(result["elements"]) > 1:
        _by(result["elements"], "element", energies=False)
        _by(result["compositions"], "composition")
    if len(result["groups"]) > 1:
        _by(result["groups"], "group")
    if "plot" in result:
        console.print(f"parity figure: {result['plot']}", markup=False, highlight=False, soft_wrap=True)


def _show_shift(result: dict[str, Any]) -> None:
    shift = result["e0_shift"]
    if shift is None:
        return
    values = ", ".join(f"{element} {value:+.3f}" for element, value in shift.items())
    origin = "recorded at its training" if result["e0_shift_from"] == "training" else "fitted on these frames"
    console.print(
        f"labels' energies moved by {values} eV per atom ({origin}; --e0-shift never leaves them as they are)",
        markup=False,
        highlight=False,
    )


def _by(rows: dict[str, dict[str, Any]], what: str, *, energies: bool = True) -> None:
    """A table of errors by element, composition or group; the worst forces first."""
    from rich.markup import escape
    from rich.table import Table

    columns = [("forces", "meV_A", "forces\nmeV/Å")]
    table = Table(what, "atoms")
    if energies:
        table.add_column("frames")
        columns = [("energy", "meV_atom", "energy\nmeV/atom"), *columns, ("stress", "GPa", "stress\nGPa")]
    for _, _, title in columns:
        table.add_column(title, justify="right")
    order = sorted(rows, key=lambda name: -(rows[name]["forces_rmse_meV_A"] or float("inf")))
    for name in order[:SHOWN]:
        row = rows[name]
        cells = [f"{number(row[f'{k}_mae_{u}'], 3)} / {number(row[f'{k}_rmse_{u}'], 3)}" for k, u, _ in columns]
        table.add_row(escape(name), str(row["n_atoms"]), *([str(row["n_frames"])] if energies else []), *cells)
    more = f"; the worst {SHOWN} of {len(order)}, --json has all" if len(order) > SHOWN else ""
    table.caption = f"MAE / RMSE{more}"
    console.print(table)
