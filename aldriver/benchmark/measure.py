"""What the properties share: a potential that counts its force calls, what it cost, and a measured value.

Which property is computed how is the business of the property modules.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.potentials.base import Potential, Prediction, Stepper


@dataclass(kw_only=True)
class Cost:
    """Force evaluations, the same weighted by the number of atoms, and wall time (s)."""

    force_calls: int = 0
    atom_calls: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Value:
    """One measured property, before the suite adds the case and the protocol.

    Attributes
    ----------
    error
        Numerical error in the unit of `value`, None where unknown.
    converged
        False when a relaxation stopped at its step limit or a fit is not to be trusted.
    reason
        Empty, or why the value is missing or not to be trusted.
    curve
        As in :class:`~aldriver.core.records.PropertyRecord`.
    """

    property: str
    value: float | None
    unit: str
    error: float | None = None
    converged: bool = True
    reason: str = ""
    cost: Cost = field(default_factory=Cost)
    curve: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def missing(cls, name: str, unit: str, reason: str, cost: Cost | None = None) -> Value:
        """One that could not be measured, and why."""
        return cls(property=name, value=None, unit=unit, converged=False, reason=reason, cost=cost or Cost())


class CountingPotential(Potential):
    """A potential that counts what is asked of it, and refuses numbers that are not finite."""

    def __init__(self, potential: Potential) -> None:
        self.inner = potential
        self.name, self.family = potential.name, potential.family
        self.elements, self.fingerprint = potential.elements, potential.fingerprint
        self.has_features = potential.has_features
        self.total = Cost()

    def evaluate(
        self,
        frames: Sequence[Atoms],
        *,
        stress: bool = True,
        features: bool = False,
        batch_atoms: int | None = None,
    ) -> list[Prediction]:
        """Predict each frame, counted.

        Raises
        ------
        AldriverError
            When an energy, force or stress is not a finite number.
        """
        self._count(len(frames), sum(len(f) for f in frames))
        found = self.inner.evaluate(frames, stress=stress, features=features, batch_atoms=batch_atoms)
        for prediction in found:
            check_finite(prediction)
        return found

    def stepper(self, atoms: Atoms) -> Stepper:
        """Stepper of the potential, counted."""
        return _CountingStepper(self, self.inner.stepper(atoms), len(atoms))

    def md_stepper(self, atoms: Atoms, precision: str | None = None) -> Stepper:
        """Stepper of the potential for MD, counted."""
        return _CountingStepper(self, self.inner.md_stepper(atoms, precision), len(atoms))

    @contextmanager
    def measure(self) -> Iterator[Cost]:
        """Cost of the block: the object yielded is filled in when the block ends, however it ends."""
        cost, start = Cost(), time.perf_counter()
        calls, atom_calls = self.total.force_calls, self.total.atom_calls
        try:
            yield cost
        finally:
            cost.force_calls = self.total.force_calls - calls
            cost.atom_calls = self.total.atom_calls - atom_calls
            cost.seconds = time.perf_counter() - start

    def _count(self, calls: int, atom_calls: int) -> None:
        self.total.force_calls += calls
        self.total.atom_calls += atom_calls


class _CountingStepper(Stepper):
    def __init__(self, owner: CountingPotential, inner: Stepper, n_atoms: int) -> None:
        self.owner, self.inner, self.n_atoms = owner, inner, n_atoms

    def __call__(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        self.owner._count(1, self.n_atoms)
        found = self.inner(positions, cell, stress=stress, features=features)
        check_finite(found)
        return found


def check_finite(prediction: Prediction) -> None:
    """Refuse a prediction with numbers that are not finite.

    Raises
    ------
    AldriverError
        Naming the quantity.
    """
    for name in ("energy", "forces", "stress"):
        values = getattr(prediction, name)
        if values is not None and not np.isfinite(values).all():
            raise AldriverError(f"the potential gave {name} that {'is' if name != 'forces' else 'are'} not finite")
