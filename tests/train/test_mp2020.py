"""MP2020 corrections against the published table and against a published data set that carries both energies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.spacegroup import crystal

from aldriver.core.errors import InputError
from aldriver.core.frames import read_frames
from aldriver.potentials.base import Potential
from aldriver.train.energies import reference_energy
from aldriver.train.mp2020 import mp2020_correction, with_corrected_energies

OXYGEN, SULFUR, IRON = -0.687, -0.503, -2.256  # eV/atom: Wang et al., Sci. Rep. 11, 15496 (2021), Table 1


def haematite() -> Atoms:
    return crystal(
        ["Fe", "O"],
        [(0, 0, 0.3553), (0.3059, 0, 0.25)],
        spacegroup=167,
        cellpar=[5.035, 5.035, 13.747, 90, 90, 120],
    )


def test_magnesia_is_corrected_for_its_oxygen():
    atoms = bulk("MgO", "rocksalt", a=4.212, cubic=True)
    assert mp2020_correction(atoms, {"run_type": "PBE"}) == pytest.approx(4 * OXYGEN)


def test_a_sulphide():
    assert mp2020_correction(bulk("ZnS", "zincblende", a=5.41), {"run_type": "PBE"}) == pytest.approx(SULFUR)


def test_iron_oxide_with_u_is_corrected_for_both():
    atoms = haematite()
    assert atoms.get_chemical_formula() == "Fe12O18"
    value = mp2020_correction(atoms, {"run_type": "PBE+U", "hubbards": {"Fe": 5.3}})
    assert value == pytest.approx(12 * IRON + 18 * OXYGEN)


@pytest.mark.parametrize("atoms", [bulk("Fe"), bulk("NiAl", "cesiumchloride", a=2.887)])
def test_metals_are_not_corrected(atoms: Atoms):
    assert mp2020_correction(atoms, {"run_type": "PBE"}) == 0.0


@pytest.mark.parametrize("parameters", [{}, {"run_type": "r2SCAN"}, {"run_type": "LDA"}])
def test_other_methods_are_refused(parameters: dict):
    with pytest.raises(InputError, match="PBE or PBE\\+U"):
        mp2020_correction(bulk("Fe"), parameters)


def test_an_iron_oxide_without_u_is_refused():
    with pytest.raises(InputError, match="no MP2020 correction"):
        mp2020_correction(haematite(), {"run_type": "PBE"})


def test_chgnet_is_compared_with_corrected_energies_others_with_raw():
    atoms = bulk("MgO", "rocksalt", a=4.212)
    atoms.calc = SinglePointCalculator(atoms, energy=-12.0)
    frame = with_corrected_energies([atoms], {"run_type": "PBE"})[0]

    def of(family: str) -> Potential:
        return type("Named", (), {"family": family})()

    assert reference_energy(frame, of("chgnet")) == pytest.approx(-12.0 + OXYGEN)
    assert reference_energy(frame, of("mace")) == -12.0
    assert "energy_corrected" not in atoms.info


def test_against_wbm(shared_data: Path):
    """Every second cell of a published set whose authors give raw and corrected energies."""
    frames = read_frames(shared_data / "forgetting" / "wbm_even_486.extxyz")[::2]
    own, published = [], []
    for atoms in frames:
        parameters = {"run_type": "PBE"} | _materials_project_u(atoms)
        own.append(mp2020_correction(atoms, parameters))
        published.append(atoms.info["energy_corrected"] - atoms.get_potential_energy())
    assert np.count_nonzero(published) > 50
    np.testing.assert_allclose(own, published, atol=1e-3)


def _materials_project_u(atoms: Atoms) -> dict:
    """U is used in oxides and fluorides (of the most electronegative element) of nine metals."""
    values = {"Co": 3.32, "Cr": 3.7, "Fe": 5.3, "Mn": 3.9, "Mo": 4.38, "Ni": 6.2, "V": 3.25, "W": 6.2}
    symbols = set(atoms.get_chemical_symbols())
    hubbards = {s: values[s] for s in symbols & set(values)} if symbols & {"O", "F"} else {}
    return {"run_type": "PBE+U", "hubbards": hubbards} if hubbards else {}
