"""The sum of two potentials: a base that stays, and a correction learnt on what the base misses (Δ-learning).

How the correction is trained is ``train/delta.py``'s business. Δ-learning: Ramakrishnan et al., J. Chem. Theory
Comput. 11, 2087 (2015).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.potentials.base import Potential, Prediction, Stepper


class DeltaPotential(Potential):
    """Energies, forces and stresses of `base` plus those of `correction`; moments and features are those of the base.

    Parameters
    ----------
    elements
        Those the correction was trained on; by default all that both know.

    Raises
    ------
    InputError
        When they share no element.
    """

    family = "delta"

    def __init__(
        self,
        base: Potential,
        correction: Potential,
        *,
        elements: Collection[str] | None = None,
        name: str | None = None,
    ) -> None:
        self.base, self.correction = base, correction
        self.name = name or f"{base.name} + {correction.name}"
        both = base.elements & correction.elements
        self.elements = both if elements is None else both & frozenset(elements)
        if not self.elements:
            raise InputError(f"{self.name}: the two potentials share no element")
        self.has_features = base.has_features

    @property
    def energy_scale(self) -> str:  # type: ignore[override]
        """That of the base."""
        return self.base.energy_scale

    @property
    def parts(self) -> dict[str, Potential]:
        """What it is made of, each saved in a directory of its own."""
        return {"base": self.base, "correction": self.correction}

    @property
    def arch(self) -> dict[str, Any]:
        """What it says beside its parts: the elements it knows."""
        return {"elements": sorted(self.elements)}

    @classmethod
    def from_parts(cls, parts: Mapping[str, Potential], arch: Mapping[str, Any], *, name: str) -> DeltaPotential:
        """Put a saved one together.

        Raises
        ------
        InputError
            When a part is missing.
        """
        if set(parts) != {"base", "correction"}:
            raise InputError(
                f"{name}: a delta potential has a base and a correction, not {', '.join(parts) or 'nothing'}"
            )
        return cls(parts["base"], parts["correction"], elements=arch["elements"], name=name)

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Hash of the fingerprints of both, and of the elements."""
        text = f"{self.base.fingerprint}+{self.correction.fingerprint} {' '.join(sorted(self.elements))}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def evaluate(
        self,
        frames: Sequence[Atoms],
        *,
        stress: bool = True,
        features: bool = False,
        batch_atoms: int | None = None,
    ) -> list[Prediction]:
        """Predict each frame with both and add."""
        self.check_elements(frames)
        first = self.base.evaluate(frames, stress=stress, features=features, batch_atoms=batch_atoms)
        second = self.correction.evaluate(frames, stress=stress, batch_atoms=batch_atoms)
        return [added(a, b) for a, b in zip(first, second, strict=True)]

    def stepper(self, atoms: Atoms) -> Stepper:
        """The steppers of both, each with its own neighbour list."""
        self.check_elements([atoms])
        return _DeltaStepper(self.base.stepper(atoms), self.correction.stepper(atoms))

    def md_stepper(self, atoms: Atoms, precision: str | None = None) -> Stepper:
        """Those of both."""
        self.check_elements([atoms])
        return _DeltaStepper(self.base.md_stepper(atoms, precision), self.correction.md_stepper(atoms, precision))

    def last_layer_features(self, frames: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        """Those of both side by side: the energy of an atom is linear in either."""
        pairs = (part.last_layer_features(frames) for part in (self.base, self.correction))
        return [np.hstack(pair) for pair in zip(*pairs, strict=True)]

    def last_layer_forces(
        self, frames: Sequence[Atoms], directions: NDArray[np.float64] | None = None
    ) -> list[NDArray[np.float64]]:
        """Those of both side by side, or the sum of what each makes of its share of the directions."""
        if directions is None:
            pairs = (part.last_layer_forces(frames) for part in (self.base, self.correction))
            return [np.concatenate(pair, axis=2) for pair in zip(*pairs, strict=True)]
        if not frames:
            return []
        width = self.base.last_layer_features(frames[:1])[0].shape[1]
        first = self.base.last_layer_forces(frames, directions[:width])
        second = self.correction.last_layer_forces(frames, directions[width:])
        return [a + b for a, b in zip(first, second, strict=True)]


class _DeltaStepper(Stepper):
    def __init__(self, base: Stepper, correction: Stepper) -> None:
        self.base, self.correction = base, correction

    def __call__(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        first = self.base(positions, cell, stress=stress, features=features)
        return added(first, self.correction(positions, cell, stress=stress))


def added(a: Prediction, b: Prediction) -> Prediction:
    """The sum of two predictions; moments and features are those of the first."""
    return Prediction(
        energy=a.energy + b.energy,
        forces=a.forces + b.forces,
        stress=None if a.stress is None or b.stress is None else a.stress + b.stress,
        magmoms=a.magmoms,
        features=a.features,
    )
