"""Potentials that misbehave on purpose, and one that remembers what it was asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from aldriver.explore.perturb import rattle
from aldriver.potentials import Potential, Prediction, Stepper


class WrappedPotential(Potential):
    """Another potential whose predictions along a trajectory pass through `change(call, prediction)`."""

    has_features = True
    family = "test"

    def __init__(self, inner, change: Callable | None = None) -> None:
        self.inner, self.change = inner, change
        self.name, self.elements, self.fingerprint = f"wrapped {inner.name}", inner.elements, "0" * 16
        self.asked: list[tuple[bool, bool]] = []

    def evaluate(self, frames, **kwargs):
        return self.inner.evaluate(frames, **kwargs)

    def stepper(self, atoms):
        return _WrappedStepper(self, self.inner.stepper(atoms))


class _WrappedStepper(Stepper):
    def __init__(self, owner, inner) -> None:
        self.owner, self.inner = owner, inner

    def __call__(self, positions, cell, *, stress=True, features=False):
        self.owner.asked.append((stress, features))
        p = self.inner(positions, cell, stress=stress)
        if features:
            p = dataclasses.replace(p, features=np.column_stack([p.forces, np.arange(len(positions))]))
        return p if self.owner.change is None else self.owner.change(len(self.owner.asked), p)


class LJPotential(Potential):
    """Lennard-Jones through ASE: Cu and Ar that differ only in mass."""

    name, family, elements, fingerprint = "lj", "lj", frozenset({"Ar", "Cu"}), "1" * 16

    def evaluate(self, frames, *, stress=True, features=False, batch_atoms=None):
        out = []
        for atoms in frames:
            copy = atoms.copy()
            copy.calc = LennardJones(sigma=2.3, epsilon=0.2, rc=4.5, smooth=True)
            out.append(
                Prediction(
                    energy=copy.get_potential_energy(),
                    forces=copy.get_forces(),
                    stress=copy.get_stress() if stress else None,
                )
            )
        return out


@pytest.fixture
def lj_alloy():
    """The Lennard-Jones potential, and an fcc cell of both its elements, rattled."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 1, 1)
    atoms.symbols[[1, 4, 6]] = "Ar"
    return LJPotential(), rattle(atoms, 0.05, seed=2)


@pytest.fixture
def wrapped(eam_fe):
    """Make a wrapped Fe EAM: ``wrapped(change)``; ``.asked`` lists (stress, features) of each evaluation."""
    return lambda change=None: WrappedPotential(eam_fe, change)


@pytest.fixture
def hot_vacancy(fe_vacancy):
    """Fe vacancy cell, sheared out of the lower-triangular shape, rattled."""
    from aldriver.explore.perturb import rattle, strain

    e = np.array([[0.02, 0.05, -0.03], [0.01, -0.02, 0.06], [0.04, 0.0, 0.01]])
    return rattle(strain(fe_vacancy, e), 0.08, seed=1)
