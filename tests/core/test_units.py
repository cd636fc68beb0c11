"""Units and tensor orders, checked against each other and against a published constant."""

from __future__ import annotations

import numpy as np
import pytest

from aldriver.core import units


def test_constants():
    assert pytest.approx(160.21766208, rel=1e-6) == units.EV_A3_TO_GPA  # CODATA 2014 elementary charge


def test_voigt_round_trip_and_order():
    voigt = np.array([1.0, 2, 3, 4, 5, 6])
    matrix = units.voigt_to_matrix(voigt)
    assert (matrix[1, 2], matrix[0, 2], matrix[0, 1]) == (4, 5, 6)  # yz, xz, xy
    np.testing.assert_array_equal(units.matrix_to_voigt(matrix), voigt)


def test_lammps_order_differs_from_voigt():
    matrix = units.voigt_to_matrix([1, 2, 3, 4, 5, 6])
    assert units.lammps_virial(matrix, 2.0) == [-2, -4, -6, -12, -10, -8]  # xx yy zz xy xz yz, W = −Vσ


def test_vasp_compression_is_negative_in_ase():
    assert units.kbar_to_ase(10.0) == pytest.approx(-1.0 / units.EV_A3_TO_GPA)
