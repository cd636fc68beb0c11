"""The order parameter of a crystal: 1 at rest, the Debye–Waller factor when it swings, nothing in a gas."""

from __future__ import annotations

import numpy as np
import pytest

from aldriver.benchmark.cases import case_by_name, conventional_cell
from aldriver.benchmark.order import LOST, CrystalOrder


@pytest.mark.parametrize("name", ["bcc-Fe", "fcc-Cu", "diamond-Si", "hcp-Mg", "omega-Ti"])
def test_order(name):
    cell, repeats = conventional_cell(case_by_name(name)), (4, 4, 3)
    crystal = cell.repeat(repeats)
    order = CrystalOrder(cell, repeats)
    at_rest = crystal.get_scaled_positions()
    assert order(at_rest) == pytest.approx(1)
    assert order(at_rest + np.array([0.1, 0.2, 0.3])) == pytest.approx(1)  # a crystal that drifts is one
    rng = np.random.default_rng(0)
    gas = [order(rng.uniform(size=at_rest.shape)) for _ in range(10)]
    assert np.mean(gas) < 2 / np.sqrt(len(crystal)) < LOST
    assert order.lost(rng.uniform(size=at_rest.shape))


def test_swinging_atoms_have_the_debye_waller_factor():
    """exp(−G²u²/2) for a Gaussian displacement of width u along each axis."""
    cell, repeats = conventional_cell(case_by_name("fcc-Cu")), (6, 6, 6)
    crystal, u = cell.repeat(repeats), 0.3
    crystal.positions += np.random.default_rng(1).normal(0, u, crystal.positions.shape)
    order = CrystalOrder(cell, repeats)
    g = 2 * np.pi * np.linalg.norm(order.waves @ np.linalg.inv(np.asarray(crystal.cell)).T, axis=1)
    expected = np.exp(-0.5 * (g * u) ** 2)
    assert order(crystal.get_scaled_positions()) == pytest.approx(expected.mean(), abs=0.05)
    assert g.min() == pytest.approx(2 * np.pi * np.sqrt(3) / cell.cell.lengths()[0])  # the peaks of fcc begin with 111
