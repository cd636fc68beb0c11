from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from aldriver.core.errors import InputError
from aldriver.detect.neighbour import Neighbours


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 6))


def test_is_the_distance_to_the_nearest_row(rows):
    new = np.random.default_rng(1).normal(size=(700, 6)) * 3
    assert np.allclose(Neighbours.fit(rows).distance(new), cKDTree(rows).query(new)[0])


def test_known_rows_are_measured_against_the_others(rows):
    near = Neighbours.fit(rows)
    assert np.allclose(near.distance(rows), 0.0, atol=1e-7)
    assert np.allclose(near.distance(rows, others=True), cKDTree(rows).query(rows, k=2)[0][:, 1])


def test_the_store_is_bounded_and_never_says_too_near(rows):
    """Leaving known rows out can only make an atom look newer."""
    whole, short = Neighbours.fit(rows), Neighbours.fit(rows, most=40)
    assert len(short.rows) <= 40
    new = np.random.default_rng(2).normal(size=(50, 6))
    assert (short.distance(new) >= whole.distance(new)).all()


def test_rows_that_are_not_numbers_have_no_distance(rows):
    new = rows[:3] + 0.5
    new[1, 2] = np.nan
    found = Neighbours.fit(rows).distance(new)
    assert np.isnan(found[1]) and np.isfinite(found[[0, 2]]).all()
    with pytest.raises(InputError, match="at least one row"):
        Neighbours.fit(np.zeros((0, 3)))
