"""A surrogate as files for LAMMPS: saved, run on one and on two MPI ranks, timed beside the potential it comes from."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from aldriver.core.errors import AldriverError
from aldriver.core.store import atomic_write
from aldriver.export.compare import compare_run, compared
from aldriver.export.form import Form
from aldriver.export.inputs import lammps_input
from aldriver.export.native import mpiexec, run_lmp, speed_of
from aldriver.potentials.base import Potential
from aldriver.potentials.pod import PODPotential

STEPS, EVERY = 10, 5
TIMED_ATOMS, TIMED_STEPS, PARENT_STEPS = 100, 200, 3
"""Cells of fewer atoms are repeated for timing; steps of either potential."""
MOVE_A = 0.002
"""Displacement between two timed steps of the parent: about that of 1 fs at 300 K."""
INPUT, DATA = "in.pod", "structure.data"


def pod_forms(parent: Potential, pod: PODPotential, folder: Path, cell: Atoms) -> list[Form]:
    """Save `pod` with an input into `folder`, and run it there: a form for one rank, another for two."""
    from aldriver.potentials.bundle import save_bundle

    save_bundle(pod, folder, parent=parent.fingerprint, extra={"surrogate_of": parent.name})
    text = lammps_input(
        title=f"MD with the ML-POD surrogate of {parent.name} (fingerprint {parent.fingerprint})",
        run=f"in this folder: mpirun -n 4 lmp -in {INPUT} -var data {DATA}",
        elements=pod.symbols,
        pair_style="pod",
        pair_coeff="* * param.pod weights.pod ${elements}",
    )
    atomic_write(folder / INPUT, text)
    _write_data(folder / DATA, pod, cell)
    return [_form(pod, folder, ranks) for ranks in (1, 2)]


def speeds(parent: Potential, folder: Path, cell: Atoms) -> dict[str, Any]:
    """CPU time of an MD step, µs per atom, of the parent (as its ``stepper`` makes it) and of the surrogate."""
    from aldriver.potentials.bundle import load_bundle

    pod = load_bundle(folder)
    assert isinstance(pod, PODPotential)
    repeat = int(np.ceil((TIMED_ATOMS / len(cell)) ** (1 / 3)))
    large = cell.repeat(repeat)
    where = _run_folder(folder, "timing")
    _write_data(where / DATA, pod, large)
    run_lmp(INPUT, where, variables={"steps": str(TIMED_STEPS), "every": str(TIMED_STEPS)})
    native = speed_of(where / "log.lammps")
    shutil.rmtree(where)
    seconds = _parent_step(parent, large)
    before = seconds / len(large) * 1e6
    return {
        "atoms": len(large),
        "parent_cpu_us_atom_step": before,
        "surrogate_cpu_us_atom_step": native.cpu_us_atom_step,
        "ratio": before / native.cpu_us_atom_step,
    }


def _parent_step(parent: Potential, atoms: Atoms) -> float:
    """CPU seconds of one step; the wall clock's where the potential computes in another process."""
    clock = time.monotonic if getattr(parent, "remote", False) else time.process_time
    stepper, random = parent.stepper(atoms), np.random.default_rng(0)
    cell = np.asarray(atoms.cell, dtype=float)
    stepper(atoms.positions, cell, stress=True)
    began = clock()
    for _ in range(PARENT_STEPS):
        stepper(atoms.positions + random.normal(0.0, MOVE_A, atoms.positions.shape), cell, stress=True)
    return (clock() - began) / PARENT_STEPS


def _form(pod: PODPotential, folder: Path, ranks: int) -> Form:
    """One run of the input, compared frame by frame with what was validated."""
    name = "pair_style pod" + (f" on {ranks} MPI ranks" if ranks > 1 else "")
    files = tuple(f"surrogate/{file}" for file in (INPUT, "param.pod", "weights.pod"))
    if ranks > 1 and mpiexec() is None:
        return Form(form=name, status="not_run", files=files, reason="there is no mpiexec beside this Python")
    where = _run_folder(folder, f"run-{ranks}")
    variables = {"ensemble": "npt", "flexible": "tri", "steps": str(STEPS), "every": str(EVERY)}
    try:
        run_lmp(INPUT, where, ranks=ranks, variables=variables)
        deviation = compare_run(where, pod, every=EVERY)
    except (AldriverError, OSError, KeyError, ValueError, IndexError) as error:
        return Form(form=name, status="failed", files=files, reason=str(error))
    finally:
        shutil.rmtree(where)
    return compared(name, files, deviation)


def _run_folder(folder: Path, name: str) -> Path:
    """A folder with copies of all that a run needs: LAMMPS names plain files only."""
    where = folder / name
    where.mkdir()
    for file in (INPUT, DATA, "param.pod", "weights.pod"):
        shutil.copy(folder / file, where)
    return where


def _write_data(path: Path, pod: PODPotential, atoms: Atoms) -> None:
    write(path, atoms, format="lammps-data", specorder=pod.symbols, masses=True, force_skew=True)
