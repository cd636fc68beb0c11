"""What both MD engines share: the watched evaluation of each step, and the samples they hand out.

Integration is in ``lammps.py`` and ``ase.py``; judging samples is the walker's business.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.explore.health import Reason
from aldriver.explore.protocol import MDProtocol
from aldriver.potentials.base import Potential, Prediction


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The frame after `step` steps: unwrapped, with momenta, in the orientation it started in, and its prediction."""

    step: int
    atoms: Atoms
    prediction: Prediction


class Engine(Protocol):
    """Integrates a protocol; yields the start (step 0), then a sample every ``protocol.sample_every`` steps."""

    def __call__(
        self, potential: Potential, atoms: Atoms, protocol: MDProtocol, *, features: bool = False
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

    Attributes
    ----------
    calls
        Evaluations so far.
    latest
        Step and prediction of the last evaluation.
    """

    def __init__(self, potential: Potential, atoms: Atoms, protocol: MDProtocol, *, features: bool = False) -> None:
        self._stepper = potential.stepper(atoms)
        self._protocol = protocol
        self._features = features and potential.has_features
        self.calls = 0
        self.latest: tuple[int, Prediction] | None = None

    def __call__(self, step: int, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> Prediction:
        """Prediction at `step` for (N, 3) positions and a 3×3 cell, Å.

        Raises
        ------
        RunStopped
            ``not_finite`` when positions, cell or anything predicted is NaN or infinite.
        """
        if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
            raise RunStopped(Reason("not_finite", f"positions or cell are not finite at step {step}"), step)
        sampled = self._protocol.is_sampled(step)
        asked: dict[str, Any] = {
            "stress": sampled or self._protocol.ensemble == "npt",
            "features": self._features and sampled and step > 0,
        }
        prediction = self._stepper(positions, cell, **asked)
        self.calls += 1
        bad = _not_finite(prediction)
        if bad:
            raise RunStopped(Reason("not_finite", f"the potential gave {bad} that is not finite at step {step}"), step)
        self.latest = (step, prediction)
        return prediction


def _not_finite(prediction: Prediction) -> str:
    if not math.isfinite(prediction.energy):
        return "an energy"
    if not np.isfinite(prediction.forces).all():
        return "a force"
    if prediction.stress is not None and not np.isfinite(prediction.stress).all():
        return "a stress"
    return ""


def sampled_atoms(
    start: Atoms, positions: NDArray[np.float64], cell: NDArray[np.float64], momenta: NDArray[np.float64]
) -> Atoms:
    """Copy of `start` (species, masses, info) at another point of phase space."""
    atoms = start.copy()
    atoms.set_cell(cell)
    atoms.positions[:] = positions
    atoms.set_momenta(momenta)
    return atoms
