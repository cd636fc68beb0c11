"""The model card of an export: what the potential is, how it is run, what was checked. It checks nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aldriver.core.records import read_json
from aldriver.core.store import atomic_write
from aldriver.export.origin import benchmark_lines, data_lines, rights_lines
from aldriver.potentials.base import Potential


def write_card(folder: Path, potential: Potential, result: dict[str, Any], training: dict[str, Any]) -> None:
    """Write ``card.md`` into an export folder.

    Parameters
    ----------
    result
        As in ``export.json``.
    training
        As in :func:`aldriver.export.lammps.export_potential`; may be empty.
    """
    config = read_json(folder / "config.json")
    lines = [
        f"# {potential.name}",
        "",
        f"- Family: {potential.family}",
        f"- Fingerprint: `{potential.fingerprint}`",
        f"- Refined from: {_code(config.get('parent'))}",
        f"- Elements: {_elements(potential)}",
        f"- Saved: {config.get('created', 'unknown')} with "
        + ", ".join(f"{k} {v}" for k, v in config.get("versions", {}).items()),
        "- Units: eV, Å, eV/Å³ (LAMMPS `units metal`)",
        *_training(training),
        *data_lines(training),
        "",
        "## Run it",
        "",
        "```",
        "pip install aldriver",
        "python run_lammps.py STRUCTURE --temperature 600 --steps 10000 --out md",
        "```",
        "",
        "In Python: `aldriver.load('THIS FOLDER')` (`.calculator()` for ASE). `in.lammps` is plain LAMMPS and may be",
        "edited; the driver attaches the potential to its `fix external`. One MPI rank.",
        "",
        *_without_aldriver(potential, result),
        "## Checked",
        "",
        f"Run on {result['structure']} (LAMMPS: fully flexible NPT) and compared, frame by frame, with the potential:",
        "",
        "| form | status | max ΔE (eV) | max ΔF (eV/Å) | max Δσ (bar) |",
        "|---|---|---|---|---|",
    ]
    for form in result["forms"]:
        numbers = " | ".join(_number(form[k]) for k in ("max_dE", "max_dF", "max_dS"))
        lines.append(f"| {form['form']} | {form['status'].replace('_', ' ')} | {numbers} |")
    lines += [f"- {f['form']}: {f['reason']}" for f in result["forms"] if f["reason"]]
    lines += benchmark_lines(training)
    lines += _surrogate(result.get("surrogate"))
    lines += ["", "## Where it can be trusted", "", *_detector(folder)]
    made = (folder / "surrogate" / "config.json").is_file()
    lines += [*rights_lines(potential.family, made), ""]
    atomic_write(folder / "card.md", "\n".join(lines))


def _without_aldriver(potential: Potential, result: dict[str, Any]) -> list[str]:
    """How the file of the program it comes from is loaded there."""
    from aldriver.potentials.vendor import VENDORS, snippet_of

    vendor = VENDORS.get(potential.family)
    form = next((f for f in result["forms"] if vendor is not None and f["form"] == vendor.program), None)
    if vendor is None or form is None or form["status"] != "exported":
        return []
    return [
        "## Use it without aldriver",
        "",
        f"`{form['files'][0]}` is a file of {vendor.program} itself, for ASE and whatever else reads such files. That",
        "program unpickles it: hand it only to people who trust you.",
        "",
        "```python",
        *snippet_of(potential, form["files"][0]).rstrip().splitlines(),
        "```",
        "",
    ]


def _training(training: dict[str, Any]) -> list[str]:
    """What it was refined on and how far it is off there."""
    if training.get("n_train") is None:
        return []
    origin = f"strategy {training.get('strategy')}"
    if training.get("generation") is not None:
        origin = f"generation {training['generation']} of campaign {training.get('campaign')}"
    frames = f"{training.get('n_train')} labelled frames, {training.get('n_valid')} for validation"
    lines = [f"- Training: {origin}, {frames}"]
    errors = training.get("validation") or {}
    shown = (
        ("energy", "energy_rmse_meV_atom", "meV/atom"),
        ("forces", "forces_rmse_meV_A", "meV/Å"),
        ("stress", "stress_rmse_GPa", "GPa"),
    )
    found = [f"{name} {errors[key]:.3g} {unit}" for name, key, unit in shown if errors.get(key) is not None]
    if found:
        lines.append(f"- RMSE on the validation frames: {', '.join(found)}")
    if training.get("e0_shift"):
        shift = ", ".join(f"{element} {value:+.3f}" for element, value in training["e0_shift"].items())
        lines.append(f"- Energies are on the parent's scale: reference + {shift} eV/atom")
    return lines


def _surrogate(report: dict[str, Any] | None) -> list[str]:
    """What was measured of the native surrogate."""
    if report is None:
        return []
    lines = ["", "## The native surrogate", ""]
    if "from_parent" not in report:
        return [*lines, f"There is none: {report['reason']}."]
    if report["reason"]:
        lines += [f"**It is {report['reason']}** `surrogate/` holds only what was measured.", ""]
    else:
        lines += [
            f"`surrogate/` is an ML-POD potential fitted to what this one says of {report['frames']['learnt']} cells.",
            "It needs plain LAMMPS only (package ML-POD) and runs on any number of MPI ranks:",
            "`mpirun -n 4 lmp -in in.pod -var data structure.data`; in Python: `aldriver.load('FOLDER/surrogate')`.",
            f"The detector does not speak for it, and atoms nearer than {report['shortest_A']:.2f} Å are beyond it.",
            "",
        ]
    held, learnt, speed = report["from_parent"]["held_out"], report["from_parent"]["learnt"], report["speed"]
    rows = [
        ("force RMSE against the reference, meV/Å", report["parent_force_rmse_meV_A"], report["force_rmse_meV_A"]),
        (
            f"CPU time of a step of {speed['atoms']} atoms, µs/atom",
            speed["parent_cpu_us_atom_step"],
            speed["surrogate_cpu_us_atom_step"],
        ),
    ]
    rows += [(f"{name}, {row['unit']}", row["parent"], row["surrogate"]) for name, row in report["benchmark"].items()]
    lines += ["| | this potential | surrogate |", "|---|---|---|"]
    lines += [f"| {name} | {_value(before)} | {_value(after)} |" for name, before, after in rows]
    return [
        *lines,
        "",
        f"It is {speed['ratio']:.0f} times faster. Against this potential, on {report['frames']['held_out']} held-out",
        f"configurations (in brackets: on those it learnt from): forces {held['forces_rmse_meV_A']:.1f}",
        f"({learnt['forces_rmse_meV_A']:.1f}) meV/Å, tolerated are {report['tolerance_meV_A']:.1f};",
        f"energies {held['energy_rmse_meV_atom']:.2f} ({learnt['energy_rmse_meV_atom']:.2f}) meV/atom; stresses",
        f"{held['stress_rmse_GPa']:.2f} ({learnt['stress_rmse_GPa']:.2f}) GPa.",
    ]


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _detector(folder: Path) -> list[str]:
    if not (folder / "detector").is_dir():
        return ["No detector came with this export: nothing here tells when the potential extrapolates."]
    return [
        "`detector/` scores frames; a ratio above 1 means the potential extrapolates there. Thresholds are in",
        "`detector/config.json`; it works with this potential only (same fingerprint).",
    ]


def _elements(potential: Potential) -> str:
    symbols = sorted(potential.elements)
    return ", ".join(symbols) if len(symbols) <= 12 else f"{len(symbols)} ({symbols[0]}–{symbols[-1]}, alphabetically)"


def _code(text: str | None) -> str:
    return f"`{text}`" if text else "nothing (as loaded)"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"
