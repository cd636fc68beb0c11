"""Compares what a LAMMPS run wrote with what the parent potential says of the same frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.core.units import EV_A3_TO_BAR
from aldriver.export.form import Form
from aldriver.potentials.base import Potential

ENERGY_EV_ATOM, FORCES_EV_A, STRESS_BAR = 2.0e-6, 5.0e-5, 5.0
"""Tolerances of an export: single-precision noise of a network, far below what any other weights give."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Largest deviations over all compared frames: energy eV (of the cell), forces eV/Å, stress components bar."""

    max_dE: float
    max_dF: float
    max_dS: float
    frames: int
    atoms: int

    def problem(self) -> str:
        """Which deviation is too large, in words; empty when all are small."""
        limits = (
            ("energy", self.max_dE, ENERGY_EV_ATOM * self.atoms, "eV"),
            ("forces", self.max_dF, FORCES_EV_A, "eV/Å"),
            ("stress", self.max_dS, STRESS_BAR, "bar"),
        )
        for name, value, limit, unit in limits:
            if not value <= limit:
                return f"{name} in LAMMPS differ from the potential by {value:.3g} {unit} (allowed {limit:.1g})"
        return ""


def compared(name: str, files: tuple[str, ...], deviation: Deviation) -> Form:
    """The form of an export that ran: ``exported`` where it agrees with the potential, else ``failed``."""
    problem = deviation.problem()
    return Form(
        form=name,
        status="failed" if problem else "exported",
        reason=problem,
        files=files,
        max_dE=deviation.max_dE,
        max_dF=deviation.max_dF,
        max_dS=deviation.max_dS,
        frames=deviation.frames,
    )


def read_thermo(path: Path) -> dict[int, dict[str, float]]:
    """Thermo lines of a LAMMPS log by step (lines of several runs are merged).

    Raises
    ------
    AldriverError
        When the log holds none.
    """
    rows: dict[int, dict[str, float]] = {}
    names: list[str] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            names = words
        elif words[:1] == ["Loop"]:
            names = []
        elif names and len(words) == len(names):
            try:
                row = dict(zip(names, map(float, words), strict=True))
            except ValueError:
                continue  # a warning between two lines
            rows[int(row["Step"])] = row
    if not rows:
        raise AldriverError(f"{path}: LAMMPS wrote no thermo line")
    return rows


def read_run(folder: Path, every: int) -> list[tuple[Atoms, float, NDArray[np.float64]]]:
    """Frames of a run with the energy (eV) and stress (6, Voigt, eV/Å³) that LAMMPS logged for each."""
    thermo = read_thermo(folder / "log.lammps")
    frames = read(folder / "dump.lammpstrj", index=":", format="lammps-dump-text")
    out = []
    for k, atoms in enumerate(frames):
        row = thermo[k * every]
        xx, yy, zz, xy, xz, yz = (-row[f"c_virial[{i}]"] / EV_A3_TO_BAR for i in range(1, 7))
        atoms.pbc = True
        out.append((atoms, row["PotEng"], np.array([xx, yy, zz, yz, xz, xy])))
    return out


def compare_run(folder: Path, potential: Potential, *, every: int) -> Deviation:
    """Evaluate each dumped frame with `potential` and compare energy, forces and stress with LAMMPS' own."""
    run = read_run(folder, every)
    predictions = potential.evaluate([atoms for atoms, _, _ in run], stress=True)
    de, df, ds = [0.0], [0.0], [0.0]
    for (atoms, energy, stress), p in zip(run, predictions, strict=True):
        de.append(abs(energy - p.energy))
        df.append(float(np.abs(atoms.get_forces() - p.forces).max()))
        if p.stress is not None:
            ds.append(float(np.abs(stress - p.stress).max()) * EV_A3_TO_BAR)
    # max() of a list would let a NaN pass by order; numpy's does not
    worst = (float(np.max(values)) for values in (de, df, ds))
    return Deviation(
        **dict(zip(("max_dE", "max_dF", "max_dS"), worst, strict=True)), frames=len(run), atoms=len(run[0][0])
    )
