"""Crystals on a plane: densities, spacings and areas that crystallography gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.oriented import oriented, plane_area

PLANES = [(1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, 2), (2, 1, 0), (3, 1, 0), (2, 2, 1), (1, -2, 3)]
PER_ATOM = {"bcc-Fe": 1 / 2, "fcc-Cu": 1 / 4, "diamond-Si": 1 / 8}


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", PER_ATOM)
def test_the_crystal_is_the_same_however_it_is_turned(name, plane):
    case = case_by_name(name)
    found = oriented(case, case.a, plane)
    atoms = found.atoms
    assert atoms.get_volume() / len(atoms) == pytest.approx(PER_ATOM[name] * case.a**3)
    nearest = case.a * {"bcc-Fe": math.sqrt(3) / 2, "fcc-Cu": math.sqrt(0.5), "diamond-Si": math.sqrt(3) / 4}[name]
    i, distances = neighbor_list("id", atoms, nearest * 1.05)
    assert set(np.bincount(i, minlength=len(atoms))) == {{"bcc-Fe": 8, "fcc-Cu": 12, "diamond-Si": 4}[name]}
    assert distances == pytest.approx(np.full(len(distances), nearest))
    assert np.asarray(atoms.cell)[2] == pytest.approx([0, 0, atoms.cell[2, 2]], abs=1e-9)


@pytest.mark.parametrize(("name", "plane", "spacing"), [
    ("bcc-Fe", (1, 1, 0), 1 / math.sqrt(2)), ("bcc-Fe", (1, 0, 0), 1 / 2), ("bcc-Fe", (3, 1, 0), 1 / math.sqrt(10)),
    ("bcc-Fe", (1, 1, 1), 1 / (2 * math.sqrt(3))), ("fcc-Cu", (1, 1, 1), 1 / math.sqrt(3)),
    ("fcc-Cu", (1, 0, 0), 1 / 2), ("fcc-Cu", (2, 1, 0), 1 / (2 * math.sqrt(5))), ("diamond-Si", (1, 1, 1), 1 / math.sqrt(3)),
])  # fmt: skip
def test_planes_have_the_spacing_of_the_extinction_rules(name, plane, spacing):
    assert oriented(case_by_name(name), 1.0, plane).spacing == pytest.approx(spacing)


@pytest.mark.parametrize("plane", PLANES)
def test_slabs_have_equal_faces(plane):
    """The slab turned upside down through its middle is the slab again: so are its faces."""
    case = case_by_name("diamond-Si")
    crystal = oriented(case, case.a, plane)
    slab = crystal.slab(4)
    z = np.sort(slab.positions[:, 2])
    assert z + z[::-1] == pytest.approx(np.full(len(z), slab.cell[2, 2]), abs=1e-6)
    assert slab.get_volume() / len(slab) == pytest.approx(case.a**3 / 8)


def test_areas_of_oblique_cells():
    case = case_by_name("bcc-Fe")
    atoms = oriented(case, 1.0, (1, 1, 1)).atoms
    a, b = (np.linalg.norm(v) for v in np.asarray(atoms.cell)[:2])
    assert plane_area(atoms) == pytest.approx(math.sqrt(3))
    assert plane_area(atoms) == pytest.approx(a * b * math.sqrt(3) / 2)
