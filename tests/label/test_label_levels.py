"""Levels of theory: what decides numbers separates labels, what only describes a cell does not."""

from __future__ import annotations

import pytest
from ase import units

from aldriver.core import recipe_label
from aldriver.core.errors import InputError
from aldriver.label.levels import Levels, describe, differences, pseudos, settings_digest, wanted_settings

QE = {
    "code": "Quantum ESPRESSO", "functional": "PBE", "cutoff_eV": 816.342, "density_cutoff_eV": 6530.7,
    "smearing": "Gaussian", "width_eV": 0.136, "spin": True, "kpoints": [4, 4, 4],
    "pseudopotentials": {"Fe": "Fe.UPF md5:" + "a" * 32},
}  # fmt: skip


def test_labels_of_one_level_stay_together_whatever_their_cell_and_elements():
    levels = Levels()
    assert levels.index(QE) == 0
    assert levels.index(QE | {"kpoints": [2, 2, 2]}) == 0
    copper = {"Cu": "Cu.UPF md5:" + "c" * 32}
    assert levels.index(QE | {"pseudopotentials": QE["pseudopotentials"] | copper}) == 0
    assert levels.index(QE | {"pseudopotentials": copper}) == 0
    assert levels.index(QE | {"pseudopotentials": {"Cu": "Cu.UPF md5:" + "d" * 32}}) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cutoff_eV": 680.0}, "cutoff_eV is 680.0, not 816.342"),
        ({"functional": "PBEsol"}, "functional is PBEsol, not PBE"),
        ({"smearing": "fixed"}, "smearing"),
        ({"spin": False}, "spin is False"),
        ({"pseudopotentials": {"Fe": "Fe.UPF md5:" + "b" * 32}}, "pseudopotential of Fe"),
        ({"hubbard": "U(Fe) 4"}, None),  # the other one says nothing of it
    ],
)
def test_what_decides_numbers_separates(change, says):
    levels = Levels()
    levels.index(QE)
    assert levels.index(QE | change) == 1
    found = differences(QE | change, QE)
    assert (says is None and not found) or (len(found) == 1 and says in found[0])
    assert settings_digest(QE | change) != settings_digest(QE)


def test_words_of_codes_and_files_do_not_separate():
    renamed = {"Fe": "Fe-copy.UPF md5:" + "a" * 32}
    assert differences(QE | {"smearing": "gaussian", "pseudopotentials": renamed, "cutoff_eV": 816.34}, QE) == []


def test_potcar_titles_are_of_the_element_they_name():
    titles = ["PAW_PBE Fe_pv 02Aug2007", "PAW_PBE O 08Apr2002"]
    assert pseudos({"pseudopotentials": titles}) == {"Fe": titles[0], "O": titles[1]}
    here, there = ({"code": "VASP", "pseudopotentials": [f"PAW_PBE {p} 02Aug2007"]} for p in ("Fe_pv", "Fe"))
    assert differences(here, there) == [
        "the pseudopotential of Fe is PAW_PBE Fe_pv 02Aug2007, not PAW_PBE Fe 02Aug2007"
    ]


def test_a_recipe_says_what_outputs_must_say():
    block = recipe_label.Label(
        engine="espresso",
        espresso={"pseudopotentials": {"Fe": "Fe.UPF"}, "ecutwfc_Ry": 60, "ecutrho_Ry": 480, "kpoints": (4, 4, 4),
                  "smearing": "gaussian", "degauss_Ry": 0.01, "spin": True, "starting_magnetization": {"Fe": 0.4}},
    )  # fmt: skip
    wanted = wanted_settings(block)
    fits = QE | {"cutoff_eV": 60 * units.Ry, "density_cutoff_eV": 480 * units.Ry, "pseudopotentials": {}}
    assert differences(fits, wanted) == []
    assert differences(fits | {"kpoints": [2, 2, 2]}, wanted) == ["kpoints is 2x2x2, not 4x4x4"]
    assert differences(fits | {"code": "VASP"}, wanted) == ["code is VASP, not Quantum ESPRESSO"]
    with pytest.raises(InputError, match="stand-in"):
        wanted_settings(recipe_label.Label(engine="calculator", reference="eam:x"))


def test_a_level_in_words():
    assert describe(QE).startswith("Quantum ESPRESSO: PBE, 816.342 eV, Gaussian 0.136 eV, spin (")
    assert "not stated" in describe({"code": "unknown"})
