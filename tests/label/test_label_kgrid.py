"""Grids of k-points: the spacing that is asked for is kept, and a frozen grid is checked against it."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from aldriver.label.kgrid import grid_by_spacing, grid_of, grid_problem, grid_text

CUBE = np.eye(3) * 2 * np.pi  # reciprocal vectors of length 1


@pytest.mark.parametrize(("spacing", "n"), [(1.0, 1), (0.51, 2), (0.5, 2), (0.49, 3), (0.1, 10), (5.0, 1)])
def test_points_are_at_most_the_spacing_apart(spacing, n):
    assert grid_by_spacing(CUBE, spacing) == (n, n, n)


def test_a_supercell_of_twice_the_length_needs_half_the_points():
    small = bulk("Fe", a=2.86, cubic=True)
    assert grid_by_spacing(small.cell, 0.2) == (11, 11, 11)
    assert grid_by_spacing((small * (2, 1, 1)).cell, 0.2) == (6, 11, 11)


def test_a_skewed_cell_counts_by_its_reciprocal_vectors():
    """The primitive fcc cell: all reciprocal vectors have length 2π √3 / a."""
    a = 4.0
    length = 2 * np.pi * np.sqrt(3) / a
    assert grid_by_spacing(bulk("Al", a=a).cell, length / 3.0) == (3, 3, 3)
    assert grid_by_spacing(bulk("Al", a=a).cell, length / 3.01) == (4, 4, 4)


def test_noise_on_an_edge_does_not_change_the_grid():
    for noise in (-1e-9, 0.0, 1e-9):
        assert grid_by_spacing(CUBE * (1 + noise), 0.25) == (4, 4, 4)


def test_a_frozen_grid_stays_and_is_refused_where_it_is_too_thin():
    assert grid_of(CUBE, (2, 3, 4), 0.1) == (2, 3, 4)
    assert grid_of(CUBE, None, None) == (1, 1, 1)
    assert grid_problem(CUBE, (4, 4, 4), 0.25) == ""
    assert grid_problem(CUBE * 0.97, (4, 4, 4), None) == ""
    assert "5x5x5" in grid_problem(CUBE * 0.97, (4, 4, 4), 0.25)
    assert grid_problem(CUBE * 1.03, (4, 4, 4), 0.25) == ""


def test_the_rule_has_a_name():
    assert grid_text((2, 2, 4), 0.2) == "k-grid 2x2x4"
    assert grid_text(None, 0.2) == "k-spacing 0.2 1/Å"
    assert grid_text(None, None) == "k-grid 1x1x1"
