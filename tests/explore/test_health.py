"""Each reason code, and that healthy frames have none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms, units

from aldriver.explore import HealthLimits
from aldriver.explore.health import check, closest_pair, temperature
from aldriver.explore.perturb import thermalise
from aldriver.potentials import Prediction


@pytest.fixture
def frame(fe_vacancy):
    return thermalise(fe_vacancy, 600.0, seed=0)


@pytest.fixture
def fine(frame):
    return Prediction(energy=-60.0, forces=np.zeros((len(frame), 3)), stress=np.zeros(6))


def test_healthy(frame, fine):
    assert check(frame, fine, HealthLimits(), previous_energy=-60.5, n_atoms=len(frame)) is None


def test_hot(frame, fine):
    reason = check(frame, fine, HealthLimits(max_temperature_K=599.0))
    assert reason.code == "hot" and "600 K" in reason.message


def test_too_close_names_the_pair(frame, fine):
    frame.positions[3] = frame.positions[7] + [0.5, 0, 0]
    reason = check(frame, fine, HealthLimits())
    assert reason.code == "too_close" and "0.50 Å" in reason.message and "Fe3" in reason.message


def test_too_close_sees_periodic_and_unwrapped_images(frame, fine):
    frame.positions[3] = frame.positions[7] + [0.5, 0, 0] + np.array([3, -2, 1]) @ np.asarray(frame.cell)
    assert check(frame, fine, HealthLimits()).code == "too_close"
    alone = Atoms("Fe", cell=[1.0, 3.0, 3.0], pbc=True)  # an atom too close to its own image
    assert closest_pair(alone, 0.6) == (pytest.approx(1.0 / 2.64), 0, 0, pytest.approx(1.0))


def test_closeness_is_relative_to_the_elements():
    """0.8 Å is a hydrogen bond length (2 × 0.31 Å covalent) but half of iron's."""
    for symbol, close in (("H", False), ("Fe", True)):
        pair = Atoms(f"{symbol}2", positions=[[0, 0, 0], [0.8, 0, 0]], cell=[9, 9, 9], pbc=True)
        assert (closest_pair(pair, 0.6) is not None) is close


@pytest.mark.parametrize("what", ["energy", "forces", "stress", "positions", "cell", "momenta"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(frame, fine, what, value):
    if what == "energy":
        fine = dataclasses.replace(fine, energy=value)
    elif what in ("forces", "stress"):
        array = getattr(fine, what).copy()
        array.flat[4] = value
        fine = dataclasses.replace(fine, **{what: array})
    elif what == "cell":
        frame.cell[1, 1] = value
    else:
        frame.arrays[what][2, 1] = value
    assert check(frame, fine, HealthLimits(), previous_energy=-60.0).code == "not_finite"


def test_energy_jump_in_either_direction(frame, fine):
    for before in (-60.0 - 2.0 * len(frame), -60.0 + 2.0 * len(frame)):
        reason = check(frame, fine, HealthLimits(max_energy_jump_eV_atom=1.9), previous_energy=before)
        assert reason.code == "energy_jump" and "2.00 eV/atom" in reason.message


def test_lost_atoms(frame, fine):
    assert check(frame, fine, HealthLimits(), n_atoms=len(frame) + 2).code == "lost_atoms"


def test_force(frame, fine):
    forces = fine.forces.copy()
    forces[5] = [0.0, 60.0, 80.0]
    reason = check(frame, dataclasses.replace(fine, forces=forces), HealthLimits(max_force_eV_A=99.0))
    assert reason.code == "force" and "100.0 eV/Å" in reason.message


def test_temperature_counts_the_resting_centre_of_mass(frame):
    n = len(frame)
    assert temperature(frame) == pytest.approx(2 * frame.get_kinetic_energy() / ((3 * n - 3) * units.kB))
