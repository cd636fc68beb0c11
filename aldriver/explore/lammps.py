"""MD in LAMMPS with any potential, through ``fix external``: NVE, NVT and NPT up to fully flexible cells.

LAMMPS integrates and keeps the box; energies, forces and stress come from the potential's own stepper (which keeps the
neighbour list) through ``potentials/fix_external.py``. Judging samples is the walker's business.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.lammps import Prism
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.core.units import EV_A3_TO_BAR, matrix_to_voigt, voigt_to_matrix
from aldriver.explore.engine import RunStopped, Sample, Watcher, sampled_atoms
from aldriver.explore.health import Reason
from aldriver.explore.protocol import MDProtocol
from aldriver.potentials.base import Potential
from aldriver.potentials.fix_external import FixExternal, LammpsStopped, box

A_PS = 1000.0 * units.fs
"""1 ASE velocity unit in Å/ps."""

SETUP = """\
units metal
atom_style atomic
atom_modify map array sort 0 0.0
boundary p p p
newton on
box tilt large
region cell prism 0 {ax} 0 {by} 0 {cz} {xy} {xz} {yz} units box
create_box {n_types} cell
{masses}
"""

COUPLING = """\
pair_style zero 2.0 nocoeff
pair_coeff * *
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
fix potential all external pf/callback 1 1
timestep {timestep_ps}
thermo_style custom step temp
thermo_modify norm no lost error
thermo 0
"""


def ensemble_fix(protocol: MDProtocol) -> str:
    """The LAMMPS command that integrates a protocol (damping in ps, pressure in bar).

    Tilted boxes keep their image (``flip no``), so that cells and unwrapped positions stay continuous along a run.
    """
    t, tdamp = protocol.temperature_K, protocol.thermostat_fs / 1000.0
    if protocol.ensemble == "nve":
        return "fix md all nve"
    if protocol.ensemble == "nvt":
        return f"fix md all nvt temp {t!r} {t!r} {tdamp!r}"
    bar, pdamp = protocol.pressure_GPa * 1.0e4, protocol.barostat_fs / 1000.0
    flip = " flip no" if protocol.flexible == "tri" else ""
    return f"fix md all npt temp {t!r} {t!r} {tdamp!r} {protocol.flexible} {bar!r} {bar!r} {pdamp!r}{flip}"


@dataclass(frozen=True)
class LammpsState:
    """What LAMMPS itself holds of a frame: energy eV, forces (N, 3) eV/Å, stress (6,) Voigt eV/Å³ (ASE sign)."""

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]


class Session:
    """One LAMMPS instance that holds one cell; positions and tensors go in and out in the cell's own orientation."""

    def __init__(self, atoms: Atoms) -> None:
        from aldriver.potentials.lammps_library import new_lammps

        self.start = atoms
        self.prism = Prism(np.asarray(atoms.cell), pbc=True)
        self.lmp: Any = new_lammps()
        self.external: FixExternal | None = None
        try:
            self._create()
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        ax, by, cz, xy, xz, yz = (repr(float(v)) for v in self.prism.get_lammps_prism())
        kinds = sorted(set(zip(self.start.numbers.tolist(), self.start.get_masses().tolist(), strict=True)))
        types = [kinds.index(k) + 1 for k in zip(self.start.numbers.tolist(), self.start.get_masses(), strict=True)]
        masses = "\n".join(f"mass {i} {mass!r}" for i, (_, mass) in enumerate(kinds, start=1))
        prism = {"ax": ax, "by": by, "cz": cz, "xy": xy, "xz": xz, "yz": yz}
        self.lmp.commands_string(SETUP.format(n_types=len(kinds), masses=masses, **prism))
        # LAMMPS wants atoms inside the box; how many cells each was away goes into its image flags
        cell = self.prism.cell
        fractional = np.linalg.solve(cell.T, self.prism.vector_to_lammps(self.start.positions).T).T
        image = np.floor(fractional).astype(int)
        inside = (fractional - image) @ cell
        velocities = self.prism.vector_to_lammps(self.start.get_velocities()) * A_PS
        made = self.lmp.create_atoms(
            len(self.start),
            list(range(1, len(self.start) + 1)),
            types,
            inside.ravel().tolist(),
            velocities.ravel().tolist(),
            [self.lmp.encode_image_flags(*flags) for flags in image.tolist()],
        )
        if made != len(self.start):
            raise AldriverError(f"LAMMPS took {made} of {len(self.start)} atoms of {self.start.get_chemical_formula()}")

    def couple(self, watcher: Watcher, timestep_fs: float) -> None:
        """Let `watcher` compute energy, forces and stress of each step."""
        self.lmp.commands_string(COUPLING.format(timestep_ps=repr(timestep_fs / 1000.0)))
        self.external = FixExternal(self.lmp, watcher, len(self.start), rotation=self.prism.rot_mat)
        self.external.attach()

    def command(self, text: str) -> None:
        """Run LAMMPS commands; an exception raised inside a step comes out of here.

        Raises
        ------
        RunStopped
            When LAMMPS itself gives up (lost atoms, coordinates that are not numbers).
        """
        assert self.external is not None
        try:
            self.external.command(text)
        except LammpsStopped as stop:
            raise RunStopped(Reason(stop.kind, str(stop)), stop.step) from stop

    def atoms(self) -> Atoms:
        """The present frame: unwrapped, with momenta."""
        n = len(self.start)
        origin, cell = box(self.lmp)
        x, v = self.gather("x"), self.gather("v")
        image = np.array(self.lmp.gather_atoms("image", 0, 3)).reshape(n, 3)
        positions = self.prism.vector_to_ase(x - origin + image @ cell)
        momenta = self.prism.vector_to_ase(v) / A_PS * self.start.get_masses()[:, None]
        return sampled_atoms(self.start, positions, self.prism.vector_to_ase(cell), momenta)

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


def lammps_samples(
    potential: Potential, atoms: Atoms, protocol: MDProtocol, *, features: bool = False
) -> Generator[Sample, None, None]:
    """Run a protocol in LAMMPS; yields the start (step 0), then a sample every ``protocol.sample_every`` steps.

    Parameters
    ----------
    atoms
        A periodic cell, in any orientation and wrapped or not, with the momenta it starts with.
    features
        Ask the potential for per-atom features at sampled steps (in the same evaluation as the forces).

    Raises
    ------
    RunStopped
        When the run ends early: something not finite, lost atoms, or an error of LAMMPS.
    Exception
        Whatever the potential raised inside a step, unchanged.
    """
    session = Session(atoms)
    try:
        watcher = Watcher(potential, atoms, protocol, features=features)
        session.couple(watcher, protocol.timestep_fs)
        session.command(ensemble_fix(protocol))
        session.command("run 0 post no")
        yield _sample(session, watcher, 0)
        done = 0
        while done < protocol.steps:
            chunk = min(protocol.sample_every, protocol.steps - done)
            session.command(f"run {chunk} pre no post no")
            done += chunk
            yield _sample(session, watcher, done)
    finally:
        session.close()


def _sample(session: Session, watcher: Watcher, step: int) -> Sample:
    assert watcher.latest is not None
    evaluated, prediction = watcher.latest
    if evaluated != step:
        raise AldriverError(f"LAMMPS evaluated step {evaluated} last, expected {step}")
    return Sample(step=step, atoms=session.atoms(), prediction=prediction)


def single_point(potential: Potential, atoms: Atoms) -> LammpsState:
    """Energy, forces and stress of a frame as LAMMPS itself holds them (for comparison with other codes)."""
    session = Session(atoms)
    try:
        protocol = MDProtocol(ensemble="npt", steps=1, sample_every=1)  # npt: the stress is asked for
        session.couple(Watcher(potential, atoms, protocol), protocol.timestep_fs)
        return session.state()
    finally:
        session.close()
