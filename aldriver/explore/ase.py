"""MD in ASE with the same protocol: the reference the LAMMPS engine is compared with, and the fallback without it.

Judging samples is the walker's business.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, MaskedMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from aldriver.core.errors import InputError
from aldriver.explore.engine import Sample, Watcher, sampled_atoms
from aldriver.explore.protocol import MDProtocol
from aldriver.potentials.base import Potential


class WatchedCalculator(Calculator):
    """ASE calculator that evaluates through a :class:`Watcher`; `step` says which step is being computed."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self.watcher = watcher
        self.step = 0

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Evaluate the present step once, with all that this step needs."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        p = self.watcher(self.step, self.atoms.positions, np.asarray(self.atoms.cell))
        self.results = {"energy": p.energy, "free_energy": p.energy, "forces": p.forces}
        if p.stress is not None:
            self.results["stress"] = p.stress


def integrator(atoms: Atoms, protocol: MDProtocol) -> Any:
    """ASE's integrator of a protocol.

    ASE counts 3N degrees of freedom although the centre of mass is at rest, so its target temperature is lowered by
    (3N−3)/3N; the mean kinetic energy is then (3N−3)kT/2, as in LAMMPS.

    Raises
    ------
    InputError
        ``aniso`` for a cell that is not orthogonal (ASE has no such barostat).
    """
    dt = protocol.timestep_fs * units.fs
    if protocol.ensemble == "nve":
        return VelocityVerlet(atoms, timestep=dt)
    target = protocol.temperature_K * max(3 * len(atoms) - 3, 3) / (3 * len(atoms))
    heat: dict[str, Any] = {"timestep": dt, "temperature_K": target, "tdamp": protocol.thermostat_fs * units.fs}
    if protocol.ensemble == "nvt":
        return NoseHooverChainNVT(atoms, **heat)
    press: dict[str, Any] = {"pressure_au": protocol.pressure_GPa * units.GPa, "pdamp": protocol.barostat_fs * units.fs}
    if protocol.flexible == "iso":
        return IsotropicMTKNPT(atoms, **heat, **press)
    if protocol.flexible == "tri":
        return MTKNPT(atoms, **heat, **press)
    lengths = np.linalg.norm(atoms.cell, axis=1)
    cosines = np.asarray(atoms.cell) @ np.asarray(atoms.cell).T / np.outer(lengths, lengths)
    if not np.allclose(cosines, np.eye(3), atol=1e-8):
        raise InputError(
            "engine 'ase' runs npt with flexible: aniso only in orthogonal cells; "
            "use engine 'lammps', or flexible: iso or tri"
        )
    return MaskedMTKNPT(atoms, mask=(True, True, True), **heat, **press)


def ase_samples(
    potential: Potential, atoms: Atoms, protocol: MDProtocol, *, features: bool = False
) -> Generator[Sample, None, None]:
    """Run a protocol in ASE; yields the start (step 0), then a sample every ``protocol.sample_every`` steps.

    Parameters
    ----------
    atoms
        A periodic cell with the momenta it starts with (not modified).
    features
        Ask the potential for per-atom features at sampled steps (in the same evaluation as the forces).

    Raises
    ------
    RunStopped
        When something is not finite.
    InputError
        When ASE has no integrator for this protocol and cell.
    """
    moving = atoms.copy()
    watcher = Watcher(potential, moving, protocol, features=features)
    calculator = WatchedCalculator(watcher)
    moving.calc = calculator
    md = integrator(moving, protocol)
    moving.get_forces()
    yield _sample(atoms, moving, watcher, 0)
    for step in range(1, protocol.steps + 1):
        calculator.step = step
        md.step()
        if protocol.is_sampled(step):
            yield _sample(atoms, moving, watcher, step)


def _sample(start: Atoms, moving: Atoms, watcher: Watcher, step: int) -> Sample:
    assert watcher.latest is not None and watcher.latest[0] == step
    frame = sampled_atoms(start, moving.get_positions(), np.asarray(moving.cell).copy(), moving.get_momenta())
    return Sample(step=step, atoms=frame, prediction=watcher.latest[1])
