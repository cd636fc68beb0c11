"""Forces of the last layer's inputs against finite differences of those inputs, and against the forces themselves."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.potentials.delta import DeltaPotential

STEP = 1e-4


@pytest.fixture(scope="module")
def cell() -> Atoms:
    atoms = bulk("Fe", "bcc", a=2.85, cubic=True)
    atoms.rattle(0.08, seed=3)
    return atoms


@pytest.fixture(scope="module")
def small():
    if importlib.util.find_spec("mace") is None:
        pytest.skip("mace is not installed here")
    from aldriver.testing.small_mace import small_mace

    return small_mace(("Fe", "Cu"), dtype="float64", heads=("a", "b"), head="b")


def differences(potential, atoms: Atoms, site: int, axis: int) -> np.ndarray:
    sums = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[site, axis] += sign * STEP
        sums.append(potential.last_layer_features([moved])[0].sum(axis=0))
    return -(sums[0] - sums[1]) / (2 * STEP)


def test_chgnet_inputs_have_the_forces_of_finite_differences(chgnet020_double, cell):
    (forces,) = chgnet020_double.last_layer_forces([cell])
    assert forces.shape == (2, 3, 64)
    for site, axis in ((0, 0), (1, 2)):
        expected = differences(chgnet020_double, cell, site, axis)
        np.testing.assert_allclose(forces[site, axis], expected, atol=2e-5 * np.abs(expected).max())


def test_chgnet_forces_are_linear_in_them(chgnet020_double, cell):
    weights = chgnet020_double.module.mlp.layers[-1].weight.detach().numpy()[0]
    (forces,) = chgnet020_double.last_layer_forces([cell])
    np.testing.assert_allclose(forces @ weights, chgnet020_double.evaluate([cell])[0].forces, atol=1e-9)
    (along,) = chgnet020_double.last_layer_forces([cell], weights[:, None])
    np.testing.assert_allclose(along[..., 0], forces @ weights, atol=1e-9)


def test_mace_inputs_have_the_forces_of_finite_differences(small, cell):
    mixed = cell.copy()
    mixed.symbols[1] = "Cu"
    (forces,) = small.last_layer_forces([mixed])
    for site, axis in ((0, 1), (1, 0)):
        expected = differences(small, mixed, site, axis)
        np.testing.assert_allclose(forces[site, axis], expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-10)  # no net force
    directions = np.random.default_rng(0).normal(size=(forces.shape[2], 3))
    np.testing.assert_allclose(small.last_layer_forces([mixed], directions)[0], forces @ directions, atol=1e-9)


def test_a_sum_of_potentials_has_those_of_both(small, cell):
    both = DeltaPotential(small, small.with_head("a"))
    (first,), (second,), (found,) = (p.last_layer_forces([cell]) for p in (small, small.with_head("a"), both))
    np.testing.assert_allclose(found, np.concatenate([first, second], axis=2))
    directions = np.random.default_rng(1).normal(size=(found.shape[2], 2))
    np.testing.assert_allclose(both.last_layer_forces([cell], directions)[0], found @ directions, atol=1e-9)


def test_what_cannot_be_said_is_refused(small, eam_fe, cell):
    with pytest.raises(InputError, match="does not tell the forces of its last layer"):
        eam_fe.last_layer_forces([cell])
    with pytest.raises(InputError, match="directions of shape"):
        small.last_layer_forces([cell], np.ones((3, 2)))
