"""The form of an export that needs no aldriver: the file of the program a potential comes from, tried by that program.

What the file holds is ``potentials/vendor.py``'s business.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.errors import AldriverError
from aldriver.core.frames import write_frames
from aldriver.core.units import EV_A3_TO_BAR
from aldriver.export.form import Form
from aldriver.potentials.base import Potential

FILE = "potential"
TIMEOUT_S = 600.0
ENERGY_EV_ATOM, FORCES_EV_A, STRESS_BAR = 2.0e-5, 2.0e-4, 32.0
"""Programs sum in single precision; other weights differ by far more."""
RATTLE_A = 0.05

TRY = """
import json
from ase.io import read

atoms = read("structure.extxyz")
atoms.calc = calculator
result = {"energy": float(atoms.get_potential_energy()), "forces": atoms.get_forces().tolist()}
result["stress"] = atoms.get_stress().tolist()
with open("result.json", "w") as handle:
    json.dump(result, handle)
"""


def vendor_form(potential: Potential, folder: Path, cell: Atoms) -> Form | None:
    """Write ``potential.SUFFIX`` into an export folder and compare what its program says of a rattled cell with it.

    Returns
    -------
    Form or None
        None for a potential that comes from no such program (EAM, a sum of two potentials).
    """
    from aldriver.potentials.vendor import VENDORS, save_vendor, snippet_of

    if potential.family not in VENDORS:
        return None
    vendor = VENDORS[potential.family]
    name = f"{FILE}{vendor.suffix}"
    try:
        path = save_vendor(potential, folder / name)
        found, atoms = _tried(potential, folder / "check" / "vendor", cell, snippet_of(potential, path.resolve()))
    except AldriverError as error:
        return Form(form=vendor.program, status="failed", reason=str(error), files=(name,))
    p = potential.evaluate([atoms])[0]
    assert p.stress is not None
    off = {
        "energy": abs(p.energy - found["energy"]),
        "forces": float(np.abs(p.forces - np.array(found["forces"])).max()),
        "stress": float(np.abs(p.stress - np.array(found["stress"])).max() * EV_A3_TO_BAR),
    }
    limits = {"energy": ENERGY_EV_ATOM * len(atoms), "forces": FORCES_EV_A, "stress": STRESS_BAR}
    wrong = [
        f"{key} differ by {value:.2g}, allowed {limits[key]:.1g}"
        for key, value in off.items()
        if not value <= limits[key]
    ]
    return Form(
        form=vendor.program,
        status="failed" if wrong else "exported",
        reason=f"what {vendor.program} makes of the file is not the potential: {wrong[0]}" if wrong else "",
        files=(name,),
        max_dE=off["energy"],
        max_dF=off["forces"],
        max_dS=off["stress"],
        frames=1,
    )


def _tried(potential: Potential, where: Path, cell: Atoms, snippet: str) -> tuple[dict[str, Any], Atoms]:
    """What the program says of a rattled copy of the cell, by the very lines the card shows."""
    where.mkdir()
    atoms = cell.copy()
    atoms.rattle(RATTLE_A, seed=0)
    write_frames(where / "structure.extxyz", [atoms])
    command = [vendor_python(potential), "-c", snippet + TRY]
    try:
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise AldriverError(f"the program did not read its file within {TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise AldriverError(f"the program cannot read its file: {words}")
    return json.loads((where / "result.json").read_text()), atoms


def vendor_python(potential: Potential) -> str:
    """The Python that has the program."""
    if not getattr(potential, "remote", False):
        return sys.executable
    from aldriver.potentials.other_python import python_for

    return str(python_for(potential.family))
