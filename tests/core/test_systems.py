"""Systems: the cells a recipe describes."""

from __future__ import annotations

import pytest
from ase.build import bulk
from ase.io import write

from aldriver.core.errors import InputError
from aldriver.core.recipe import System
from aldriver.core.systems import build_system

FE = {"element": "Fe", "lattice": "bcc", "a": 2.86}


def test_vacancies_and_solutes_are_counted_and_reproducible():
    spec = System(name="s", bulk=FE, supercell=(2, 2, 2), vacancies=1, solutes={"Cu": 2, "Ni": 1})
    atoms = build_system(spec, seed=3)
    assert atoms.symbols.formula.count() == {"Fe": 12, "Cu": 2, "Ni": 1}
    assert (build_system(spec, seed=3).positions == atoms.positions).all()
    assert any((build_system(spec, seed=s).numbers != atoms.numbers).any() for s in range(4, 8))


def test_no_magnetic_moments_sneak_in():
    assert not build_system(System(name="s", bulk=FE)).has("initial_magmoms")


def test_structure_file(tmp_path):
    write(tmp_path / "si.cif", bulk("Si", cubic=True))
    atoms = build_system(System(name="si", file=tmp_path / "si.cif", supercell=(1, 1, 2)))
    assert len(atoms) == 16
    assert atoms.info["system"] == "si"


def test_too_many_vacancies():
    with pytest.raises(InputError, match="do not fit into 2 sites"):
        build_system(System(name="s", bulk=FE, vacancies=2))


def test_molecule_without_cell(tmp_path):
    (tmp_path / "m.xyz").write_text("1\n\nFe 0 0 0\n")
    with pytest.raises(InputError, match="no three-dimensional cell"):
        build_system(System(name="m", file=tmp_path / "m.xyz"))


def test_damaged_structure_file(tmp_path):
    (tmp_path / "bad.cif").write_text("this is no cif")
    with pytest.raises(InputError, match="cannot be read as a structure"):
        build_system(System(name="m", file=tmp_path / "bad.cif"))


def test_a_slab_is_open_where_the_recipe_says(tmp_path):
    slab = bulk("Fe", cubic=True) * (1, 1, 3)
    slab.center(vacuum=6.0, axis=2)
    write(tmp_path / "slab.extxyz", slab)
    spec = System(name="slab", file=tmp_path / "slab.extxyz", supercell=(2, 2, 1), periodic=(True, True, False))
    atoms = build_system(spec)
    assert atoms.pbc.tolist() == [True, True, False] and len(atoms) == 24
    assert build_system(System(name="slab", file=tmp_path / "slab.extxyz")).pbc.all()
