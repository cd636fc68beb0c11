"""LAMMPS inputs of an exported potential, as text a person can read. Running them is ``driver.py``'s business.

Everything a user may want to change is an ``index`` variable at the top: ``lmp -in FILE -var T 600`` overrides it, and
so does the driver.
"""

from __future__ import annotations

from typing import Literal

Ensemble = Literal["nve", "nvt", "langevin", "npt", "deform"]

HEAD = """\
# {title}
# {run}
# Each variable can be changed from the command line: -var NAME VALUE

variable data     index structure.data   # atoms and cell (write_data, or ASE: atoms.write(..., format='lammps-data'))
variable elements index {elements}   # chemical symbol of each atom type, in order
variable boundary index "p p p"  # "p p f" for a slab that is open along z
variable T        index 300      # K
variable T_end    index ${{T}}     # the temperature goes there linearly
{pressure}variable steps    index 1000
variable dt       index 0.001    # ps
variable every    index 10       # steps between thermo lines and dumped frames
variable seed     index 1        # of the initial velocities
{more}
log log.lammps
units metal
atom_style atomic
atom_modify map array sort 0 0.0
boundary ${{boundary}}
box tilt large
read_data ${{data}}

"""

EXTERNAL = """\
# The potential lives in Python: energy, forces and virial of each step come through this fix.
pair_style zero 2.0 nocoeff
pair_coeff * *
fix potential all external pf/callback 1 1

"""

NATIVE = """\
# The potential is a pair style of LAMMPS itself.
pair_style {style}
pair_coeff {coeff}

"""

PRESSURE = """\
variable P        index 0        # bar
variable P_end    index ${P}     # the pressure goes there linearly
"""
FLEXIBLE = "variable flexible index iso      # iso | aniso | tri: what of the cell may move\n"

RATE = "variable rate     index 0.001    # of the strain along z, 1/ps\n"

FIX: dict[str, list[str]] = {
    "nve": ["fix md all nve"],
    "nvt": ["fix md all nvt temp ${T} ${T_end} $(100.0*dt)"],
    "langevin": ["fix md all nve", "fix bath all langevin ${T} ${T_end} $(100.0*dt) ${seed} zero yes"],
    "npt": ["fix md all npt temp ${T} ${T_end} $(100.0*dt) ${flexible} ${P} ${P_end} $(1000.0*dt)"],
    "deform": [
        "fix md all npt temp ${T} ${T_end} $(100.0*dt) x ${P} ${P_end} $(1000.0*dt) y ${P} ${P_end} $(1000.0*dt)",
        "fix pull all deform 1 z erate ${rate}",
    ],
}
"""What integrates; ``deform`` pulls along z and lets the pressure act across."""

TAIL = """\

compute virial all pressure NULL virial   # without the kinetic part, bar, xx yy zz xy xz yz
thermo_style custom step temp pe ke etotal press vol c_virial[1] c_virial[2] c_virial[3] c_virial[4] c_virial[5] &
  c_virial[6]
thermo_modify norm no format float %.16g
thermo ${every}
dump trajectory all custom ${every} dump.lammpstrj id type element xu yu zu fx fy fz
dump_modify trajectory sort id element ${elements} format float %.16g
run ${steps}
write_restart last.restart   # read_restart instead of read_data, and no velocity command: the run goes on from here
"""


def lammps_input(
    *,
    title: str,
    run: str,
    elements: list[str],
    pair_style: str | None = None,
    potential_file: str = "",
    pair_coeff: str = "* * ${potential} ${elements}",
    ensemble: Ensemble | None = None,
) -> str:
    """Input script of an MD run.

    Parameters
    ----------
    title, run
        First comment lines: what it is, and how it is run.
    elements
        Default symbols of the atom types.
    pair_style, potential_file
        Of a potential LAMMPS runs itself; None for one that Python evaluates (``fix external``). The file is the
        variable `potential` of the script; empty where `pair_coeff` or the style name the files.
    pair_coeff
        What follows that command.
    ensemble
        Fixed in the script; None makes it a variable too.
    """
    more = "" if ensemble else f"variable ensemble index nvt      # {' | '.join(FIX)}\n"
    more += RATE if ensemble in (None, "deform") else ""
    if potential_file:
        more += f"variable potential index {potential_file}\n"
    pressure = PRESSURE if ensemble in (None, "npt", "deform") else ""
    pressure += FLEXIBLE if ensemble in (None, "npt") else ""
    text = HEAD.format(
        title=title,
        run=run,
        elements=f'"{" ".join(elements)}"',
        pressure=pressure,
        more=more,
    )
    text += EXTERNAL if pair_style is None else NATIVE.format(style=pair_style, coeff=pair_coeff)
    text += "neighbor 1.0 bin\nneigh_modify every 1 delay 0 check yes\ntimestep ${dt}\n"
    text += "velocity all create ${T} ${seed} mom yes rot no dist gaussian\n\n"
    if ensemble:
        return text + "\n".join(FIX[ensemble]) + "\n" + TAIL
    for name, fixes in FIX.items():
        text += f'if "${{ensemble}} == {name}" then ' + " ".join(f'"{fix}"' for fix in fixes) + "\n"
    return text + TAIL
