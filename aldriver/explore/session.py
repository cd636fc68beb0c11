"""One LAMMPS instance that holds one cell and evaluates it with any potential. Which steps it makes: ``lammps.py``.

LAMMPS integrates and keeps the box; energies, forces and stress come from the potential's own stepper (which keeps the
neighbour list) through ``potentials/fix_external.py``.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.lammps import Prism
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.units import EV_A3_TO_BAR, matrix_to_voigt, voigt_to_matrix
from aldriver.explore.commands import check_open_directions
from aldriver.explore.engine import RunStopped, Watcher, sampled_atoms
from aldriver.explore.health import Reason
from aldriver.explore.langevin import Langevin
from aldriver.potentials.fix_external import FixExternal, LammpsStopped, box

A_PS = 1000.0 * units.fs
"""1 ASE velocity unit in Å/ps."""

UNITS = """\
units metal
atom_style atomic
atom_modify map array sort 0 0.0
boundary {boundary}
newton on
box tilt large
"""

CELL = """\
region cell prism 0 {ax} 0 {by} 0 {cz} {xy} {xz} {yz} units box
create_box {n_types} cell
{masses}
"""


@dataclass(frozen=True)
class LammpsState:
    """What LAMMPS itself holds of a frame: energy eV, forces (N, 3) eV/Å, stress (6,) Voigt eV/Å³ (ASE sign)."""

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]


class Session:
    """One LAMMPS instance that holds one cell; positions and tensors go in and out in the cell's own orientation.

    Parameters
    ----------
    atoms
        The cell a run starts from; its species, masses and orientation hold for all of the run.
    restart
        Bytes of a LAMMPS restart file of this run, to go on from.
    log
        File to which LAMMPS appends what it says; errors quote its end.

    Raises
    ------
    InputError
        When LAMMPS has no box for the directions that are not periodic.
    """

    def __init__(self, atoms: Atoms, *, restart: bytes | None = None, log: Path | None = None) -> None:
        from aldriver.potentials.lammps_library import new_lammps

        check_open_directions(atoms)
        self.start = atoms
        self.log = log
        self.prism = Prism(np.asarray(atoms.cell), pbc=True)
        kinds = sorted(set(zip(atoms.numbers.tolist(), atoms.get_masses().tolist(), strict=True)))
        self.types = [kinds.index(k) + 1 for k in zip(atoms.numbers.tolist(), atoms.get_masses(), strict=True)]
        self.elements = [Atoms(numbers=[number]).get_chemical_symbols()[0] for number, _ in kinds]
        self.masses = [mass for _, mass in kinds]
        self.lmp: Any = new_lammps()
        self.external: FixExternal | None = None
        try:
            if log is not None:
                self.lmp.commands_string(f'log "{log}" append')
            self.lmp.commands_string(UNITS.format(boundary=" ".join("p" if p else "f" for p in atoms.pbc)))
            if restart is None:
                self._create()
            else:
                self._read(restart)
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        ax, by, cz, xy, xz, yz = (repr(float(v)) for v in self.prism.get_lammps_prism())
        masses = "\n".join(f"mass {i} {mass!r}" for i, mass in enumerate(self.masses, start=1))
        prism = {"ax": ax, "by": by, "cz": cz, "xy": xy, "xz": xz, "yz": yz}
        self.lmp.commands_string(CELL.format(n_types=len(self.masses), masses=masses, **prism))
        inside, image = self._inside(self.start.positions, self.prism.cell)
        velocities = self.prism.vector_to_lammps(self.start.get_velocities()) * A_PS
        made = self.lmp.create_atoms(
            len(self.start),
            list(range(1, len(self.start) + 1)),
            self.types,
            inside.ravel().tolist(),
            velocities.ravel().tolist(),
            [self.lmp.encode_image_flags(*flags) for flags in image.tolist()],
        )
        if made != len(self.start):
            raise AldriverError(f"LAMMPS took {made} of {len(self.start)} atoms of {self.start.get_chemical_formula()}")

    def _inside(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Positions in the box of LAMMPS (origin at zero), and how many cells each atom was away from it."""
        fractional = np.linalg.solve(cell.T, self.prism.vector_to_lammps(positions).T).T
        image = (np.floor(fractional) * self.start.pbc).astype(int)
        return (fractional - image) @ cell, image

    def _read(self, restart: bytes) -> None:
        # a file of our own: LAMMPS gives a meaning to some characters in the names of restart files
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "restart"
            file.write_bytes(restart)
            self.command(f"read_restart {file}")

    def restart(self) -> bytes:
        """Bytes of a LAMMPS restart file: atoms, box, step, and the state of each fix (thermostat, barostat)."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "restart"
            self.command(f"write_restart {file}")
            return file.read_bytes()

    def couple(self, watcher: Watcher, text: str, values: Mapping[str, Any], bath: Langevin | None = None) -> None:
        """Run a template (``commands.py``) with its variables, and let `watcher` evaluate each step.

        Raises
        ------
        InputError
            With LAMMPS' own words when it does not take a line of the template.
        """
        settings = "".join(f"variable {name} index '{value}'\n" for name, value in values.items())
        try:
            self.command(settings + text)
        except RunStopped as stop:
            raise InputError(f"LAMMPS does not take the walker's input: {stop}") from stop
        if not self.lmp.has_id("fix", "potential"):
            raise InputError("the walker's LAMMPS input has no `fix potential all external pf/callback 1 1`")
        self.external = _Thermostatted(self, watcher, bath)
        self.external.attach()

    def command(self, text: str) -> None:
        """Run LAMMPS commands; an exception raised inside a step comes out of here.

        Raises
        ------
        RunStopped
            When LAMMPS itself gives up (lost atoms, coordinates that are not numbers); the message quotes its log.
        """
        external = self.external or FixExternal(self.lmp, _not_coupled, len(self.start))
        try:
            external.command(text)
        except LammpsStopped as stop:
            raise RunStopped(Reason(stop.kind, f"{stop}{self._quoted()}"), stop.step) from stop

    def _quoted(self) -> str:
        if self.log is None or not self.log.is_file():
            return ""
        with self.log.open(errors="replace") as handle:
            last = [line.strip() for line in deque(handle, maxlen=4) if line.strip()]
        return f" [{self.log.name} ends with: {' | '.join(last)}]"

    def atoms(self) -> Atoms:
        """The present frame: unwrapped, with momenta."""
        n = len(self.start)
        origin, cell = box(self.lmp)
        x, v = self.gather("x"), self.gather("v")
        image = np.array(self.lmp.gather_atoms("image", 0, 3)).reshape(n, 3)
        positions = self.prism.vector_to_ase(x - origin + image @ cell)
        momenta = self.prism.vector_to_ase(v) / A_PS * self.start.get_masses()[:, None]
        return sampled_atoms(self.start, positions, self.prism.vector_to_ase(cell), momenta)

    def place(self, positions: NDArray[np.float64]) -> None:
        """Put the atoms at other (N, 3) positions of the present cell; the next ``run`` must set itself up anew."""
        import ctypes

        origin, cell = box(self.lmp)
        inside, image = self._inside(positions, cell)
        n = 3 * len(self.start)
        self.lmp.scatter_atoms("x", 1, 3, (ctypes.c_double * n)(*(inside + origin).ravel().tolist()))
        self.lmp.scatter_atoms("image", 0, 3, (ctypes.c_int * n)(*image.ravel().tolist()))

    def gather(self, name: str) -> NDArray[np.float64]:
        """Per-atom vector of LAMMPS (``x``, ``v``, ``f``), (N, 3), in site order, LAMMPS' orientation."""
        return np.array(self.lmp.gather_atoms(name, 1, 3)).reshape(len(self.start), 3)

    def state(self) -> LammpsState:
        """Energy, forces and stress as LAMMPS holds them, after a ``run 0`` that it makes."""
        self.command(
            "compute virial all pressure NULL virial\n"
            "thermo_style custom step pe c_virial[1] c_virial[2] c_virial[3] c_virial[4] c_virial[5] c_virial[6]\n"
            "thermo_modify norm no\n"
            "run 0 post no"
        )
        thermo = self.lmp.last_thermo()
        xx, yy, zz, xy, xz, yz = (-thermo[f"c_virial[{i}]"] / EV_A3_TO_BAR for i in range(1, 7))
        stress = self.prism.tensor2_to_ase(voigt_to_matrix([xx, yy, zz, yz, xz, xy]))
        forces = self.prism.vector_to_ase(self.gather("f"))
        return LammpsState(float(thermo["PotEng"]), forces, matrix_to_voigt(stress))

    def close(self) -> None:
        """End the LAMMPS instance."""
        self.lmp.close()


class _Thermostatted(FixExternal):
    """The coupling, with a Langevin thermostat at the end of each step.

    The callback comes before the last half kick of a step. It applies the thermostat to the velocities as they will be
    after that kick, whose force is known by then, and takes the kick off again, which LAMMPS adds.
    """

    def __init__(self, session: Session, watcher: Watcher, bath: Langevin | None) -> None:
        super().__init__(session.lmp, watcher, len(session.start), rotation=session.prism.rot_mat)
        self.session, self.watcher, self.bath = session, watcher, bath
        to_velocity = float(session.lmp.extract_global("ftm2v")) / 2.0 * float(session.lmp.extract_global("dt"))
        self.half_kick = to_velocity / session.start.get_masses()[:, None]

    def _evaluate(self, step: int, nlocal: int, tag: Any, x: Any, f: Any) -> None:
        again = self.watcher.latest is not None and self.watcher.latest[0] == step
        super()._evaluate(step, nlocal, tag, x, f)
        if self.bath is None or again or step == 0:
            return
        site = np.asarray(tag).reshape(-1) - 1
        v = self.lmp.numpy.extract_atom("v")[:nlocal]
        kick = self.half_kick[site] * f
        full = np.empty((nlocal, 3))
        full[site] = v + kick
        turned = self.bath(step, self.session.prism.vector_to_ase(full) / A_PS)
        v[:] = (self.session.prism.vector_to_lammps(turned) * A_PS)[site] - kick


def _not_coupled(*_: Any) -> Any:
    raise AldriverError("a step was made before the potential was attached")
