"""Short MD runs of the benchmark: constant temperature, with or without constant pressure, continued after a kill.

Velocity Verlet, stochastic velocity rescaling (G. Bussi, D. Donadio, M. Parrinello, J. Chem. Phys. 126, 014101 (2007))
and isotropic stochastic cell rescaling (M. Bernetti, G. Bussi, J. Chem. Phys. 153, 114107 (2020)): both give the
canonical ensemble, hardly disturb diffusion, and have no state beyond positions, momenta, cell and random numbers.
What is made of a run is the property modules' business; MD that explores is the explore room's.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import GPa, fs, kB
from numpy.typing import NDArray

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.measure import Cost
from aldriver.core.errors import AldriverError
from aldriver.core.frames import frame_hash
from aldriver.potentials.base import Prediction

VERSION = 1
THERMOSTAT_FS = 100.0
BAROSTAT_FS = 500.0
COMPRESSIBILITY = 1 / (100 * GPa)  # sets how fast the cell answers, not where it goes
KEEP_EVERY_S = 30.0
HOTTEST = 10.0  # times the temperature asked for: above it the run has blown up

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Run:
    """An MD run to make.

    Attributes
    ----------
    atoms
        Where it starts; with momenta it goes on with them, else they are drawn.
    temperature_K, end_K
        At the start, and at the end where it is ramped.
    pressure_GPa
        None keeps the cell.
    sample_every
        Steps between samples.
    positions
        Whether samples hold positions.
    """

    atoms: Atoms
    slot: str
    temperature_K: float
    steps: int
    timestep_fs: float
    end_K: float | None = None
    pressure_GPa: float | None = None
    sample_every: int = 20
    positions: bool = False
    seed: int = 0

    @property
    def key(self) -> str:
        """What makes a run the same, but for the potential."""
        facts = {name: value for name, value in vars(self).items() if name not in ("atoms", "slot")}
        start = {"structure": frame_hash(self.atoms), "momenta": self.atoms.get_momenta().round(10).tolist()}
        text = json.dumps({"version": VERSION} | facts | start, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A run that is done.

    Attributes
    ----------
    atoms
        The last geometry, with momenta.
    temperature, energy, volume, pressure
        Of each sample (n,): K, total energy in eV, Å³, eV/Å³.
    positions
        Of each sample (n, N, 3), unwrapped, in units of the cell's vectors; empty where they were not asked for.
    stopped
        Whether `until` ended it before its last step.
    """

    atoms: Atoms
    temperature: Array
    energy: Array
    volume: Array
    pressure: Array
    positions: Array
    stopped: bool
    cost: Cost


Until = Callable[[Array], bool]
"""Says from the atoms' positions in units of the cell's vectors (N, 3) that a run has shown what it was made for."""


def simulate(bench: Bench, runs: list[Run], until: Until | None = None) -> list[Trajectory]:
    """Make the runs, in their order; those that are there are not made again, and broken ones are continued.

    Raises
    ------
    AldriverError
        When a run blows up, or the potential gives numbers that are not finite.
    StoreError
        When the store cannot be written.
    """

    def one(key: str, job: Run) -> Trajectory:
        if bench.store is None:
            return _Engine(bench, key, job).run(until)
        with bench.claim(key):
            return _Engine(bench, key, job, bench.store.run(key)).run(until)

    return bench.share([f"md-{run.key}-{bench.potential.fingerprint}" for run in runs], runs, one)


def block_mean(samples: Array, blocks: int = 5) -> tuple[float, float]:
    """Mean of correlated samples and its standard error, from the means of blocks long against the correlation."""
    means = np.array([part.mean() for part in np.array_split(samples, blocks)])
    return float(samples.mean()), float(means.std(ddof=1) / np.sqrt(blocks))


class _Engine:
    """A run under way."""

    def __init__(self, bench: Bench, key: str, run: Run, state: dict[str, NDArray[Any]] | None = None) -> None:
        self.bench, self.key, self.spec = bench, key, run
        self.atoms = Atoms(numbers=run.atoms.numbers, positions=run.atoms.positions, cell=run.atoms.cell, pbc=True)
        self.atoms.set_masses(run.atoms.get_masses())
        self.mass = self.atoms.get_masses()[:, None]
        self.freedom = 3 * len(self.atoms) - 3
        self.rng = np.random.default_rng(run.seed)
        self.cost = Cost()
        self.step, self.done, self.stopped = 0, False, False
        self.thermo: list[list[float]] = []
        self.frames: list[Array] = []
        if state is not None:
            self._restore(state)
        elif run.atoms.get_momenta().any():
            self.velocity = run.atoms.get_velocities()
        else:
            self.velocity = self._drawn()

    def run(self, until: Until | None) -> Trajectory:
        """Go on to the end."""
        self.bench.count(self.key, self.cost)  # of what was there before
        if not self.done:
            self._go_on(until)
            self._keep()
        self.atoms.set_velocities(self.velocity)
        temperature, energy, volume, pressure = np.array(self.thermo).T
        return Trajectory(
            atoms=self.atoms,
            temperature=temperature,
            energy=energy,
            volume=volume,
            pressure=pressure,
            positions=np.array(self.frames),
            stopped=self.stopped,
            cost=self.cost,
        )

    def _go_on(self, until: Until | None) -> None:
        spec, dt, kept = self.spec, self.spec.timestep_fs * fs, time.monotonic()
        self.stepper = self.bench.potential.md_stepper(self.atoms, "float32")
        now = self._evaluate()
        while self.step < spec.steps and not self.stopped:
            target = spec.temperature_K
            if spec.end_K is not None:
                target += (spec.end_K - target) * self.step / spec.steps
            self.velocity += 0.5 * dt * now.forces / self.mass
            self.atoms.positions += dt * self.velocity
            if spec.pressure_GPa is not None:
                self._barostat(target, self._pressure(now) - spec.pressure_GPa * GPa)
            now = self._evaluate()
            self.velocity += 0.5 * dt * now.forces / self.mass
            self._thermostat(target)
            self.step += 1
            if self.step % spec.sample_every == 0:
                self._sample(now, target)
                self.stopped = until is not None and until(self._scaled())
            if time.monotonic() - kept > KEEP_EVERY_S:
                self._keep()
                kept = time.monotonic()
        self.done = True

    def _evaluate(self) -> Prediction:
        start = time.perf_counter()
        found = self.stepper(self.atoms.positions, np.asarray(self.atoms.cell), stress=True)
        self.cost.seconds += time.perf_counter() - start
        self.cost.force_calls += 1
        self.cost.atom_calls += len(self.atoms)
        return found

    def _kinetic(self) -> float:
        return 0.5 * float((self.mass * self.velocity**2).sum())

    def _pressure(self, now: Prediction) -> float:
        assert now.stress is not None
        return 2 * self._kinetic() / (3 * self.atoms.get_volume()) - float(now.stress[:3].mean())

    def _thermostat(self, target: float) -> None:
        """Scale the velocities (Bussi 2007, appendix)."""
        kinetic, mean = self._kinetic(), 0.5 * self.freedom * kB * target
        keep = np.exp(-self.spec.timestep_fs / THERMOSTAT_FS)
        one, rest = self.rng.normal(), self.rng.chisquare(self.freedom - 1)
        part = mean / (self.freedom * kinetic) * (1 - keep)
        scale = keep + part * (one**2 + rest) + 2 * one * np.sqrt(keep * part)
        sign = 1.0 if one + np.sqrt(keep / part) > 0 else -1.0
        self.velocity *= sign * np.sqrt(scale)

    def _barostat(self, target: float, excess: float) -> None:
        """Scale cell and positions, and the velocities by the inverse (Bernetti 2020)."""
        rate = COMPRESSIBILITY * self.spec.timestep_fs / BAROSTAT_FS
        noise = np.sqrt(2 * kB * target * rate / self.atoms.get_volume()) * self.rng.normal()
        scale = np.exp((rate * excess + noise) / 3)
        self.atoms.set_cell(np.asarray(self.atoms.cell) * scale, scale_atoms=False)
        self.atoms.positions *= scale
        self.velocity /= scale

    def _sample(self, now: Prediction, target: float) -> None:
        kinetic = self._kinetic()
        temperature = 2 * kinetic / (self.freedom * kB)
        if temperature > HOTTEST * target:
            raise AldriverError(
                f"{self.spec.slot}: the MD run blew up at step {self.step}: {temperature:.0f} K where {target:.0f} K "
                "were asked for"
            )
        self.thermo.append([temperature, now.energy + kinetic, self.atoms.get_volume(), self._pressure(now)])
        if self.spec.positions:
            self.frames.append(self._scaled().astype("<f4"))

    def _scaled(self) -> Array:
        return np.linalg.solve(np.asarray(self.atoms.cell).T, self.atoms.positions.T).T

    def _drawn(self) -> Array:
        velocity = self.rng.normal(size=(len(self.atoms), 3)) * np.sqrt(kB * self.spec.temperature_K / self.mass)
        found: Array = velocity - (self.mass * velocity).sum(axis=0) / self.mass.sum()
        return found

    def _keep(self) -> None:
        if self.bench.store is None:
            return
        facts = {
            "step": self.step,
            "done": self.done,
            "stopped": self.stopped,
            "cost": asdict(self.cost),
            "rng": self.rng.bit_generator.state,
        }
        arrays = {
            "facts": np.array(json.dumps(facts)),
            "positions": self.atoms.positions,
            "velocity": self.velocity,
            "cell": np.asarray(self.atoms.cell),
            "thermo": np.array(self.thermo),
            "frames": np.array(self.frames, dtype="<f4"),
        }
        self.bench.store.keep_run(self.key, self.bench.potential.fingerprint, self.spec.slot, arrays)

    def _restore(self, state: dict[str, NDArray[Any]]) -> None:
        facts = json.loads(str(state["facts"]))
        self.step, self.done, self.stopped = facts["step"], facts["done"], facts["stopped"]
        self.cost = Cost(**facts["cost"])
        self.rng.bit_generator.state = facts["rng"]
        self.atoms.set_cell(state["cell"])
        self.atoms.set_positions(state["positions"])
        self.velocity = state["velocity"]
        self.thermo = state["thermo"].tolist()
        self.frames = list(state["frames"])
