from __future__ import annotations

import numpy as np
import pytest

from aldriver.label.cost import expected_cost


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_a_power_law_is_found(power):
    size = np.array([8, 16, 54, 108])
    assert expected_cost([32, 200], size, 0.3 * size**power) == pytest.approx(0.3 * np.array([32, 200]) ** power)


def test_labels_of_one_size_extrapolate_as_plane_waves_do():
    cost = expected_cost([54, 108], [54, 54, 54], [1.0, 2.0, 3.0])
    assert cost == pytest.approx([2.0, 16.0])


def test_the_known_labels_come_out_right_in_the_sum_whatever_the_scatter():
    rng = np.random.default_rng(0)
    size = rng.integers(2, 100, 50)
    cost = size**2.2 * rng.lognormal(0, 0.5, 50)
    assert expected_cost(size, size, cost).sum() == pytest.approx(cost.sum())


def test_costs_never_grow_faster_than_the_cube_or_slower_than_the_atoms():
    steep, flat = expected_cost([10, 20], [10, 20], [1.0, 1e3]), expected_cost([10, 20], [10, 20], [1.0, 0.5])
    assert steep[1] / steep[0] == pytest.approx(8) and flat[1] / flat[0] == pytest.approx(2)


def test_cached_labels_say_nothing():
    assert expected_cost([8], [], []) is None and expected_cost([8], [8], [0.0]) is None
    assert expected_cost([8], [8, 8], [0.0, 2.0]) == pytest.approx([2.0])
