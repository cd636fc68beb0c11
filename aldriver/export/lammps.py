"""Exports a potential: a folder that runs by itself in LAMMPS, run and compared before it counts as exported.

What the inputs say is ``inputs.py``'s business, running them ``driver.py``'s, comparing ``compare.py``'s; the file of
the program the potential comes from is ``vendor.py``'s, a fast potential made after it ``surrogate.py``'s.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import bare, write_frames
from aldriver.core.records import dumps
from aldriver.core.store import atomic_write, publish
from aldriver.export.card import write_card
from aldriver.export.compare import compare_run, compared
from aldriver.export.form import Form
from aldriver.export.inputs import lammps_input
from aldriver.export.program_forms import program_forms
from aldriver.export.surrogate import Material, OnProgress, distil
from aldriver.export.vendor import vendor_form
from aldriver.potentials.base import Potential

STEPS, EVERY = 10, 5
TIMEOUT_S = 900.0

DRIVER = '''\
#!/usr/bin/env python
"""MD in LAMMPS with the potential in this folder: python run_lammps.py STRUCTURE --temperature 600 --steps 1000"""

from pathlib import Path

from aldriver.export.driver import main

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    raise SystemExit(main(default_potential=HERE, default_input=HERE / "in.lammps"))
'''


def export_potential(
    potential: Potential,
    out_dir: str | Path,
    *,
    detector_dir: str | Path | None = None,
    structure: Atoms | None = None,
    training: dict[str, Any] | None = None,
    material: Material | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Write `out_dir`: the potential, its detector, LAMMPS inputs, a driver and a model card; then run and compare it.

    A potential of CHGNet, MACE or SevenNet is also written as a file of that program.

    Parameters
    ----------
    out_dir
        Must not exist yet; it appears complete (with ``manifest.json``) or not at all.
    detector_dir
        A saved detector, copied to ``detector/``.
    structure
        Cell of the comparison run; by default a small one of elements the potential knows.
    training
        Where it comes from, for the card: ``campaign, generation, strategy, parent, e0_shift, n_train, n_valid,
        validation, data_sha256`` (file: sum), ``benchmark`` (property: ``value, reference, unit``); parent and shift
        are also kept in the saved potential.
    material
        What a native surrogate is distilled from (``surrogate/``); without it there is none.
    on_progress
        Called with (what is done, steps done, all steps).

    Returns
    -------
    dict
        As in ``export.json``: ``potential``, ``fingerprint``, ``path``, ``structure``, ``forms`` (see :class:`Form`),
        ``surrogate`` (as in ``surrogate/surrogate.json``, or None).

    Raises
    ------
    InputError
        When `out_dir` exists, the structure holds unknown elements or is not periodic, the detector is not there, or
        this family cannot be saved.
    """
    from aldriver.potentials.bundle import save_bundle

    out = Path(out_dir)
    if out.exists():
        raise InputError(f"{out}: exists already; exports are never overwritten, name a new folder")
    if detector_dir is not None and not Path(detector_dir).is_dir():
        raise InputError(f"{detector_dir}: no such detector folder")
    cell = _comparison_cell(potential, structure)
    out.parent.mkdir(parents=True, exist_ok=True)
    with publish(out) as folder:
        about = training or {}
        save_bundle(potential, folder, parent=about.get("parent"), extra={"e0_shift": about.get("e0_shift")})
        if detector_dir is not None:
            shutil.copytree(detector_dir, folder / "detector")
        atomic_write(folder / "run_lammps.py", DRIVER)
        (folder / "check").mkdir()
        write_frames(folder / "check" / "structure.extxyz", [cell])
        forms = _forms(potential, folder, cell)
        own = vendor_form(potential, folder, cell)
        forms += [own] if own is not None else []
        forms += program_forms(potential, folder, cell, own)
        report = None
        if material is not None:
            more, report = _surrogate(potential, material, folder / "surrogate", cell, on_progress)
            forms += more
        result: dict[str, Any] = {
            "potential": potential.name,
            "fingerprint": potential.fingerprint,
            "path": str(out.resolve()),
            "structure": cell.get_chemical_formula(),
            "detector": detector_dir is not None,
            "forms": [asdict(form) for form in forms],
            "surrogate": report,
        }
        write_card(folder, potential, result, about)
        atomic_write(folder / "export.json", dumps(result))
    return result


def _comparison_cell(potential: Potential, structure: Atoms | None) -> Atoms:
    """The cell of the comparison runs: the one given, else one that the potential's own probe has."""
    from aldriver.potentials.bundle import probe_frames

    cell = bare(structure if structure is not None else probe_frames(potential.elements)[-1])
    potential.check_elements([cell])
    if cell.cell.rank < 3 or not cell.pbc.all():
        raise InputError(f"{cell.get_chemical_formula()}: the comparison run needs a cell periodic in three directions")
    return cell


def _surrogate(
    potential: Potential, material: Material, folder: Path, cell: Atoms, on_progress: OnProgress | None
) -> tuple[list[Form], dict[str, Any]]:
    """As :func:`distil`; where there can be no surrogate, the rest of the export stands."""
    try:
        return distil(potential, material, folder, cell, on_progress)
    except AldriverError as error:
        status: Literal["not_available", "failed"] = "not_available" if isinstance(error, InputError) else "failed"
        return [Form(form="pair_style pod", status=status, reason=str(error))], {"reason": str(error)}


def _forms(potential: Potential, folder: Path, cell: Atoms) -> list[Form]:
    elements = list(dict.fromkeys(cell.get_chemical_symbols()))
    title = f"MD with {potential.name} (fingerprint {potential.fingerprint})"
    text = lammps_input(title=title, run="python run_lammps.py STRUCTURE --temperature 600", elements=elements)
    atomic_write(folder / "in.lammps", text)
    forms = [_checked("fix external", ("run_lammps.py", "in.lammps"), potential, folder)]
    style = getattr(potential, "pair_style", None)
    if style is None:
        reason = (
            f"the LAMMPS of the pip wheel has no pair style for {potential.family}; "
            "the fix external form gives the same numbers there"
        )
        return [*forms, Form(form="pair_style", status="not_available", reason=reason)]
    weights = next(folder.glob("weights.*")).name
    text = lammps_input(
        title=title,
        run="lmp -in in.native -var data structure.data",
        elements=elements,
        pair_style=style,
        potential_file=weights,
    )
    atomic_write(folder / "in.native", text)
    return [*forms, _checked(f"pair_style {style}", ("in.native", weights), potential, folder)]


def _checked(form: str, files: tuple[str, ...], potential: Potential, folder: Path) -> Form:
    """Run the exported form in a process of its own and compare what it wrote with the potential."""
    name = "native" if "in.native" in files else "external"
    script = "in.native" if name == "native" else "in.lammps"
    where = folder / "check" / name
    command = [sys.executable, str(folder / "run_lammps.py"), str(folder / "check" / "structure.extxyz")]
    command += ["--input", str(folder / script), "--out", str(where), "--steps", str(STEPS), "--every", str(EVERY)]
    command += ["--ensemble", "npt", "--flexible", "tri", "--temperature", "300", "--precision", "own"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=dict(os.environ))
    except subprocess.TimeoutExpired:
        return Form(form=form, status="failed", files=files, reason=f"the run did not end within {TIMEOUT_S:.0f} s")
    if done.returncode != 0:
        words = "; ".join(done.stderr.split("\n")[-4:]).strip("; ")[-500:] or f"exit code {done.returncode}"
        return Form(form=form, status="failed", files=files, reason=f"the run failed: {words}")
    try:
        deviation = compare_run(where, potential, every=EVERY)
    except (AldriverError, OSError, KeyError, ValueError, IndexError) as error:
        return Form(form=form, status="failed", files=files, reason=f"what the run wrote cannot be compared: {error}")
    return compared(form, files, deviation)
