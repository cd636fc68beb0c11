"""MD in ASE with the same protocol: the reference the LAMMPS engine is compared with, and the fallback without it.

What ASE has no integrator for is refused by the name of the engine that has it. Judging samples is the walker's
business.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, MaskedMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from aldriver.core.errors import InputError
from aldriver.explore.engine import Guard, Sample, State, Watcher, sampled_atoms
from aldriver.explore.langevin import Langevin, random_state, set_random_state
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
        For what ASE has no integrator for.
    """
    _refuse(atoms, protocol)
    dt = protocol.timestep_fs * units.fs
    if protocol.ensemble == "nve" or protocol.langevin:
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
    return MaskedMTKNPT(atoms, mask=(True, True, True), **heat, **press)


def _refuse(atoms: Atoms, protocol: MDProtocol) -> None:
    lengths = np.linalg.norm(atoms.cell, axis=1)
    cosines = np.asarray(atoms.cell) @ np.asarray(atoms.cell).T / np.outer(lengths, lengths)
    npt = protocol.ensemble == "npt"
    sheared = npt and protocol.flexible == "aniso" and not np.allclose(cosines, np.eye(3), atol=1e-8)
    ramped = not protocol.langevin and (protocol.temperature_end_K or protocol.temperature_K) != protocol.temperature_K
    missing = {
        "npt with flexible: aniso in cells that are not orthogonal (flexible: iso or tri it runs)": sheared,
        "npt with the Langevin thermostat": npt and protocol.langevin,
        "npt of a cell with open directions": npt and not atoms.pbc.all(),
        "a temperature ramp with the Nosé–Hoover thermostat (thermostat: langevin it runs)": ramped,
        "a pressure ramp": protocol.pressure_end_GPa is not None,
        "deform_per_ps": bool(protocol.deform_per_ps),
        "swaps": protocol.swaps is not None,
        "dump_every and thermo_every": bool(protocol.dump_every or protocol.thermo_every),
        "lammps_input": protocol.lammps_input is not None,
    }
    for what, asked in missing.items():
        if asked:
            raise InputError(f"engine 'ase' does not run {what}; engine 'lammps' does")


def ase_samples(
    potential: Potential,
    atoms: Atoms,
    protocol: MDProtocol,
    *,
    features: bool = False,
    guard: Guard | None = None,
    state: State | None = None,
    out: Path | None = None,
) -> Generator[Sample, None, None]:
    """Run a protocol in ASE; yields the start (step 0), then a sample every ``protocol.sample_every`` steps.

    Parameters
    ----------
    atoms
        A cell with the momenta it starts with (not modified).
    features
        Ask the potential for per-atom features at sampled steps (in the same evaluation as the forces).
    guard
        Looks at the run every so many steps.
    state
        Of the sample to go on after; that sample does not come again.
    out
        Not used: this engine writes no files.

    Raises
    ------
    RunStopped
        When something is not finite, an atom leaves through an open side, or the guard says so.
    InputError
        When ASE has no integrator for this protocol and cell.
    """
    moving = atoms.copy()
    watcher = Watcher(potential, moving, protocol, features=features, guard=guard, state=state)
    calculator = WatchedCalculator(watcher)
    moving.calc = calculator
    md = integrator(moving, protocol)
    bath = Langevin(atoms, protocol) if protocol.langevin else None
    first = 0
    if state is not None:
        first = _restore(state, moving, md, calculator, bath)

    def save() -> State:
        return watcher.state() | _save(moving, md, bath)

    def sample(step: int) -> Sample:
        assert watcher.latest is not None and watcher.latest[0] == step
        frame = sampled_atoms(atoms, moving.get_positions(), np.asarray(moving.cell).copy(), moving.get_momenta())
        return Sample(step=step, atoms=frame, prediction=watcher.latest[1], save=save)

    moving.get_forces()
    if state is None:
        yield sample(0)
    for step in range(first + 1, protocol.steps + 1):
        calculator.step = step
        md.step()
        if bath is not None:
            moving.set_velocities(bath(step, moving.get_velocities()))
        watcher.look(step, lambda step=step: sample(step).atoms)  # type: ignore[misc]
        if protocol.is_sampled(step):
            yield sample(step)


def _parts(md: Any) -> Iterator[tuple[str, Any]]:
    """An integrator and its thermostat and barostat."""
    for name in ("", "_thermostat", "_barostat"):
        part = getattr(md, name, None) if name else md
        if part is not None:
            yield name, part


def _save(moving: Atoms, md: Any, bath: Langevin | None) -> State:
    """Positions, momenta and every number that ASE's integrator keeps."""
    state: State = {"positions": moving.get_positions(), "momenta": moving.get_momenta()}
    for owner, part in _parts(md):
        for name, value in vars(part).items():
            if isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
                state[f"md.{owner}.{name}"] = np.array(value)
    if bath is not None:
        state["bath"] = random_state(bath.random)
    return state


def _restore(state: State, moving: Atoms, md: Any, calculator: WatchedCalculator, bath: Langevin | None) -> int:
    """Put a stored state back; returns its step."""
    moving.set_cell(state["cell"])
    moving.positions[:] = state["positions"]
    moving.set_momenta(state["momenta"])
    for owner, part in _parts(md):
        for name, value in vars(part).items():
            stored = state.get(f"md.{owner}.{name}")
            if stored is not None:
                setattr(part, name, float(stored) if isinstance(value, float) else np.array(stored))
    if bath is not None:
        set_random_state(bath.random, state["bath"])
    calculator.step = int(state["step"])
    return calculator.step
