"""``aldriver detector``: fit, calibrate, use and judge a detector on plain files of frames, without a campaign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aldriver.cli.common import Device, Json, console, emit, log, number, progress
from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_detect import Detect
    from aldriver.detect import Detector
    from aldriver.potentials import Potential

app = typer.Typer(help="Where a potential guesses, and how wrong it may be there.", no_args_is_help=True)

CHUNK = 8
"""Frames between two steps of the progress bar."""
SHOWN = 15
"""Most frames in a table; JSON has all."""
VERDICTS = ("flagged", "unphysical", "quarantined", "known")
FLAGS = {"signals": "--signals", "tolerance_meV_A": "--tolerance-meV-A", "miss_rate": "--miss-rate"}


class PerFrame(StrEnum):
    """How a frame's value of a signal is made of its atoms'."""

    mean = "mean"
    rms = "rms"
    max = "max"


Frames = Annotated[list[Path], typer.Argument(help="Frames (extended XYZ); one file or several.")]
Labelled = Annotated[list[Path], typer.Argument(help="Labelled frames (extended XYZ); one file or several.")]
Saved = Annotated[Path, typer.Argument(help="Folder of a fitted detector.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write the detector to.")]
Of = Annotated[
    str | None,
    typer.Option("--potential", help="The potential it belongs to; default: the saved one whose folder it lies in."),
]
Head = Annotated[str | None, typer.Option("--head", help="Of a MACE model with several heads.")]
Tolerance = Annotated[float | None, typer.Option("--tolerance-meV-A", help="Force error of a frame you tolerate.")]
MissRate = Annotated[
    float | None, typer.Option("--miss-rate", help="Share of the frames above it that may go unnoticed.")
]


@app.command()
def fit(
    potential: Annotated[str, typer.Argument(help="chgnet:0.3.0, eam:FILE or a saved directory.")],
    frames: Annotated[list[Path], typer.Argument(help="Frames it was trained on (extended XYZ).")],
    out: Out,
    calibration: Annotated[
        list[Path] | None,
        typer.Option("--calibrate", help="Labelled frames it was not trained on; else run `calibrate` later."),
    ] = None,
    signals: Annotated[str | None, typer.Option("--signals", help="E.g. soap_q,feature_distance,last_layer.")] = None,
    member: Annotated[
        list[str] | None, typer.Option("--member", help="Of a committee, for the signal committee; repeat it.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML: the `detect` block of a recipe; options override it.")
    ] = None,
    tolerance: Tolerance = None,
    miss_rate: MissRate = None,
    head: Head = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Fit a detector of POTENTIAL on FRAMES, and write it to a folder."""
    given: dict[str, Any] = {"tolerance_meV_A": tolerance, "miss_rate": miss_rate}
    given["signals"] = None if signals is None else [s.strip() for s in signals.split(",") if s.strip()]
    wanted = _settings(settings, given)
    known, heldout = _read(frames), _read(calibration or [])
    _not_inside_a_published(out)
    from aldriver.detect import Detector
    from aldriver.potentials import load

    loaded = load(potential, device=device, head=head)
    members = [load(ref, device=device, head=head) for ref in member or []]
    with progress(f"Fitting on {len(known)} frames") as advance:
        detector = Detector.fit(known, loaded, wanted, members=members)
        if heldout:
            advance(f"calibrating on {len(heldout)} frames")
            detector.calibrate(heldout, loaded)
    detector.save(out)
    result = {"n_fitted": len(known), **_facts(detector, out, heldout)}
    if not emit(result, json_to):
        console.print(f"fitted on {len(known)} frames: {', '.join(detector.signals.names)}", highlight=False)
        _show_promise(result)


@app.command()
def calibrate(
    detector: Saved,
    frames: Labelled,
    out: Out,
    potential: Of = None,
    tolerance: Tolerance = None,
    miss_rate: MissRate = None,
    head: Head = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Calibrate DETECTOR on labelled FRAMES that the potential was not trained on; the result is written to --out."""
    heldout = _read(frames)
    _not_inside_a_published(out)
    loaded, of = _load(detector, potential, device, head, needed="force errors are measured with it")
    given = {"tolerance_meV_A": tolerance, "miss_rate": miss_rate}
    loaded.settings = _validated(loaded.settings.model_dump(), given)
    with progress(f"Calibrating on {len(heldout)} frames"):
        loaded.calibrate(heldout, of)
    loaded.save(out)
    result = _facts(loaded, out, heldout)
    if not emit(result, json_to):
        _show_promise(result)


@app.command()
def score(
    detector: Saved,
    frames: Frames,
    potential: Of = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the frames with `ratio`, `verdict` and each atom's score (extended XYZ)."),
    ] = None,
    head: Head = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """Judge FRAMES: known, flagged (likely beyond the tolerance), unphysical, or quarantined."""
    found = _read(frames)
    loaded, of = _load(detector, potential, device, head)
    verdicts = [one for chunk in _chunks(found, "Scoring") for one in loaded.score(chunk, of)]
    rows = []
    for i, (atoms, one) in enumerate(zip(found, verdicts, strict=True)):
        kind = "quarantined" if not one.finite else "unphysical" if one.unphysical else "known"
        kind = "flagged" if kind == "known" and one.flagged else kind
        rows.append({"frame": i, "frame_id": atoms.info["frame_id"], "formula": str(atoms.symbols), "verdict": kind})
        rows[-1] |= {"ratio": one.ratio, "score": one.score, "signals": one.values, "reason": one.reason}
        if out is not None:
            atoms.info |= {"ratio": one.ratio, "verdict": kind}
            atoms.set_array("score", one.atom_score)
    if out is not None:
        from aldriver.core.frames import write_frames

        write_frames(out, found)
    counts = {
        kind: sum(r["verdict"] == kind for r in rows) for kind in ("known", "flagged", "unphysical", "quarantined")
    }
    result = {"detector": str(detector), "n_frames": len(rows), **counts, "out": out, "frames": rows}
    if not emit(result, json_to):
        _show_scores(result)


@app.command()
def roc(
    detector: Saved,
    frames: Labelled,
    potential: Of = None,
    share: Annotated[float, typer.Option("--worst", min=0.001, max=0.5, help="What counts as bad: this share.")] = 0.1,
    frame: Annotated[PerFrame, typer.Option("--frame", help="A frame's value of a signal: of its atoms'.")] = (
        PerFrame.mean
    ),
    resamples: Annotated[int, typer.Option("--resamples", min=10, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    head: Head = None,
    json_to: Json = None,
    device: Device = "cpu",
) -> None:
    """How well each signal finds the worst force errors on labelled FRAMES; misses and false alarms when calibrated.

    FRAMES must have had no part in training, fitting or calibration.
    """
    found = _read(frames, labelled=True)
    loaded, of = _load(detector, potential, device, head, needed="force errors are measured with it")
    assert of is not None
    measured = _measure(loaded, of, found)
    result = _judge(loaded, measured, share=share, frame=frame.value, resamples=resamples, seed=seed)
    result = {"detector": str(detector), "potential": of.name, "frames": [str(f) for f in frames], **result}
    if not emit(result, json_to):
        _show_roc(result)


# ---- what the commands share ---------------------------------------------------------------------------------------


def _settings(file: Path | None, given: dict[str, Any]) -> Detect:
    from aldriver.core.recipe import Detect, load_detect

    return _validated((load_detect(file) if file is not None else Detect()).model_dump(), given)


def _validated(data: dict[str, Any], given: dict[str, Any]) -> Detect:
    """Settings with what was given as options in their place; the error names the option."""
    from pydantic import ValidationError

    from aldriver.core.recipe_detect import Detect

    try:
        return Detect.model_validate(data | {key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        lines = []
        for one in error.errors():
            key = str(one["loc"][0]) if one["loc"] else ""
            message = one["msg"].removeprefix("Value error, ")
            lines.append(f"{FLAGS.get(key, key)}: {message} (got {one['input']!r})" if key else message)
        raise InputError("\n".join(dict.fromkeys(lines))) from error


def _read(files: Sequence[Path], *, labelled: bool = False) -> list[Atoms]:
    """Frames of several files; those that do not say their group belong to one of their own."""
    from aldriver.core.frames import read_frames

    found = [atoms for file in files for atoms in read_frames(file, labelled=labelled)]
    if files and not found:
        raise InputError(f"{', '.join(map(str, files))}: no frames in there")
    return found


def _not_inside_a_published(folder: Path) -> None:
    from aldriver.core.store import is_published

    for parent in (folder, *folder.resolve().parents):
        if is_published(parent):
            raise InputError(f"--out {folder}: {parent} is a published result and stays as it is; take another folder")


def _load(
    folder: Path, ref: str | None, device: str, head: str | None, *, needed: str = ""
) -> tuple[Detector, Potential | None]:
    """The detector and its potential: the given one, or the saved one in whose folder it lies."""
    from aldriver.detect import Detector
    from aldriver.potentials import load

    if ref is None and (folder.parent / "weights.safetensors").is_file():
        ref = str(folder.parent)
    if ref is None and needed:
        raise InputError(f"{folder}: give --potential, the potential that this detector belongs to: {needed}")
    potential = None if ref is None else load(ref, device=device, head=head)
    return Detector.load(folder, potential), potential


def _chunks(frames: list[Atoms], what: str) -> Iterator[list[Atoms]]:
    with progress(what, total=len(frames)) as advance:
        for i in range(0, len(frames), CHUNK):
            chunk = frames[i : i + CHUNK]
            yield chunk
            advance(n=len(chunk))


def _facts(detector: Detector, out: Path, heldout: Sequence[Atoms]) -> dict[str, Any]:
    calibration = detector.calibration
    return {
        "path": str(out),
        "potential": detector.potential,
        "fingerprint": detector.fingerprint,
        "signals": list(detector.signals.names),
        "tolerance_meV_A": detector.settings.tolerance_meV_A,
        "miss_rate": detector.settings.miss_rate,
        "n_calibration": len(heldout),
        "n_groups": len({a.info["group"] for a in heldout}),
        "calibration": None if calibration is None else calibration.as_dict(),
        "promise": [] if calibration is None else calibration.sentences(),
    }


def _measure(detector: Detector, potential: Potential, frames: list[Atoms]) -> dict[str, Any]:
    """Force errors and signals by atom, scores and ratios by frame; frames without a usable number are counted."""
    import numpy as np

    from aldriver.core.frames import label_of

    out: dict[str, Any] = {"errors": [], "signals": [], "scores": [], "ratios": [], "groups": [], "left_out": 0}
    for chunk in _chunks(frames, "Measuring"):
        predictions = potential.evaluate(chunk, stress=False, features=potential.has_features)
        features = [p.features for p in predictions]
        measured = detector.signals.of_atoms(chunk, potential, features)
        for atoms, p, (signals, _) in zip(chunk, predictions, measured, strict=True):
            errors = np.linalg.norm(np.asarray(label_of(atoms, "forces")) - p.forces, axis=1)
            if not np.isfinite(errors).all() or any(np.isnan(v).any() for v in signals.values()):
                out["left_out"] += 1
                continue
            calibration = detector.calibration
            found = {**signals, "|F|": np.linalg.norm(p.forces, axis=1)}
            if calibration is not None:
                fused = calibration.atom_scores(signals)
                value = calibration.score(fused)
                found = {"score": fused, **found}
                out["scores"].append(value)
                out["ratios"].append(calibration.limit_of(atoms).ratio(value))
            out["errors"].append(errors)
            out["signals"].append(found)
            out["groups"].append(str(atoms.info["group"]))
    return out


def _judge(detector: Detector, measured: dict[str, Any], *, share: float, frame: Any, **how: Any) -> dict[str, Any]:
    import numpy as np

    from aldriver.detect.calibrate import interval
    from aldriver.detect.roc import compare, frame_value

    errors, settings = measured["errors"], detector.settings
    if not errors:
        raise InputError("no frame is left to judge by: none has finite forces and signals")
    names = list(measured["signals"][0])
    signals = {name: [s[name] for s in measured["signals"]] for name in names}
    scores = {"score": measured["scores"]} if measured["scores"] else {}
    table = compare(errors, signals, frame_scores=scores, share=share, error=settings.error, frame=frame, **how)
    result: dict[str, Any] = {
        "n_frames": len(errors),
        "n_atoms": int(sum(map(len, errors))),
        "left_out": measured["left_out"],
        "worst": share,
        "frame": frame,
        "force_rmse_meV_A": 1000.0 * float(np.sqrt(np.mean(np.concatenate(errors) ** 2) / 3.0)),
        "signals": {name: asdict(one) for name, one in table.items()},
        "coverage": None,
    }
    if scores:
        bad = np.array([frame_value(e, settings.error) for e in errors]) > settings.tolerance_meV_A / 1000.0
        flagged = np.array(measured["ratios"]) > 1.0
        missed, alarms = int((bad & ~flagged).sum()), int((~bad & flagged).sum())
        n_bad, n_good = int(bad.sum()), int((~bad).sum())
        result["coverage"] = {
            "tolerance_meV_A": settings.tolerance_meV_A,
            "miss_rate_promised": settings.miss_rate,
            "above": n_bad,
            "missed": missed,
            "miss_rate": missed / n_bad if n_bad else None,
            "miss_rate_interval": interval(missed, n_bad),
            "within": n_good,
            "false_alarms": alarms,
            "false_alarm_rate": alarms / n_good if n_good else None,
            "false_alarm_interval": interval(alarms, n_good),
        }
    return result


# ---- tables --------------------------------------------------------------------------------------------------------


def _show_promise(result: dict[str, Any]) -> None:
    for sentence in result["promise"] or ["not calibrated yet: aldriver detector calibrate"]:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    n = result["n_calibration"]
    if n and result["n_groups"] == n:
        log.print(
            f"each of the {n} frames counts as independent; where some are of one trajectory, say so in their `group`",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"written to {result['path']}", markup=False, highlight=False, soft_wrap=True)


def _show_scores(result: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    title = f"{result['n_frames']} frames: " + ", ".join(f"{result[kind]} {kind}" for kind in VERDICTS)
    table = Table("frame", "", "verdict", title=title, title_justify="left")
    table.add_column("ratio", justify="right")
    table.add_column("why")
    rows = sorted(result["frames"], key=lambda r: (r["verdict"] != "quarantined", -r["ratio"]))
    for row in rows[:SHOWN]:
        cells = (row["verdict"], number(row["ratio"], 3), escape(row["reason"]))
        table.add_row(str(row["frame"]), escape(row["formula"]), *cells)
    if len(rows) > SHOWN:
        table.caption = f"the worst {SHOWN} of {len(rows)}, --json has all"
    console.print(table)
    if result["out"] is not None:
        console.print(f"written to {result['out']}", markup=False, highlight=False, soft_wrap=True)


def _show_roc(result: dict[str, Any]) -> None:
    from rich.table import Table

    def cell(one: dict[str, Any]) -> str:
        return f"{number(one['value'], 3)} ({number(one['low'], 3)}-{number(one['high'], 3)})"

    percent = f"{100 * result['worst']:g} %"
    title = f"{result['potential']} on {result['n_frames']} frames, {result['n_atoms']} atoms, "
    title += f"force RMSE {number(result['force_rmse_meV_A'], 3)} meV/Å"
    table = Table("signal", title=title, title_justify="left")
    for name in (f"AUROC, worst\n{percent} of atoms", f"AUROC, worst\n{percent} of frames"):
        table.add_column(name, justify="right")
    for name in ("Spearman\natoms", "frames", "within\na frame"):
        table.add_column(name, justify="right")
    for name, one in result["signals"].items():
        ranks = (number(one[key], 2) for key in ("rank_atoms", "rank_frames", "within"))
        table.add_row(name, cell(one["atoms"]), cell(one["frames"]), *ranks)
    table.caption = "with 95 % bootstrap intervals"
    console.print(table)
    if result["left_out"]:
        console.print(f"{result['left_out']} frames without finite forces or signals were left out", highlight=False)
    if result["coverage"]:
        _show_coverage(result["coverage"])


def _show_coverage(found: dict[str, Any]) -> None:
    def share(count: int, n: int, interval: Sequence[float]) -> str:
        return f"{count} of {n} (95 % interval {100 * interval[0]:.3g}-{100 * interval[1]:.3g} %)"

    misses = share(found["missed"], found["above"], found["miss_rate_interval"])
    alarms = share(found["false_alarms"], found["within"], found["false_alarm_interval"])
    console.print(
        f"frames above {found['tolerance_meV_A']:g} meV/Å that went unnoticed: {misses}; accepted were "
        f"{100 * found['miss_rate_promised']:g} %\nfalse alarms among the others: {alarms}",
        highlight=False,
        soft_wrap=True,
    )
