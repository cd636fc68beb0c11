"""One walker: runs a protocol, scores what it sees on the way, and ends with a reason, keeping the healthy frames.

Integrating is the engines' business, scoring the detector's, and storing the result the workflow's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash, with_labels
from aldriver.explore.engine import Engine, RunStopped, Sample
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
) -> WalkerResult:
    """Run one walker until its steps are done or it leaves physics.

    Parameters
    ----------
    atoms
        Where it starts: a cell periodic in three directions, in any orientation. Momenta it carries are used (scaled
        to the target first if ``protocol.rescale``); without, Maxwell–Boltzmann velocities are drawn from
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

    Raises
    ------
    InputError
        When the cell is not periodic, is constrained, holds unknown elements, or the engine cannot run the protocol.
    """
    began = time.perf_counter()
    samples = _engine(engine)
    start = _prepare(potential, atoms, protocol)
    walk = _Walk(start, health or HealthLimits(), scorer, on_sample, group or str(start.info.get("group", "walker")))
    reason = walk.follow(samples, potential, protocol, features=scorer is not None)
    return WalkerResult(
        frames=walk.frames,
        scores=walk.scores,
        reason=reason.code,
        message=reason.message,
        steps_done=walk.step,
        last=walk.last,
        seconds=time.perf_counter() - began,
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

    def __post_init__(self) -> None:
        self.last = self.start

    def follow(self, engine: Engine, potential: Potential, protocol: MDProtocol, *, features: bool) -> Reason:
        """Take samples until the run or the walker's health ends."""
        with closing(engine(potential, self.start, protocol, features=features)) as run:
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
        frame = _frame(sample, self.group, scores)
        self.frames.append(frame)
        self.scores.append(scores)
        self.last = frame.copy()
        if self.on_sample is not None:
            self.on_sample(frame, scores)
        return None


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
    if atoms.cell.rank < 3 or not all(atoms.pbc):
        raise InputError(
            f"{atoms.get_chemical_formula()}: a walker needs a cell periodic in three directions "
            f"(pbc is {[bool(p) for p in atoms.pbc]}); put vacuum into a periodic cell instead"
        )
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
