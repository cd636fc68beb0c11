"""MD in LAMMPS with any potential: NVE, NVT and NPT up to fully flexible cells, ramps, deformation, swaps, restarts.

Owns the order of what happens between steps. The LAMMPS instance is ``session.py``'s, its commands ``commands.py``'s;
judging samples is the walker's business.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
from ase import Atoms

from aldriver.core.errors import AldriverError
from aldriver.explore.commands import TEMPLATE, variables
from aldriver.explore.engine import Guard, Sample, State, Watcher
from aldriver.explore.langevin import Langevin, random_state, set_random_state
from aldriver.explore.protocol import MDProtocol
from aldriver.explore.session import LammpsState, Session
from aldriver.explore.swap import Swapper
from aldriver.potentials.base import Potential

LOG = "log.lammps"


def lammps_samples(
    potential: Potential,
    atoms: Atoms,
    protocol: MDProtocol,
    *,
    features: bool = False,
    guard: Guard | None = None,
    state: State | None = None,
    out: Path | None = None,
) -> Generator[Sample, None, None]:
    """Run a protocol in LAMMPS; yields the start (step 0), then a sample every ``protocol.sample_every`` steps.

    Parameters
    ----------
    atoms
        A cell, in any orientation and wrapped or not, with the momenta it starts with.
    features
        Ask the potential for per-atom features at sampled steps (in the same evaluation as the forces).
    guard
        Looks at the run every so many steps.
    state
        Of the sample to go on after; that sample does not come again.
    out
        Folder of ``log.lammps`` (appended to) and ``dump.STEP.lammpstrj``, where STEP is the step it begins with.

    Raises
    ------
    RunStopped
        When the run ends early: something not finite, lost atoms, an error of LAMMPS, or the guard.
    InputError
        When LAMMPS has no box for the cell, or does not take a changed template.
    Exception
        Whatever the potential raised inside a step, unchanged.
    """
    restart = None if state is None else state["restart"].tobytes()
    session = Session(atoms, restart=restart, log=None if out is None else out / LOG)
    try:
        run = _Run(session, potential, atoms, protocol, features, guard, state, out)
        yield from run.samples(0 if state is None else int(state["step"]), going_on=state is not None)
    finally:
        session.close()


class _Run:
    """A run between its steps."""

    def __init__(
        self,
        session: Session,
        potential: Potential,
        atoms: Atoms,
        protocol: MDProtocol,
        features: bool,
        guard: Guard | None,
        state: State | None,
        out: Path | None,
    ) -> None:
        self.session, self.protocol = session, protocol
        self.watcher = Watcher(potential, atoms, protocol, features=features, guard=guard, state=state)
        self.bath = Langevin(atoms, protocol) if protocol.langevin else None
        self.swapper = Swapper(atoms, protocol) if protocol.swaps else None
        first = 0 if state is None else int(state["step"])
        if state is not None:
            if self.bath is not None:
                set_random_state(self.bath.random, state["bath"])
            if self.swapper is not None:
                set_random_state(self.swapper.random, state["swapper"])
                self.swapper.attempts, self.swapper.accepted = (int(n) for n in state["swaps"])
        dump = f"dump.{first}.lammpstrj" + (".gz" if protocol.compress else "")
        text = TEMPLATE if protocol.lammps_input is None else protocol.lammps_input
        where = dump if out is None else str(out / dump)
        values = variables(protocol, atoms, session.elements, where, restarted=state is not None)
        session.couple(self.watcher, text, values, self.bath)

    def samples(self, done: int, *, going_on: bool) -> Generator[Sample, None, None]:
        """The run from step `done` on, whose sample has been taken already if it is `going_on`."""
        self.set_up = True  # whether the next run command must let LAMMPS set itself up
        if not going_on:
            self._run(0, done)
        while True:
            if not going_on:
                self.watcher.look(done, self._frame)
                if self.protocol.is_sampled(done):
                    yield self._sample(done)
            if done == self.protocol.steps:
                return
            going_on = False
            if self.swapper is not None and self.swapper.due(done):
                self._swap(self.swapper, done)
            halt = self._next_halt(done)
            self._run(halt - done, halt)
            done = halt

    def _next_halt(self, done: int) -> int:
        p = self.protocol
        halts = [p.steps, (done // p.sample_every + 1) * p.sample_every]
        if self.swapper is not None:
            halts.append((done // self.swapper.swaps.every + 1) * self.swapper.swaps.every)
        if self.watcher.look_at > done:
            halts.append(self.watcher.look_at)
        return min(halts)

    def _run(self, steps: int, halt: int) -> None:
        self.watcher.halt = halt
        pre = "yes" if self.set_up else "no"
        # start and stop: ramps and deformation go on over all runs of this protocol
        self.session.command(f"run {steps} pre {pre} post no start 0 stop {self.protocol.steps}")
        self.set_up = False

    def _swap(self, swapper: Swapper, step: int) -> None:
        assert self.watcher.latest is not None
        swapped = swapper(step, self.session.atoms(), self.watcher.latest[1].energy, self.watcher.trial)
        if swapped is not None:
            frame, prediction = swapped
            self.session.place(frame.positions)
            self.watcher.take(step, prediction)
            self.set_up = True

    def _sample(self, step: int) -> Sample:
        assert self.watcher.latest is not None
        evaluated, prediction = self.watcher.latest
        if evaluated != step:
            raise AldriverError(f"LAMMPS evaluated step {evaluated} last, expected {step}")
        swaps = (self.swapper.attempts, self.swapper.accepted) if self.swapper else (0, 0)
        return Sample(step=step, atoms=self._frame(), prediction=prediction, save=self._save, swaps=swaps)

    def _frame(self) -> Atoms:
        """The frame of the last evaluation."""
        frame = self.session.atoms()
        if self.protocol.deform_per_ps:
            # fix deform has moved the box, and the atoms with it, since the evaluation
            frame.set_cell(self.watcher.cell, scale_atoms=True)
        return frame

    def _save(self) -> State:
        state = self.watcher.state() | {"restart": np.frombuffer(self.session.restart(), dtype=np.uint8)}
        if self.bath is not None:
            state["bath"] = random_state(self.bath.random)
        if self.swapper is not None:
            state["swapper"] = random_state(self.swapper.random)
            state["swaps"] = np.array([self.swapper.attempts, self.swapper.accepted])
        self.set_up = True  # writing a restart file has wrapped the atoms
        return state


def single_point(potential: Potential, atoms: Atoms) -> LammpsState:
    """Energy, forces and stress of a frame as LAMMPS itself holds them (for comparison with other codes)."""
    session = Session(atoms)
    try:
        protocol = MDProtocol(ensemble="npt", steps=1, sample_every=1)  # npt: the stress is asked for
        values = variables(protocol, atoms, session.elements, "none", restarted=False)
        session.couple(Watcher(potential, atoms, protocol), TEMPLATE, values)
        return session.state()
    finally:
        session.close()
