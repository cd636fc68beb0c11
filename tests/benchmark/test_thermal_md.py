"""Thermal expansion and heat capacity by MD: the spline with its errors, and copper."""

from __future__ import annotations

import numpy as np
import pytest
from ase.units import J, kB, mol

from aldriver.benchmark import thermal_md
from aldriver.benchmark.bench import Bench
from aldriver.core.recipe_thermal import ThermalMd


def test_the_spline_gives_value_derivative_and_error():
    x = [100.0, 200.0, 300.0, 400.0, 500.0]
    y = np.array([1e-6 * t**3 - 0.01 * t for t in x])
    value, slope, _ = thermal_md.spline(x, np.column_stack([y, np.zeros(5)]), 250.0)
    assert value == pytest.approx(1e-6 * 250**3 - 2.5)
    assert slope == pytest.approx(3e-6 * 250**2 - 0.01)
    rng = np.random.default_rng(0)
    noise = 0.3
    slopes = [
        thermal_md.spline(x, np.column_stack([rng.normal(y, noise), np.full(5, noise)]), 250.0) for _ in range(300)
    ]
    assert np.std([s[1] for s in slopes]) == pytest.approx(slopes[0][2], rel=0.15)


def test_copper(cu, fcc_cu):
    options = ThermalMd(supercell=(2, 2, 2), temperatures_K=[100, 300, 500], steps=600, timestep_fs=4)
    found = {v.property: v for v in thermal_md.compute(Bench(cu), fcc_cu, 3.615, options)}
    expansion, heat = found["md_thermal_expansion"], found["md_heat_capacity"]
    # classical atoms: 3k (of 3N - 3 oscillators) and the anharmonic part; the short runs leave errors of some 15 %
    oscillators = 3 * kB * mol / J * (1 - 1 / 32)
    assert abs(heat.value - oscillators) < max(4 * heat.error, 0.15 * oscillators)
    assert abs(expansion.value - 16) < max(4 * expansion.error, 8)
    assert heat.cost.force_calls == 3 * 601


def test_a_crystal_that_melts_has_no_values_to_trust(cu, fcc_cu):
    options = ThermalMd(supercell=(2, 2, 2), temperatures_K=[300, 600, 4500], steps=500, timestep_fs=4)
    values = thermal_md.compute(Bench(cu), fcc_cu, 3.615, options)
    assert not any(v.converged for v in values)
    assert all("lost at 4500 K" in v.reason for v in values)


@pytest.mark.parametrize("temperatures", [[300, 200, 400], [400, 500, 600]])
def test_temperatures_ascend_around_the_one_asked_for(temperatures):
    with pytest.raises(ValueError, match="temperatures_K"):
        ThermalMd(temperatures_K=temperatures)


def test_runs_too_short_for_a_mean_are_refused():
    with pytest.raises(ValueError, match="200 are left after the equilibration, and 400 are needed"):
        ThermalMd(steps=1000, equilibration=0.8)
