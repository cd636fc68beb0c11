"""One walker: runs a protocol, scores what it sees on the way, and ends with a reason, keeping the healthy frames.

Integrating is the engines' business, scoring the detector's, and storing the result the workflow's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash, with_labels
from aldriver.explore.checkpoint import Checkpoint, Scored, walk_key
from aldriver.explore.commands import check_open_directions
from aldriver.explore.engine import Engine, Guard, RunStopped, Sample, State
from aldriver.explore.health import HealthLimits, Reason, check, temperature
from aldriver.explore.perturb import rescale, thermalise
from aldriver.explore.protocol import MDProtocol
from aldriver.potentials.base import Potential, Prediction

Scorer = Callable[[Atoms, Prediction], dict[str, float]]
OnSample = Callable[[Atoms, dict[str, float]], None]
EngineName = Literal["lammps", "ase"]


@dataclass(frozen=True, kw_only=True)
class WalkerResult:
    """What a walker saw.

    Attributes
    ----------
    frames
        Healthy sampled frames, oldest first (the start is not among them), unwrapped, with the potential's energy,
        forces and stress in a ``SinglePointCalculator``, momenta, and ``info``: ``step``, ``group``, ``temperature_K``
        (instantaneous, 3N−3 degrees of freedom), ``frame_id`` and ``score_<signal>``.
    scores
        What the scorer said of each frame.
    reason, message
        Reason code (``completed``, ``hot``, ``too_close``, ...) and a sentence.
    steps_done
        Steps integrated, including those after the last healthy frame.
    swaps
        Attempted and accepted swaps of atoms.
    last
        Last healthy frame with its momenta (the start if there was none): where the next walker goes on.
    seconds
        Wall time.
    """

    frames: list[Atoms]
    scores: list[dict[str, float]]
    reason: str
    message: str
    steps_done: int
    last: Atoms
    seconds: float
    swaps: tuple[int, int] = (0, 0)


def run_walker(
    potential: Potential,
    atoms: Atoms,
    protocol: MDProtocol,
    *,
    engine: EngineName = "lammps",
    health: HealthLimits | None = None,
    scorer: Scorer | None = None,
    on_sample: OnSample | None = None,
    group: str | None = None,
    guard: Guard | None = None,
    out: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
) -> WalkerResult:
    """Run one walker until its steps are done or it leaves physics.

    Parameters
    ----------
    atoms
        Where it starts: a cell in any orientation; cell vectors of directions that are not periodic are perpendicular
        to the others, and an atom that leaves the cell there ends the walk. Momenta it carries are used (scaled to
        the target first if ``protocol.rescale``); without, Maxwell–Boltzmann velocities are drawn from
        ``protocol.seed``, with zero total momentum.
    engine
        ``lammps`` or ``ase``.
    health
        Limits outside which the walker ends; the frames before stay.
    scorer
        Called with each healthy sampled frame and its prediction (with features where the potential has them, from
        the same evaluation that gave the forces).
    on_sample
        Called after scoring, for progress.
    group
        Name of the trajectory in each frame's ``info``; default: that of `atoms`, or ``walker``.
    guard
        Looks at the run every so many steps and may end it (reason ``guard``).
    out
        Folder for LAMMPS' log and dump.
    checkpoint, checkpoint_every
        Folder in which the walker is kept every so many samples. A walker that finds itself there goes on exactly
        where it was saved; the folder is the caller's to remove once the result is stored.

    Raises
    ------
    InputError
        When the cell is not one for MD, is constrained, holds unknown elements, or the engine cannot run the protocol.
    StoreError
        When a checkpoint cannot be written.
    """
    began = time.perf_counter()
    samples, limits = _engine(engine), health or HealthLimits()
    if out is None and (protocol.dump_every or protocol.thermo_every):
        raise InputError("dump_every and thermo_every need a folder to write into (out)")
    start = _prepare(potential, atoms, protocol)
    walk = _Walk(start, limits, scorer, on_sample, group or str(start.info.get("group", "walker")))
    if checkpoint is not None:
        key = walk_key(potential, start, protocol, engine, limits)
        began -= walk.resume(Checkpoint(checkpoint, key), checkpoint_every)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"features": scorer is not None, "guard": guard, "state": walk.state, "out": out}
    walk.began = began
    reason = walk.follow(samples(potential, start, protocol, **options))
    return WalkerResult(
        frames=walk.frames,
        scores=walk.scores,
        reason=reason.code,
        message=reason.message,
        steps_done=walk.step,
        last=walk.last,
        seconds=time.perf_counter() - began,
        swaps=walk.swaps,
    )


@dataclass
class _Walk:
    """The walker while it walks."""

    start: Atoms
    limits: HealthLimits
    scorer: Scorer | None
    on_sample: OnSample | None
    group: str
    frames: list[Atoms] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    energy: float | None = None
    swaps: tuple[int, int] = (0, 0)
    state: State | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_every: int = 1
    unsaved: list[Scored] = field(default_factory=list)
    began: float = 0.0

    def __post_init__(self) -> None:
        self.last = self.start

    def resume(self, checkpoint: Checkpoint, every: int) -> float:
        """Go on from a checkpoint, and keep it from now on; returns the seconds spent before."""
        self.checkpoint, self.checkpoint_every = checkpoint, every
        found = checkpoint.load(self.start)
        if found is None:
            return 0.0
        for sample, scores in found.samples:
            self._keep(sample, scores)
        self.state, self.unsaved = found.state, []
        return found.seconds

    def follow(self, samples: Generator[Sample, None, None]) -> Reason:
        """Take samples until the run or the walker's health ends."""
        with closing(samples) as run:
            while True:
                sample = self._next(run)
                reason = sample if isinstance(sample, Reason) else self._take(sample)
                if reason is not None:
                    return reason

    def _next(self, run: Iterator[Sample]) -> Sample | Reason:
        try:
            return next(run)
        except StopIteration:
            return Reason("completed", f"{self.step} steps")
        except RunStopped as stop:
            self.step = max(self.step, stop.step)
            return stop.reason
        except InputError:
            raise
        except Exception as error:
            return Reason("error", f"after step {self.step}: {type(error).__name__}: {error}")

    def _take(self, sample: Sample) -> Reason | None:
        self.step = sample.step
        prediction, atoms = sample.prediction, sample.atoms
        reason = check(atoms, prediction, self.limits, previous_energy=self.energy, n_atoms=len(self.start))
        if reason is not None:
            return Reason(reason.code, f"step {sample.step}: {reason.message}")
        self.energy = prediction.energy
        if sample.step == 0:
            return None
        try:
            scores = dict(self.scorer(atoms, prediction)) if self.scorer is not None else {}
        except Exception as error:
            return Reason("error", f"scoring step {sample.step} failed: {type(error).__name__}: {error}")
        frame = self._keep(sample, scores)
        if self.on_sample is not None:
            self.on_sample(frame, scores)
        if self.checkpoint is not None and len(self.unsaved) >= self.checkpoint_every:
            self.checkpoint.save(sample.save(), self.unsaved, time.perf_counter() - self.began)
            self.unsaved = []
        return None

    def _keep(self, sample: Sample, scores: dict[str, float]) -> Atoms:
        frame = _frame(sample, self.group, scores)
        self.step, self.energy, self.swaps = sample.step, sample.prediction.energy, sample.swaps
        self.frames.append(frame)
        self.scores.append(scores)
        self.last = frame.copy()
        if self.checkpoint is not None:
            self.unsaved.append((sample, scores))
        return frame


def _frame(sample: Sample, group: str, scores: dict[str, float]) -> Atoms:
    p, atoms = sample.prediction, sample.atoms
    info: dict[str, Any] = {f"score_{k}": float(v) for k, v in scores.items()}
    frame = with_labels(
        atoms,
        energy=p.energy,
        forces=p.forces,
        stress=p.stress,
        magmoms=p.magmoms,
        step=sample.step,
        group=group,
        temperature_K=temperature(atoms),
        frame_id=frame_hash(atoms),
        **info,
    )
    if atoms.has("masses"):
        frame.set_masses(atoms.get_masses())
    frame.set_momenta(atoms.get_momenta())
    return frame


def _prepare(potential: Potential, atoms: Atoms, protocol: MDProtocol) -> Atoms:
    if len(atoms) == 0:
        raise InputError("a walker needs at least one atom")
    if atoms.cell.rank < 3:
        raise InputError(
            f"{atoms.get_chemical_formula()}: a walker needs a cell with three vectors, also along directions that "
            "are not periodic: there it is the room the atoms have (atoms.center(vacuum=10, axis=2))"
        )
    check_open_directions(atoms)
    if atoms.constraints:
        raise InputError(f"{atoms.get_chemical_formula()}: constraints are not supported in MD; remove them")
    potential.check_elements([atoms])
    start = atoms.copy()
    if not (start.has("momenta") and np.any(start.get_momenta())):
        return thermalise(start, protocol.temperature_K, seed=protocol.seed)
    return rescale(start, protocol.temperature_K) if protocol.rescale else start


def _engine(name: str) -> Engine:
    if name == "lammps":
        from aldriver.explore.lammps import lammps_samples

        return lammps_samples
    if name == "ase":
        from aldriver.explore.ase import ase_samples

        return ase_samples
    raise InputError(f"'{name}': no such MD engine; use lammps or ase")
