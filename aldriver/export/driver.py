"""Runs a LAMMPS input with any potential in this process. Which inputs there are is ``inputs.py``'s business.

An input that defines ``fix ID all external pf/callback`` is run up to that line, the potential is attached to the fix,
and the rest follows: the input stays plain LAMMPS, with all its commands.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import write
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import read_frames
from aldriver.core.store import disk_errors
from aldriver.export.inputs import FIX
from aldriver.potentials.base import Potential, Prediction
from aldriver.potentials.fix_external import EXTERNAL, Evaluate, FixExternal, check_finite, explained


def run_input(
    script: Path,
    atoms: Atoms,
    out: Path,
    *,
    potential: Potential | str | Path | None,
    variables: Mapping[str, Any],
    precision: str | None = None,
) -> None:
    """Run a LAMMPS input on a cell, inside the folder `out` (made if missing), where log and dump go.

    Parameters
    ----------
    script
        Input with the variables of ``inputs.py``; ``data`` and ``elements`` are set here.
    atoms
        Periodic in three directions.
    potential
        Behind ``fix external``; a reference or folder is loaded only if the input has such a fix.
    variables
        LAMMPS variables to set before the input runs (name: value).
    precision
        As in :meth:`Potential.md_stepper`.

    Raises
    ------
    InputError
        When the cell is not periodic, or the potential lacks an element.
    AldriverError
        With the words of LAMMPS or of the potential when the run stops.
    """
    from aldriver.potentials.lammps_library import new_lammps

    if atoms.cell.rank < 3 or not atoms.pbc.all():
        raise InputError(f"{atoms.get_chemical_formula()}: LAMMPS needs a cell periodic in three directions here")
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    elements = sorted(set(atoms.get_chemical_symbols()), key=chemical_symbols.index)
    # force_skew: a box that LAMMPS takes for triclinic, so that it may become so under npt
    write(out / "structure.data", atoms, format="lammps-data", specorder=elements, masses=True, force_skew=True)
    text = script.read_text()
    fix = EXTERNAL.search(text)
    evaluate = _evaluation(potential, atoms, precision) if fix else None
    lmp = new_lammps()
    back = Path.cwd()
    os.chdir(out)  # inputs name plain files: LAMMPS cannot read a path with a space from a variable
    try:
        names = {"data": "structure.data", "elements": " ".join(elements), **variables}
        settings = "".join(f'variable {name} index "{value}"\n' for name, value in names.items())
        try:
            lmp.commands_string(settings + text[: fix.end() if fix else None])
        except Exception as error:
            raise explained(error, 0) from error
        if fix:
            assert evaluate is not None
            external = FixExternal(lmp, evaluate, len(atoms), fix_id=fix.group(1))
            external.attach()
            external.command(text[fix.end() :])
    finally:
        lmp.close()
        os.chdir(back)


def _evaluation(potential: Potential | str | Path | None, atoms: Atoms, precision: str | None) -> Evaluate:
    if potential is None:
        raise InputError("this input has a fix external: name the potential behind it")
    if not isinstance(potential, Potential):
        from aldriver.potentials import load

        potential = load(potential)
    potential.check_elements([atoms])
    name, stepper = potential.name, potential.md_stepper(atoms, precision)

    def evaluate(step: int, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> Prediction:
        p = stepper(positions, cell, stress=True)
        check_finite(p, name, step)
        return p

    return evaluate


def parser(default_potential: str | Path | None, default_input: str | Path) -> argparse.ArgumentParser:
    """Command line of the driver."""
    p = argparse.ArgumentParser(description="Molecular dynamics in LAMMPS with a potential evaluated by aldriver.")
    p.add_argument("structure", type=Path, help="cell to start from: any file ASE reads")
    p.add_argument("--potential", default=default_potential, help="aldriver potential (default: %(default)s)")
    p.add_argument("--input", type=Path, default=default_input, help="LAMMPS input (default: %(default)s)")
    p.add_argument("--ensemble", choices=list(FIX), default="nvt")
    p.add_argument("--flexible", choices=["iso", "aniso", "tri"], default="iso", help="npt: what of the cell may move")
    p.add_argument("--temperature", type=float, default=300.0, help="K")
    p.add_argument("--pressure", type=float, default=0.0, help="GPa (npt)")
    p.add_argument("--steps", type=int, default=1000)
    p.add_argument(
        "--precision",
        choices=["float32", "float64", "own"],
        default="float32",
        help="of a network (own: as it was saved); float32 is checked against float64 at the start",
    )
    p.add_argument("--timestep", type=float, default=1.0, help="fs")
    p.add_argument("--every", type=int, default=10, help="steps between log lines and dumped frames")
    p.add_argument("--seed", type=int, default=1, help="of the initial velocities")
    p.add_argument("--out", type=Path, default=Path("md"), help="folder of log.lammps and dump.lammpstrj")
    return p


def main(
    argv: Sequence[str] | None = None,
    *,
    default_potential: str | Path | None = None,
    default_input: str | Path = "in.lammps",
) -> int:
    """Run the driver; returns the exit code (0 done, 1 failed, 2 bad input)."""
    options = parser(default_potential, default_input).parse_args(argv)
    variables = {
        "ensemble": options.ensemble,
        "flexible": options.flexible,
        "T": options.temperature,
        "P": options.pressure * 1.0e4,
        "steps": options.steps,
        "dt": options.timestep / 1000.0,
        "every": options.every,
        "seed": options.seed,
    }
    try:
        if not options.input.is_file():
            raise InputError(f"{options.input}: no such LAMMPS input")
        frames = read_frames(options.structure)
        if not frames:
            raise InputError(f"{options.structure}: holds no frame")
        options.out.mkdir(parents=True, exist_ok=True)
        for file in Path(default_potential or "").glob("weights.eam.*") if default_potential else ():
            shutil.copy(file, options.out)  # where a native input looks for it
        run_input(
            options.input,
            frames[-1],
            options.out,
            potential=options.potential,
            variables=variables,
            precision=None if options.precision == "own" else options.precision,
        )
    except AldriverError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{options.steps} steps of {frames[-1].get_chemical_formula()}: {options.out}/log.lammps, dump.lammpstrj")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
