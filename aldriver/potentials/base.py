"""The contract every potential keeps. How a family computes is its own module's business."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

from aldriver.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a potential says of one frame of N atoms.

    Attributes
    ----------
    energy
        Total, eV.
    forces
        (N, 3), eV/Å.
    stress
        (6,) Voigt xx, yy, zz, yz, xz, xy, eV/Å³ (ASE sign), or None when not asked for.
    magmoms
        (N,), µB, or None where the family has none.
    features
        (N, D) per-atom features of the model, or None when not asked for or not there.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None = None
    magmoms: NDArray[np.float64] | None = None
    features: NDArray[np.float64] | None = None


class Stepper(ABC):
    """Evaluates one cell again and again along a trajectory, keeping what stays valid (skin neighbour list)."""

    @abstractmethod
    def __call__(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        """Prediction for (N, 3) positions and a 3×3 cell, both Å, in any orientation; atoms may be unwrapped."""


class Potential(ABC):
    """An interatomic potential.

    Attributes
    ----------
    name
        As in ``aldriver.load(name)``, e.g. ``chgnet:0.3.0``.
    family
        ``chgnet``, ``mace``, ``eam``, ...
    elements
        Chemical symbols it knows.
    fingerprint
        Hash of architecture and weights (16 hex characters).
    """

    name: str
    family: str
    elements: frozenset[str]
    fingerprint: str
    has_features: bool = False
    energy_scale: str = ""
    """Of the labels it learns: ``mp2020`` (with the Materials Project's corrections), empty: as computed."""

    @abstractmethod
    def evaluate(
        self,
        frames: Sequence[Atoms],
        *,
        stress: bool = True,
        features: bool = False,
        batch_atoms: int | None = None,
    ) -> list[Prediction]:
        """Predict each frame, several cells a batch (up to `batch_atoms` atoms).

        Raises
        ------
        InputError
            When a frame holds an element the potential does not know.
        """

    def features(self, frames: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        """Per-atom features of each frame, (N, D)."""
        if not self.has_features:
            raise InputError(f"{self.name}: this kind of potential has no per-atom features")
        predictions = self.evaluate(frames, stress=False, features=True)
        return [p.features for p in predictions if p.features is not None]

    def last_layer_features(self, frames: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        """Inputs φ of the last linear layer of each frame, (N, D): an atom's energy is φ · w plus a constant.

        Raises
        ------
        InputError
            When the family has no such layer.
        """
        raise InputError(f"{self.name}: this kind of potential has no linear last layer")

    def last_layer_forces(
        self, frames: Sequence[Atoms], directions: NDArray[np.float64] | None = None
    ) -> list[NDArray[np.float64]]:
        """Derivatives −∂(Σ φ)/∂R of :meth:`last_layer_features` summed over the atoms, (N, 3, D) of each frame.

        The forces are this times w, so it is to forces what φ is to energies.

        Parameters
        ----------
        directions
            (D, K) combinations of the inputs: then (N, 3, K), at the cost of K backward passes instead of D.

        Raises
        ------
        InputError
            When the family cannot say.
        """
        raise InputError(f"{self.name}: this kind of potential does not tell the forces of its last layer's inputs")

    def stepper(self, atoms: Atoms) -> Stepper:
        """Fast repeated evaluation of one cell (species and periodicity fixed)."""
        return _PlainStepper(self, atoms)

    def md_stepper(self, atoms: Atoms, precision: str | None = None) -> Stepper:
        """What evaluates the steps of a walker that starts at `atoms`.

        Parameters
        ----------
        precision
            None: exactly :meth:`stepper`. ``float32``: as fast as can be, checked against double precision at the
            start; ``float64``: double precision. Families that know one precision only take no notice.
        """
        return self.stepper(atoms)

    def calculator(self) -> Calculator:
        """ASE calculator of this potential."""
        return PotentialCalculator(self)

    def check_elements(self, frames: Sequence[Atoms]) -> None:
        """Refuse frames with unknown elements, naming them."""
        for atoms in frames:
            unknown = sorted(set(atoms.get_chemical_symbols()) - self.elements)
            if unknown:
                raise InputError(
                    f"{self.name} does not know the element{'s' if len(unknown) > 1 else ''} {', '.join(unknown)} "
                    f"(in {atoms.get_chemical_formula()}); it knows {_shorten(sorted(self.elements))}"
                )


def _shorten(symbols: list[str]) -> str:
    return ", ".join(symbols) if len(symbols) <= 12 else f"{len(symbols)} elements"


class _PlainStepper(Stepper):
    def __init__(self, potential: Potential, atoms: Atoms) -> None:
        self.potential, self.atoms = potential, atoms.copy()

    def __call__(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        self.atoms.positions[:] = positions
        self.atoms.cell[:] = cell
        return self.potential.evaluate([self.atoms], stress=stress, features=features)[0]


class PotentialCalculator(Calculator):
    """ASE calculator around a :class:`Potential`; after a calculation ``prediction`` holds all that was computed."""

    implemented_properties = ["energy", "free_energy", "forces", "stress", "magmoms"]

    def __init__(self, potential: Potential, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.potential = potential
        self.prediction: Prediction | None = None
        self._stepper: Stepper | None = None
        self._key: tuple[bytes, bytes] | None = None

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Compute energy, forces and stress together (the potential shares the work)."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        key = (self.atoms.numbers.tobytes(), self.atoms.pbc.tobytes())
        if self._stepper is None or key != self._key:
            self._stepper, self._key = self.potential.stepper(self.atoms), key
        want_stress = "stress" in properties
        p = self._stepper(self.atoms.positions, np.asarray(self.atoms.cell), stress=want_stress)
        self.prediction = p
        self.results = {"energy": p.energy, "free_energy": p.energy, "forces": p.forces}
        if p.stress is not None:
            self.results["stress"] = p.stress
        if p.magmoms is not None:
            self.results["magmoms"] = p.magmoms
