from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from aldriver.benchmark.cases import case_by_name, conventional_cell
from aldriver.core.errors import InputError


@pytest.mark.parametrize(
    ("name", "a", "sites"),
    [
        ("bcc-Fe", 2.87, 128),
        ("bcc-Mo", 3.15, 128),
        ("bcc-W", 3.16, 128),
        ("bcc-Nb", 3.30, 128),
        ("bcc-V", 3.02, 128),
        ("bcc-Ta", 3.31, 128),
        ("bcc-Cr", 2.88, 128),
        ("bcc-Li", 3.49, 128),
        ("fcc-Cu", 3.61, 108),
        ("fcc-Ni", 3.52, 108),
        ("fcc-Al", 4.05, 108),
        ("diamond-Si", 5.43, 64),
        ("diamond-Ge", 5.66, 64),
    ],
)
def test_common_crystals_start_near_experiment(name, a, sites):
    case = case_by_name(name)
    assert case.name == name
    assert case.a == pytest.approx(a, abs=0.02)
    assert len(conventional_cell(case)) * np.prod(case.supercell) == sites


def test_another_lattice_keeps_the_atomic_volume():
    assert case_by_name("fcc-Fe").a ** 3 / 4 == pytest.approx(2.87**3 / 2)
    magnesium = bulk("Mg")  # hcp in its ground state
    assert case_by_name("bcc-Mg").a ** 3 / 2 == pytest.approx(magnesium.get_volume() / 2)


def test_supercell_can_be_chosen():
    assert case_by_name("bcc-Fe", supercell=(3, 3, 3)).supercell == (3, 3, 3)


def test_cell_has_no_moments_and_the_wanted_size():
    cell = conventional_cell(case_by_name("bcc-Fe"), 2.9)
    assert cell.cell.lengths() == pytest.approx([2.9] * 3)
    assert not cell.has("initial_magmoms")
    assert cell.pbc.all()


@pytest.mark.parametrize(("name", "lattice", "a"), [("Fe", "bcc", 2.9), ("Cu", "fcc", 3.7), ("Si", "diamond", 5.5)])
@pytest.mark.parametrize("cubic", [True, False])
def test_structure_file_of_a_crystal(tmp_path, name, lattice, a, cubic):
    write(tmp_path / "cell.cif", bulk(name, lattice, a=a, cubic=cubic).repeat((2, 1, 1)))
    case = case_by_name(tmp_path / "cell.cif")
    assert (case.name, case.element, case.lattice) == (f"{lattice}-{name}", name, lattice)
    assert case.a == pytest.approx(a, abs=1e-4)


def test_files_of_other_things_are_refused(tmp_path):
    write(tmp_path / "hcp.vasp", bulk("Mg"))
    write(tmp_path / "b2.vasp", bulk("NiAl", "cesiumchloride", a=2.9))
    write(tmp_path / "molecule.xyz", Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]]))
    (tmp_path / "broken.cif").write_text("no structure here")
    for name, words in [
        ("hcp.vasp", "P6_3/mmc"),
        ("b2.vasp", "one element"),
        ("molecule.xyz", "three-dimensional"),
        ("broken.cif", "cannot be read"),
    ]:
        with pytest.raises(InputError, match=words):
            case_by_name(tmp_path / name)


@pytest.mark.parametrize("name", ["bcc-Xx", "sc-Mg", "iron", "bcc-", "nowhere.cif"])
def test_unknown_names_say_what_is_allowed(name):
    with pytest.raises(InputError, match="LATTICE-ELEMENT"):
        case_by_name(name)


def test_an_element_without_a_crystal_needs_a_file():
    with pytest.raises(InputError, match="structure file"):
        case_by_name("bcc-At")
