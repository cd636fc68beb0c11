from __future__ import annotations

import hashlib

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from pydantic import ValidationError

from aldriver.core.errors import InputError
from aldriver.core.recipe_label import Vasp
from aldriver.label.vasp_input import (
    drift,
    find_potcar,
    functional_name,
    grid_of,
    numbers,
    same_structure,
    vasp_inputs,
    write_inputs,
)


def alloy() -> Atoms:
    atoms = bulk("Cu", a=3.75, cubic=True)
    atoms.symbols = ["Cu", "Al", "Cu", "Al"]
    atoms.rattle(0.05, seed=2)
    return atoms


def settings(**changes) -> Vasp:
    return Vasp(**({"kpoints": (2, 2, 2), "potcars": {"Cu": "Cu_pv", "Al": "Al"}} | changes))


def test_an_interleaved_alloy_is_sorted_and_its_values_come_back(tmp_path):
    frame = alloy()
    inputs = vasp_inputs(frame, settings())
    assert inputs.atoms.get_chemical_symbols() == ["Cu", "Cu", "Al", "Al"]
    np.testing.assert_array_equal(inputs.back(inputs.atoms.positions), frame.positions)
    write_inputs(tmp_path, inputs, settings(), comment="x", potcars=False)
    from ase.io.vasp import read_vasp

    assert same_structure(read_vasp(tmp_path / "POSCAR"), inputs.atoms)
    assert (tmp_path / "POTCAR.spec").read_text().split() == ["Cu_pv", "Al"]
    assert not (tmp_path / "POTCAR").exists()


def test_settings_are_those_that_force_labels_need():
    incar = vasp_inputs(alloy(), settings()).incar
    wanted = {"NSW": 0, "IBRION": -1, "ISIF": 2, "EDIFF": 1e-6, "ISYM": 0, "LREAL": False, "ISMEAR": 0, "ENCUT": 520}
    wanted |= {"PREC": "Accurate", "LASPH": True, "LWAVE": False, "LCHARG": False, "LORBIT": 11, "LDAU": False}
    assert {k: incar.get(k) for k in wanted} == wanted  # EDIFF does not grow with the cell, no tetrahedra


def test_starting_moments_are_the_recipes_and_never_the_frames():
    frame = alloy()
    frame.set_initial_magnetic_moments([9, 9, 9, 9])
    incar = vasp_inputs(frame, settings(magmoms={"Cu": 0.3, "Al": 0.1})).incar
    assert incar["ISPIN"] == 2
    assert incar["MAGMOM"] == [0.3, 0.3, 0.1, 0.1]
    incar = vasp_inputs(frame, settings(spin=False)).incar
    assert incar["ISPIN"] == 1 and "MAGMOM" not in incar


def test_u_is_where_the_recipe_puts_it_and_nowhere_else():
    salt = Atoms("CoCl2", positions=[[0, 0, 0], [2, 2, 2], [1, 3, 2]], cell=np.eye(3) * 5, pbc=True)
    on = vasp_inputs(salt, settings(hubbard_u_eV={"Co": 5.76}))
    assert (on.incar["LDAU"], on.incar["LDAUTYPE"]) == (True, 2)
    assert (on.incar["LDAUU"], on.incar["LDAUL"], on.incar["LDAUJ"]) == ([5.76, 0], [2, 0], [0, 0])
    oxide = Atoms("CoO", positions=[[0, 0, 0], [2, 2, 2]], cell=np.eye(3) * 4, pbc=True)
    off = vasp_inputs(oxide, settings()).incar  # the Materials Project would put 3.32 eV on it
    assert off["LDAU"] is False and "LDAUU" not in off
    assert functional_name(settings(hubbard_u_eV={"Co": 5.76})) == "PBE+U (Co 5.76)"
    assert numbers(settings()) != numbers(settings(hubbard_u_eV={"Co": 5.76}))


@pytest.mark.parametrize(
    ("incar", "words"),
    [({"PSTRESS": 10}, "p·V"), ({"ISMEAR": -5}, "tetrahedra"), ({"nsw": 3}, "one ionic step"), ({"ISIF": 0}, "stress")],
)
def test_tags_that_spoil_labels_are_refused(incar, words):
    with pytest.raises(ValidationError, match=words):
        settings(incar=incar)
    with pytest.raises(ValidationError, match="kspacing_per_A"):
        Vasp()


def test_a_frozen_grid_may_not_become_less_dense():
    cell = bulk("Cu", a=3.6, cubic=True)
    frozen = settings(kpoints=(6, 6, 6), kspacing_per_A=0.3)  # 2π / 3.6 / 6 = 0.291
    assert grid_of(cell, frozen) == (6, 6, 6)
    larger = cell.copy()
    larger.set_cell(cell.cell * 1.03, scale_atoms=True)
    assert grid_of(larger, frozen) == (6, 6, 6)  # also where MP's rule would jump to another
    smaller = cell.copy()
    smaller.set_cell(cell.cell * 0.95, scale_atoms=True)
    with pytest.raises(InputError, match="6x6x6"):
        grid_of(smaller, frozen)


def test_a_spacing_alone_gives_the_least_dense_grid_that_keeps_it():
    made = settings(kpoints=None, kspacing_per_A=0.3)
    for factor in (0.9, 1.0, 1.3):
        cell = bulk("Cu", a=3.6 * factor, cubic=True).repeat((1, 2, 1))
        grid = np.array(grid_of(cell, made))
        lengths = 2 * np.pi / cell.cell.lengths()
        assert (lengths / grid <= 0.3 + 1e-9).all()
        assert (lengths / np.maximum(grid - 1, 1e-9) > 0.3).all()


def test_potcars_are_found_and_identified_by_what_they_hold(monkeypatch, tmp_path):
    folder = tmp_path / "POT_GGA_PAW_PBE"
    folder.mkdir()
    text = "  PAW_PBE Fe 06Sep2000\n   TITEL  = PAW_PBE Fe 06Sep2000\n"
    (folder / "POTCAR.Fe").write_text(text)
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(tmp_path))
    found = find_potcar("Fe", "PBE")
    assert found.titel == "PAW_PBE Fe 06Sep2000"
    assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert find_potcar("Fe_pv", "PBE") is None
    eight = settings(potcars={"Fe": "Fe"})
    before = numbers(eight)
    (folder / "POTCAR.Fe").write_text(text + "another release\n")
    assert numbers(eight) != before
    out = tmp_path / "run"
    out.mkdir()
    frame = bulk("Fe", a=2.85, cubic=True)
    record = write_inputs(out, vasp_inputs(frame, eight), eight, comment="x", potcars=True)
    assert record["Fe"]["titel"] == "PAW_PBE Fe 06Sep2000"
    assert "another release" in (out / "POTCAR").read_text()


def test_where_things_lie_and_how_vasp_is_run_is_not_part_of_the_numbers():
    assert numbers(settings(command="srun vasp_std", incar={"NCORE": 4})) == numbers(settings())
    assert numbers(settings(encut_eV=400)) != numbers(settings())
    assert numbers(settings(potcars={"Cu": "Cu", "Al": "Al"})) != numbers(settings())


def test_drift_knows_which_tags_decide_numbers():
    intended = {"ALGO": "Fast", "SIGMA": 0.05, "LREAL": False, "LDAUU": [5.76, 0], "PREC": "Accurate"}
    assert drift(intended, intended | {"ALGO": "All", "NELM": 200, "AMIX": 0.1, "LREAL": ".FALSE."}) == ""
    assert drift(intended, intended | {"SIGMA": 0.2}) == "SIGMA 0.05 became 0.2"
    assert drift(intended, intended | {"LREAL": "Auto"}) == "LREAL False became Auto"
    assert "LDAUU" in drift(intended, intended | {"LDAUU": [0, 5.76]})
    assert "ISMEAR (not set) became 2" in drift(intended, intended | {"ISMEAR": 2})
    assert drift(intended, {"SIGMA": 0.05}, subset=True) == ""


def test_same_structure_sees_swapped_and_moved_atoms_but_not_wrapping():
    frame = alloy()
    wrapped = frame.copy()
    wrapped.positions += frame.cell[0] * 3 - frame.cell[2]
    assert same_structure(frame, wrapped)
    assert not same_structure(frame, frame[[1, 0, 2, 3]])
    assert not same_structure(frame, frame[[2, 1, 0, 3]])  # the same species, another order
    moved = frame.copy()
    moved.positions[2] += 1e-4
    assert not same_structure(frame, moved)
