"""``aldriver train``: refine a potential on labelled frames, without a campaign."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aldriver.cli.common import Device, Json, console, emit, log, number, progress
from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Train

FLAGS = {
    "strategy": "--strategy",
    "epochs": "--epochs",
    "learning_rate": "--learning-rate",
    "batch_size": "--batch-size",
    "replay.source": "--replay",
    "replay.weight": "--replay-weight",
    "dtype": "--dtype",
    "memory_limit_GB": "--memory-limit-GB",
    "valid_fraction": "--valid-fraction",
}
"""Key of the settings: option that overrides it."""
SHOWN = (("F", "forces_mae_meV_A"), ("E", "energy_mae_meV_atom"))
"""Beside the bar: MAE on the validation frames, meV/Å and meV/atom."""
METRICS = (
    ("validation loss", "loss"),
    ("energy MAE (meV/atom)", "energy_mae_meV_atom"),
    ("energy RMSE (meV/atom)", "energy_rmse_meV_atom"),
    ("force MAE (meV/Å)", "forces_mae_meV_A"),
    ("force RMSE (meV/Å)", "forces_rmse_meV_A"),
    ("stress MAE (GPa)", "stress_mae_GPa"),
    ("stress RMSE (GPa)", "stress_rmse_GPa"),
)


def train(
    start: Annotated[str, typer.Argument(help="chgnet:0.3.0, sevennet:7net-0 or a saved directory (see convert).")],
    frames: Annotated[list[Path], typer.Argument(help="Labelled frames (extended XYZ); one file or several.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the result; called again, it goes on where it was.")],
    valid: Annotated[Path | None, typer.Option("--valid", help="Validation frames; else a share of FRAMES.")] = None,
    valid_fraction: Annotated[
        float | None, typer.Option("--valid-fraction", help="Share of FRAMES to validate on, by whole groups.")
    ] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", help="naive, model-5, f4, lora, ...: docs.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size")] = None,
    replay: Annotated[
        str | None, typer.Option("--replay", help="self: cells labelled by START itself; none; or a labelled FILE.")
    ] = None,
    replay_weight: Annotated[float | None, typer.Option("--replay-weight", help="Of replayed frames' loss.")] = None,
    foundation: Annotated[
        str | None,
        typer.Option("--foundation", help="What must not be forgotten, when START is itself refined; default: START."),
    ] = None,
    ewc: Annotated[
        float | None, typer.Option("--ewc", min=0, help="How strongly weights that general knowledge needs are held.")
    ] = None,
    committee: Annotated[int | None, typer.Option("--committee", min=2, help="Train so many members.")] = None,
    learning_rates: Annotated[
        str | None, typer.Option("--learning-rates", help="Study: try each, e.g. 1e-4,3e-4,1e-3, and keep the best.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML: the `train` block of a recipe; options override it.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32 or float64.")] = None,
    memory_limit_GB: Annotated[
        float | None, typer.Option("--memory-limit-GB", help="The batch is cut until training fits.")
    ] = None,
    head: Annotated[str | None, typer.Option("--head", help="Of a MACE model with several heads.")] = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Refine START on labelled FRAMES; the result replaces it only where it is better and forgets little enough.

    Exit code 1 when the result is refused: START is then still the one to use.
    """
    if committee is not None and learning_rates is not None:
        raise InputError("--committee and --learning-rates: one at a time; study the learning rate first")
    given = {
        "strategy": strategy, "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size,
        "replay.source": replay, "replay.weight": replay_weight, "ewc": ewc, "dtype": dtype,
        "memory_limit_GB": memory_limit_GB, "valid_fraction": valid_fraction,
    }  # fmt: skip
    wanted = train_settings(settings, {key: value for key, value in given.items() if value is not None})
    rates = _rates(learning_rates) if learning_rates is not None else None
    labelled, held_out = _read(frames), None if valid is None else _read([valid])

    from aldriver.potentials import load
    from aldriver.train import standalone

    known, unseen, split = standalone.sides(labelled, held_out, wanted, seed=seed)
    loaded = load(start, device=device, head=head)
    log.print(f"{loaded.name}, strategy {wanted.strategy}: {split}", markup=False, highlight=False, soft_wrap=True)
    runs = committee or len(rates or [0])
    common: dict[str, Any] = {"seed": seed}
    if foundation is not None:
        common["foundation"] = load(foundation, device=device)
    with _interruptible(out), _bar("Epochs", out, runs * wanted.epochs) as common["on_epoch"]:
        if committee is not None:
            result = standalone.refine_committee(loaded, known, unseen, wanted, out, size=committee, **common)
        elif rates is not None:
            result = standalone.study(loaded, known, unseen, wanted, out, rates=rates, **common)
        else:
            result = standalone.refine(loaded, known, unseen, wanted, out, **common)
    result |= {"out": out, "split": split, "seed": seed}
    if not emit(result, json_to):
        _show(result, wanted, frames[0])
    if not result["accepted"] and wanted.strategy != "zero-shot":
        log.print(f"[bold red]refused:[/] {_plain(result['reason'])}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def train_settings(file: Path | None, given: dict[str, Any]) -> Train:
    """Settings of a file (or the defaults) with what was given as options (``replay.source``: value) in their place.

    Raises
    ------
    InputError
        Naming the line of the file, or the option.
    """
    from pydantic import ValidationError

    from aldriver.core.recipe import load_train
    from aldriver.core.recipe_train import Train

    base = load_train(file) if file is not None else Train()
    data = base.model_dump()
    for key, value in given.items():
        block = data
        *outer, last = key.split(".")
        for name in outer:
            block = block[name]
        block[last] = value
    source = given.get("replay.source")
    if source not in (None, "auto", "self", "none") and not Path(source).is_file():
        raise InputError(f"--replay {source}: no such file; give auto, self, none or a file of labelled frames")
    try:
        return Train.model_validate(data)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = next((k for k in FLAGS if problem["loc"][: k.count(".") + 1] == tuple(k.split("."))), "")
            shown = FLAGS.get(key, ".".join(map(str, problem["loc"])))
            problems.append(f"{shown}: {problem['msg']} (got {problem['input']!r})")
        raise InputError("\n".join(dict.fromkeys(problems))) from error


def _rates(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"--learning-rates {text!r}: give numbers with commas between, e.g. 1e-4,3e-4") from error


def _read(files: list[Path]) -> list[Atoms]:
    from aldriver.core.frames import read_frames

    return [atoms for file in files for atoms in read_frames(file, labelled=True)]


@contextmanager
def _bar(title: str, out: Path, total: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A progress bar over the epochs that are left; what lies in the folder already counts as done."""
    from aldriver.train.standalone import finished_epochs

    with progress(title, total=total) as advance:
        advance.to(finished_epochs(out), total)

        def epoch(line: dict[str, Any]) -> None:
            errors, drift = line["valid"], (line.get("drift") or {}).get("drift_meV_atom")
            parts = [f"loss {line['train_loss']:.3g}"]
            parts += [f"{name} {number(errors[key], 3)}" for name, key in SHOWN if errors.get(key) is not None]
            advance(", ".join(parts) + (f", drift {drift:.2g}" if drift is not None else ""))

        yield epoch


@contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Ctrl-C ends the command with what can be done next; the last complete epoch is on disk."""
    from aldriver.train.standalone import finished_epochs

    try:
        yield
    except KeyboardInterrupt:
        done = finished_epochs(out)
        what = f"after {done} epochs, all of them kept" if done else "before the first epoch was complete"
        log.print(f"stopped {what}; the same command goes on from there", markup=False, highlight=False)
        raise typer.Exit(1) from None


# ---- what came of it -----------------------------------------------------------------------------------------------


def _show(result: dict[str, Any], settings: Train, frames: Path) -> None:
    if "members" in result:
        _show_rows(result["members"], "member")
    elif "rows" in result:
        _show_rows([row | {"after": row} for row in result["rows"]], "learning_rate")
    for attempt in result.get("attempts", []):
        verdict = "accepted" if attempt["accepted"] else "refused"
        console.print(f"{attempt['strategy']}: {verdict}: {attempt['reason']}", markup=False, highlight=False)
    if "before" in result:
        _show_errors(result)
    if result["accepted"] and "members" not in result:
        _show_use(result, frames)
    elif "members" in result:
        for member in result["members"]:
            console.print(f"{member['path']}", markup=False, highlight=False, soft_wrap=True)


def _show_errors(result: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"{result['strategy']}: {result['trainable']} weights trained, best epoch {result['best_epoch']}"
    table = Table("on the validation frames", title=title, title_justify="left")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    before, after = result["before"], result["after"]
    for name, key in METRICS:
        if before.get(key) is not None or after.get(key) is not None:
            change = after[key] / before[key] - 1 if before.get(key) and after.get(key) is not None else None
            shown = "—" if change is None else f"{100 * change:+.0f} %"
            table.add_row(name, number(before.get(key)), number(after.get(key)), shown)
    console.print(table)
    if result["e0_shift"]:
        shift = ", ".join(f"{element} {value:+.3f}" for element, value in result["e0_shift"].items())
        console.print(f"labels' energies were moved by {shift} eV per atom", markup=False, highlight=False)
    if result["accepted"]:
        console.print(f"[bold green]accepted:[/] {_plain(result['reason'])}", highlight=False)
    if result["guards"].get("reason"):
        console.print(f"forgetting: {result['guards']['reason']}", markup=False, highlight=False)


def _show_rows(rows: list[dict[str, Any]], what: str) -> None:
    """A table of trainings: members of a committee, or learning rates."""
    from rich.table import Table

    table = Table(what.replace("_", " "), "")
    for name in ("valid. loss", "energy\nmeV/atom", "forces\nmeV/Å", "stress\nGPa", "drift\nmeV/atom"):
        table.add_column(name, justify="right")
    for row in rows:
        after, drift = row["after"], row.get("drift") or row.get("guards") or {}
        keys = ("energy_rmse_meV_atom", "forces_rmse_meV_A", "stress_rmse_GPa")
        cells = [number(after.get("loss")), *(number(after.get(key), 3) for key in keys)]
        table.add_row(
            str(row[what]), "" if row["accepted"] else "refused", *cells, number(drift.get("drift_meV_atom"), 3)
        )
    table.caption = "RMSE on the validation frames"
    console.print(table)


def _show_use(result: dict[str, Any], frames: Path) -> None:
    from aldriver.potentials.vendor import VENDORS

    path = result["path"]
    lines = [
        f"\nThe refined potential lies in {path}",
        f'  in Python    aldriver.load("{path}").calculator()',
        f"  errors       aldriver evaluate {path} {frames}",
        f"  LAMMPS       aldriver export {path} {result['out']}/lammps",
    ]
    if result["family"] in VENDORS:
        vendor = VENDORS[result["family"]]
        lines.append(f"  {vendor.program:<12} aldriver convert {path} {result['out']}/refined{vendor.suffix}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
