from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from aldriver.core.errors import InputError
from aldriver.core.recipe_detect import Soap
from aldriver.detect.descriptors import SoapDescriptor, unusable


@pytest.fixture(scope="module")
def soap() -> SoapDescriptor:
    return SoapDescriptor(["Fe"], Soap())


@pytest.fixture
def cell() -> Atoms:
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True) * (2, 2, 1)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell @ [[1, 0.02, 0], [0, 1.01, 0.03], [0, 0, 0.99]], scale_atoms=True)
    return atoms


def test_defaults_are_those_of_the_paper(soap):
    s = soap.settings
    assert (s.r_cut, s.n_max, s.l_max, s.sigma) == (5.0, 8, 6, 0.375)
    assert soap.size == 8 * 9 // 2 * 7  # n_max(n_max + 1)/2 radial pairs × (l_max + 1)


def test_invariant_under_rotation_translation_wrapping_and_permutation(soap, cell):
    rows = soap.rows(cell)
    tolerance = 1e-6 * np.linalg.norm(rows, axis=1).max()
    turn = Rotation.random(rng=3).as_matrix()
    moved = cell.copy()
    moved.set_cell(cell.cell @ turn.T)
    moved.positions = cell.positions @ turn.T + [0.3, -1.7, 9.1]
    assert np.abs(soap.rows(moved) - rows).max() < tolerance
    moved.wrap()
    assert np.abs(soap.rows(moved) - rows).max() < tolerance
    order = np.random.default_rng(0).permutation(len(cell))
    assert np.abs(soap.rows(cell[order]) - rows[order]).max() < tolerance


def test_a_supercell_has_the_rows_of_its_cell(soap, cell):
    rows = soap.rows(cell)
    assert np.allclose(soap.rows(cell * (2, 1, 1)), np.tile(rows, (2, 1)), atol=1e-6 * np.abs(rows).max())


def test_rows_see_only_the_cutoff(soap):
    pair = Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 9.0]], cell=[40, 40, 40], pbc=True)
    alone = Atoms("Fe", positions=[[0, 0, 0]], cell=[40, 40, 40], pbc=True)
    assert np.allclose(soap.rows(pair)[0], soap.rows(alone)[0], atol=1e-6)


def test_a_foreign_atom_has_no_row_and_leaves_an_empty_site(soap, cell):
    foreign = cell.copy()
    foreign.symbols[2] = "Cu"
    rows = soap.rows(foreign)
    assert np.isnan(rows[2]).all()
    rest = np.delete(np.arange(len(cell)), 2)
    assert np.allclose(rows[rest], soap.rows(cell[rest]))


def test_many_species_grow_linearly():
    sizes = [SoapDescriptor(s, Soap()).size for s in (["Fe"], ["Fe", "C"], ["Fe", "C", "Cu", "Sn"])]
    assert sizes == [252, 952, 1008]


def nonsense(kind: str) -> Atoms:
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True)
    if kind == "nan":
        atoms.positions[1, 2] = np.nan
    elif kind == "inf":
        atoms.positions[0, 0] = np.inf
    elif kind == "collapsed":
        atoms.set_cell(atoms.cell * 0.2, scale_atoms=True)
    elif kind == "flat":
        atoms.cell[2] = 0.0
    else:
        atoms = Atoms(pbc=True, cell=[3, 3, 3])
    return atoms


@pytest.mark.parametrize("kind", ["nan", "inf", "collapsed", "flat", "empty"])
def test_broken_frames_are_named(soap, kind):
    atoms = nonsense(kind)
    assert unusable(atoms)
    with pytest.raises(InputError, match="no descriptor"):
        soap.rows(atoms)


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match=r"detect\.soap"):
        SoapDescriptor(["Fe"], Soap(r_cut=0.5)).rows(bulk("Fe"))


def test_compression_follows_the_recipe():
    few, many = ["Fe", "C"], ["Fe", "C", "Cu", "Sn"]
    sizes = {
        mode: [SoapDescriptor(s, Soap(n_max=3, l_max=2, compression=mode)).size for s in (few, many)]
        for mode in ("auto", "off", "crossover")
    }
    assert sizes["auto"] == [sizes["off"][0], sizes["crossover"][1]]
    assert sizes["off"][1] > sizes["crossover"][1] == 2 * sizes["crossover"][0]
