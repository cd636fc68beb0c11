"""What both MD engines share: the watched evaluation of each step, the guard's looks, and the samples they hand out.

Integration is in ``lammps.py`` and ``ase.py``; judging samples is the walker's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.explore.health import Reason
from aldriver.explore.protocol import MDProtocol
from aldriver.potentials.base import Potential, Prediction

State = dict[str, NDArray[Any]]
"""What an engine needs to go on exactly from a sample: plain arrays, by name."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The frame after `step` steps: unwrapped, with momenta, in the orientation it started in, and its prediction.

    `save` gives the engine's state at this sample (until the next one is asked for); `swaps` counts attempted and
    accepted swaps so far.
    """

    step: int
    atoms: Atoms
    prediction: Prediction
    save: Callable[[], State] = dict
    swaps: tuple[int, int] = (0, 0)


class Guard(Protocol):
    """Looks at a run every so many steps and may end it.

    Attributes
    ----------
    every
        Steps to the next look; asked anew after each look.
    features
        Whether the predictions it sees must carry per-atom features.
    """

    every: int
    features: bool

    def __call__(self, step: int, atoms: Atoms, prediction: Prediction) -> str | None:
        """None to go on, else the sentence why the run must stop."""


class Engine(Protocol):
    """Integrates a protocol; yields the start (step 0), then a sample every ``protocol.sample_every`` steps.

    With `state` (of ``Sample.save``) it goes on after that sample, which does not come again. Files (log, dump) go
    into the folder `out`.
    """

    def __call__(
        self,
        potential: Potential,
        atoms: Atoms,
        protocol: MDProtocol,
        *,
        features: bool = False,
        guard: Guard | None = None,
        state: State | None = None,
        out: Path | None = None,
    ) -> Generator[Sample, None, None]:
        """Samples of one run; :class:`RunStopped` ends it early."""


class RunStopped(AldriverError):
    """A run that an engine ended early, with its reason and the step it happened in."""

    def __init__(self, reason: Reason, step: int) -> None:
        super().__init__(reason.message)
        self.reason, self.step = reason, step


class Watcher:
    """Evaluates each step once, asks for stress and features only where they are used, and refuses what is not finite.

    Parameters
    ----------
    features
        Ask for per-atom features at sampled steps.
    guard
        Looks at the run; :meth:`look` asks it.
    state
        To go on from.

    Attributes
    ----------
    calls
        Evaluations so far.
    latest
        Step and prediction of the last evaluation. The same step is not evaluated again.
    cell
        3×3, Å, of the last evaluation.
    halt
        Step at which the engine pauses next: stress is asked for there.
    """

    def __init__(
        self,
        potential: Potential,
        atoms: Atoms,
        protocol: MDProtocol,
        *,
        features: bool = False,
        guard: Guard | None = None,
        state: State | None = None,
    ) -> None:
        self._stepper = potential.md_stepper(atoms, protocol.precision)
        self._protocol, self._start = protocol, atoms
        self._features = features and potential.has_features
        self._guard = guard
        self._guard_features = guard is not None and guard.features and potential.has_features
        self.calls = self.halt = 0
        self.cell = np.asarray(atoms.cell).copy()
        self.latest: tuple[int, Prediction] | None = None
        if state is not None:
            stress = state["stress"] if len(state["stress"]) else None
            prediction = Prediction(energy=float(state["energy"]), forces=state["forces"], stress=stress)
            self.latest, self.cell = (int(state["step"]), prediction), state["cell"]
        self.look_at = self._next_look(0 if state is None else int(state["step"]))

    def state(self) -> State:
        """What this object must know to go on."""
        assert self.latest is not None
        step, p = self.latest
        stress = np.empty(0) if p.stress is None else p.stress
        return {
            "step": np.array(step),
            "energy": np.array(p.energy),
            "forces": p.forces,
            "stress": stress,
            "cell": self.cell,
        }

    def __call__(self, step: int, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> Prediction:
        """Prediction at `step` for (N, 3) positions and a 3×3 cell, Å.

        Raises
        ------
        RunStopped
            ``not_finite`` when positions, cell or anything predicted is NaN or infinite; ``lost_atoms`` when one has
            left the cell in a direction that is not periodic.
        """
        if self.latest is not None and self.latest[0] == step:
            return self._again(cell)
        if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
            raise RunStopped(Reason("not_finite", f"positions or cell are not finite at step {step}"), step)
        if not self._start.pbc.all():
            self._check_inside(step, positions, cell)
        protocol, sampled = self._protocol, self._protocol.is_sampled(step)
        printed = step == self.halt or (protocol.thermo_every and step % protocol.thermo_every == 0)
        looked = self._guard_features and step == self.look_at
        asked: dict[str, Any] = {
            "stress": bool(sampled or printed or protocol.ensemble == "npt"),
            "features": (self._features and sampled and step > 0) or looked,
        }
        prediction = self._stepper(positions, cell, **asked)
        self.calls += 1
        bad = _not_finite(prediction)
        if bad:
            raise RunStopped(Reason("not_finite", f"the potential gave {bad} that is not finite at step {step}"), step)
        self.latest, self.cell = (step, prediction), np.array(cell)
        return prediction

    def _again(self, cell: NDArray[np.float64]) -> Prediction:
        """The prediction there is, for a box that ``fix deform`` may have moved since: the virial stays the same."""
        assert self.latest is not None
        p = self.latest[1]
        if p.stress is None or not self._protocol.deform_per_ps:
            return p
        return replace(p, stress=p.stress * abs(np.linalg.det(self.cell) / np.linalg.det(cell)))

    def trial(self, atoms: Atoms) -> Prediction:
        """Prediction of a frame that may be refused (of a swap); it may hold numbers that are not finite."""
        self.calls += 1
        return self._stepper(atoms.positions, np.asarray(atoms.cell), stress=True)

    def take(self, step: int, prediction: Prediction) -> None:
        """From now on this is the prediction at `step`."""
        self.latest = (step, prediction)

    def look(self, step: int, atoms: Callable[[], Atoms]) -> None:
        """Let the guard look if this is the step for it.

        Raises
        ------
        RunStopped
            ``guard``, with the guard's sentence.
        """
        if self._guard is None or step != self.look_at:
            return
        assert self.latest is not None
        why = self._guard(step, atoms(), self.latest[1])
        self.look_at = self._next_look(step)
        if why is not None:
            raise RunStopped(Reason("guard", why), step)

    def _next_look(self, step: int) -> int:
        return -1 if self._guard is None else step + max(1, int(self._guard.every))

    def _check_inside(self, step: int, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> None:
        lost = left_the_cell(positions, cell, self._start.pbc)
        if lost is not None:
            name = f"{self._start.get_chemical_symbols()[lost]}{lost}"
            raise RunStopped(
                Reason("lost_atoms", f"atom {name} left the cell through an open side at step {step}"), step
            )


def _not_finite(prediction: Prediction) -> str:
    if not math.isfinite(prediction.energy):
        return "an energy"
    if not np.isfinite(prediction.forces).all():
        return "a force"
    if prediction.stress is not None and not np.isfinite(prediction.stress).all():
        return "a stress"
    return ""


def left_the_cell(positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> int | None:
    """An atom outside the cell along a direction that is not periodic, or None."""
    frac = np.linalg.solve(cell.T, positions.T).T[:, ~pbc]
    outside = np.flatnonzero(((frac < 0.0) | (frac >= 1.0)).any(axis=1))
    return int(outside[0]) if len(outside) else None


def sampled_atoms(
    start: Atoms, positions: NDArray[np.float64], cell: NDArray[np.float64], momenta: NDArray[np.float64]
) -> Atoms:
    """Copy of `start` (species, masses, info) at another point of phase space."""
    atoms = start.copy()
    atoms.set_cell(cell)
    atoms.positions[:] = positions
    atoms.set_momenta(momenta)
    return atoms
