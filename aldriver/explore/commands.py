"""The LAMMPS commands of a walker: a template a person can read and change, and what aldriver fills into it.

Making box and atoms and counting the steps is ``session.py``'s and ``lammps.py``'s business.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.explore.engine import left_the_cell
from aldriver.explore.protocol import STRAINS, MDProtocol

TEMPLATE = """\
# The MD of a walker: what aldriver gives to LAMMPS once box, atoms and velocities are there. The steps come after it.
# A copy you change is used with `explore: {lammps_input: my_in.walker}` in the recipe. aldriver sets the variables:
#   dt           time step, ps
#   md           what integrates, e.g.  nvt temp 300 300 0.1
#   deforming    1 when the cell is deformed, then
#   deform       the rates (1/ps), e.g.  z erate 0.001
#   thermo       steps between lines of log.lammps (0: at samples only)
#   dump         steps between dumped frames (0: none), into the file named by dumpfile
#   elements     chemical symbol of each atom type
#   restarted    1 when a walker goes on after an interruption

# The potential lives in Python: energy, forces and virial of each step come through this fix.
pair_style zero 2.0 nocoeff
pair_coeff * *
fix potential all external pf/callback 1 1

neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
timestep ${dt}

fix md all ${md}
if "${deforming} > 0" then "fix deform all deform 1 ${deform} flip no"

thermo_style custom step temp pe ke etotal press vol lx ly lz
thermo_modify norm no lost error
thermo ${thermo}
if "${dump} > 0" then &
  "dump trajectory all custom ${dump} ${dumpfile} id type element xu yu zu vx vy vz fx fy fz" &
  "dump_modify trajectory sort id element ${elements}"
"""

AXES = "xyz"


def integrator(protocol: MDProtocol, pbc: tuple[bool, bool, bool] = (True, True, True)) -> str:
    """Style and arguments of the fix that integrates a protocol (damping in ps, pressure in bar).

    Tilted boxes keep their image (``flip no``), so that cells and unwrapped positions stay continuous along a run.
    A Langevin thermostat is not in it: that is ``langevin.py``.

    Raises
    ------
    InputError
        When no length is left to the barostat, or the cell's open directions forbid what is asked for.
    """
    (t0, t1), tdamp = protocol.temperatures_K, protocol.thermostat_fs / 1000.0
    heat = "" if protocol.langevin else f" temp {t0!r} {t1!r} {tdamp!r}"
    if protocol.ensemble == "nve" or (protocol.ensemble == "nvt" and protocol.langevin):
        return "nve"
    if protocol.ensemble == "nvt":
        return f"nvt{heat}"
    (p0, p1), pdamp = (p * 1.0e4 for p in protocol.pressures_GPa), protocol.barostat_fs / 1000.0
    target = f"{p0!r} {p1!r} {pdamp!r}"
    style = "nph" if protocol.langevin else "npt"
    open_axes = [a for a, p in zip(AXES, pbc, strict=True) if not p]
    if not open_axes and not protocol.deform_per_ps:
        flip = " flip no" if protocol.flexible == "tri" else ""
        return f"{style}{heat} {protocol.flexible} {target}{flip}"
    if open_axes and any(protocol.pressures_GPa):
        raise InputError(
            "npt at a pressure other than 0 needs a cell periodic in three directions: "
            "the volume of a slab or a wire is not defined"
        )
    if open_axes and protocol.flexible == "tri":
        raise InputError("npt with flexible: tri needs a cell periodic in three directions; use iso or aniso")
    free = [a for a in AXES if a not in open_axes and 2 * a not in protocol.deform_per_ps]
    if not free:
        raise InputError("npt: no length of the cell is left to the barostat; use ensemble nvt")
    together = " couple xy" if protocol.flexible == "iso" and free == ["x", "y"] else ""
    if protocol.flexible == "iso" and len(free) > 1 and not together:
        raise InputError("npt with flexible: iso needs the open direction along z; use aniso")
    return f"{style}{heat} " + " ".join(f"{a} {target}" for a in free) + together


def deformation(protocol: MDProtocol, pbc: tuple[bool, bool, bool] = (True, True, True)) -> str:
    """Arguments of ``fix deform``; empty when nothing is deformed.

    Raises
    ------
    InputError
        When a direction that is not periodic would be deformed.
    """
    parts = []
    for name in STRAINS:
        rate = protocol.deform_per_ps.get(name, 0.0)
        if not rate:
            continue
        if not all(pbc[AXES.index(a)] for a in name):
            raise InputError(f"deform_per_ps: {name} would deform a direction in which the cell is not periodic")
        axis = name[0] if name[0] == name[1] else "".join(sorted(name))
        parts.append(f"{axis} erate {rate!r}")
    return " ".join(parts)


def variables(protocol: MDProtocol, atoms: Atoms, elements: list[str], dump: str, *, restarted: bool) -> dict[str, Any]:
    """What is filled into the template: name and value of each LAMMPS variable."""
    pbc = (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2]))
    deform = deformation(protocol, pbc)
    return {
        "dt": repr(protocol.timestep_fs / 1000.0),
        "md": integrator(protocol, pbc),
        "deforming": int(bool(deform)),
        "deform": deform,
        "thermo": protocol.thermo_every,
        "dump": protocol.dump_every,
        "dumpfile": f'"{dump}"',
        "elements": " ".join(elements),
        "restarted": int(restarted),
    }


def check_open_directions(atoms: Atoms) -> None:
    """Refuse what neither LAMMPS' boxes nor our volumes allow in directions that are not periodic.

    Raises
    ------
    InputError
        When an open cell vector is not perpendicular to the others, or an atom lies outside the cell along it.
    """
    cell = np.asarray(atoms.cell)
    lengths = np.linalg.norm(cell, axis=1)
    for axis in np.flatnonzero(~atoms.pbc):
        cosines = np.delete(cell @ cell[axis] / (lengths * lengths[axis]), axis)
        name = "abc"[axis]
        if np.abs(cosines).max() > 1e-6:
            raise InputError(
                f"{atoms.get_chemical_formula()}: cell vector {name} is not periodic, so it must be perpendicular to "
                "the others; replace it by its perpendicular part"
            )
        outside = left_the_cell(atoms.positions, cell, atoms.pbc)
        if outside is not None:
            raise InputError(
                f"{atoms.get_chemical_formula()}: atom {outside} lies outside the cell along vector {name}, which is "
                f"not periodic; centre the atoms with room on both sides: atoms.center(vacuum=10, axis={axis})"
            )
