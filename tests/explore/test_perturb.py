"""Rattled, strained and thermalised copies, against what they are by definition."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.explore.health import temperature
from aldriver.explore.perturb import rattle, rescale, strain, thermalise


@pytest.fixture
def cell():
    return bulk("Fe", "bcc", a=2.855, cubic=True) * (4, 4, 4)


def test_rattle_amplitude_seed_and_no_drift(cell):
    moved = rattle(cell, 0.1, seed=3)
    shift = moved.positions - cell.positions
    assert shift.std() == pytest.approx(0.1, rel=0.1)
    np.testing.assert_allclose(shift.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_array_equal(moved.positions, rattle(cell, 0.1, seed=3).positions)
    assert not np.allclose(moved.positions, rattle(cell, 0.1, seed=4).positions)
    np.testing.assert_array_equal(rattle(cell, 0.0).positions, cell.positions)
    with pytest.raises(InputError):
        rattle(cell, -0.1)


def test_isotropic_strain_scales_the_volume(cell):
    assert strain(cell, 0.02).get_volume() == pytest.approx(cell.get_volume() * 1.02**3)
    np.testing.assert_allclose(strain(cell, 0.02).get_scaled_positions(), cell.get_scaled_positions(), atol=1e-12)


def test_voigt_shear_is_engineering_strain(cell):
    """γ_yz = 0.02 turns the right angle between b and c into arccos(γ), to first order."""
    sheared = strain(cell, [0, 0, 0, 0.02, 0, 0])
    assert np.cos(np.radians(sheared.cell.angles()[0])) == pytest.approx(0.02, rel=1e-3)
    np.testing.assert_allclose(sheared.cell.angles()[1:], 90.0, atol=1e-9)


@pytest.mark.parametrize("bad", [[0.1, 0.2], -1.0, np.full((3, 3), np.nan)])
def test_impossible_strains_are_refused(cell, bad):
    with pytest.raises(InputError):
        strain(cell, bad)


def test_maxwell_boltzmann(cell):
    cell.symbols[::2] = "C"  # two masses: equipartition holds for each
    hot = thermalise(cell, 900.0, seed=5)
    assert temperature(hot) == pytest.approx(900.0)
    np.testing.assert_allclose(hot.get_momenta().sum(axis=0), 0.0, atol=1e-10)
    for symbol in ("C", "Fe"):
        mine = hot.symbols == symbol
        kinetic = 0.5 * (hot.get_momenta() ** 2 / hot.get_masses()[:, None])[mine].sum() / mine.sum()
        assert kinetic == pytest.approx(1.5 * units.kB * 900.0, rel=0.3)
    np.testing.assert_array_equal(hot.get_momenta(), thermalise(cell, 900.0, seed=5).get_momenta())


def test_rescale(cell):
    hot = thermalise(cell, 900.0, seed=5)
    assert temperature(rescale(hot, 300.0)) == pytest.approx(300.0)
    assert temperature(rescale(cell, 300.0)) == 0.0  # nothing to scale
