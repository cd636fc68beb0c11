from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.build import bulk

from aldriver.benchmark.measure import CountingPotential, check_finite
from aldriver.core.errors import AldriverError
from aldriver.potentials.base import Prediction


def test_calls_are_counted_however_they_are_made(fe):
    potential = CountingPotential(fe)
    small, large = bulk("Fe", cubic=True), bulk("Fe", cubic=True).repeat(2)
    with potential.measure() as batch:
        potential.evaluate([small, large])
    with potential.measure() as steps:
        stepper = potential.stepper(large)
        for _ in range(3):
            stepper(large.positions, np.asarray(large.cell))
    with potential.measure() as ase:
        large.calc = potential.calculator()
        large.get_forces()
        large.get_potential_energy()  # of the same calculation
    assert (batch.force_calls, batch.atom_calls) == (2, 18)
    assert (steps.force_calls, steps.atom_calls) == (3, 48)
    assert (ase.force_calls, ase.atom_calls) == (1, 16)
    assert batch.seconds > 0


def test_blocks_nest_and_survive_errors(fe):
    potential = CountingPotential(fe)
    cell = bulk("Fe", cubic=True)
    with potential.measure() as outer:
        with pytest.raises(ValueError, match="boom"), potential.measure() as inner:
            potential.evaluate([cell])
            raise ValueError("boom")
        potential.evaluate([cell])
    assert (inner.force_calls, outer.force_calls) == (1, 2)


def test_it_looks_like_the_potential(fe):
    potential = CountingPotential(fe)
    assert potential.fingerprint == fe.fingerprint
    assert potential.elements == fe.elements
    assert potential.evaluate([bulk("Fe")])[0].energy == fe.evaluate([bulk("Fe")])[0].energy


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_numbers_that_are_not_finite_are_refused(name):
    good = Prediction(energy=1.0, forces=np.zeros((2, 3)), stress=np.zeros(6))
    check_finite(good)
    bad = {"energy": np.inf, "forces": np.full((2, 3), np.nan), "stress": np.full(6, np.nan)}
    with pytest.raises(AldriverError, match=f"{name} that"):
        check_finite(dataclasses.replace(good, **{name: bad[name]}))
