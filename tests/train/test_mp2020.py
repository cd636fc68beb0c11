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
from aldriver.core.frames import read_frames, write_frames
from aldriver.potentials import load
from aldriver.potentials.base import Potential
from aldriver.potentials.bundle import save_bundle
from aldriver.potentials.families import energy_scale_of
from aldriver.train.energies import reference_energy
from aldriver.train.mp2020 import mp2020_correction, scale_of_labels, with_corrected_energies
from aldriver.train.prepare import on_scale, on_scale_of, settle_scale

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

    def of(scale: str) -> Potential:
        return type("Named", (), {"energy_scale": scale})()

    assert reference_energy(frame, of("mp2020")) == pytest.approx(-12.0 + OXYGEN)
    assert reference_energy(frame, of("")) == -12.0
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


def labelled(atoms: Atoms, level: str, energy: float = -12.0) -> Atoms:
    out = atoms.copy()
    out.calc = SinglePointCalculator(out, energy=energy, forces=np.zeros((len(out), 3)))
    out.info["level"] = level
    return out


PBE, PBE_U = (
    "vasp: PBE, PAW 520 eV, k-grid 2x2x2 (0badcafe)",
    "vasp: PBE+U (Fe 5.3), PAW 520 eV, k-grid 2x2x2 (0badcafe)",
)
MAGNESIA = bulk("MgO", "rocksalt", a=4.212)


def test_labels_of_vasp_are_corrected_where_chgnet_learns_them():
    frames = [labelled(MAGNESIA, PBE), labelled(bulk("Fe"), PBE)]
    oxide, metal = on_scale(frames, "mp2020")
    assert oxide.get_potential_energy() == pytest.approx(-12.0 + OXYGEN)
    assert metal.get_potential_energy() == -12.0
    assert [a.get_potential_energy() for a in frames] == [-12.0, -12.0]  # what is stored stays raw
    again = on_scale([oxide, metal], "mp2020")
    assert [a.get_potential_energy() for a in again] == [a.get_potential_energy() for a in (oxide, metal)]


def test_u_is_read_from_the_level():
    corrected = on_scale([labelled(haematite(), PBE_U)], "mp2020")[0]
    assert corrected.get_potential_energy() == pytest.approx(-12.0 + 12 * IRON + 18 * OXYGEN)


def test_only_chgnets_of_pbe_learn_corrected_energies(chgnet030, tmp_path):
    refs = {
        "chgnet:0.2.0": "mp2020",
        "chgnet:0.3.0": "mp2020",
        "chgnet:r2scan": "",
        "mace:x": "",
        "sevennet:7net-0": "",
    }
    assert {ref: energy_scale_of(ref) for ref in refs} == refs
    r2scan = load("chgnet:r2scan")
    for potential, scale in ((chgnet030, "mp2020"), (r2scan, "")):
        folder = save_bundle(potential, tmp_path / potential.name.replace(":", "-"))
        assert potential.energy_scale == load(folder).energy_scale == energy_scale_of(folder) == scale
        (frame,) = on_scale_of(potential, [labelled(MAGNESIA, PBE)])
        assert frame.get_potential_energy() == pytest.approx(-12.0 + (OXYGEN if scale else 0.0))


def test_no_other_scale_has_corrected_energies():
    assert on_scale([labelled(MAGNESIA, PBE)], "")[0].get_potential_energy() == -12.0


@pytest.mark.parametrize(
    "level",
    [
        "espresso: PBE, plane waves 40 Ry, k-grid 2x2x2 (0badcafe)",
        "gpaw: PBE, PAW, plane waves 500 eV, k-grid 2x2x2 (0badcafe)",
        "vasp: stand-in for VASP, not DFT (PBE, PAW 520 eV, k-grid 2x2x2) (0badcafe)",
        "vasp: PBEsol, PAW 520 eV, k-grid 2x2x2 (0badcafe)",
        "vasp: PBE+D (IVDW 12), PAW 520 eV, k-grid 2x2x2 (0badcafe)",
        "",
    ],
)
def test_no_other_level_is_corrected(level: str):
    assert on_scale([labelled(MAGNESIA, level)], "mp2020")[0].get_potential_energy() == -12.0


def test_all_labels_of_a_set_are_corrected_or_none():
    """An iron oxide without U has no correction; correcting the magnesia beside it would put a step into the set."""
    frames = on_scale([labelled(MAGNESIA, PBE), labelled(haematite(), PBE)], "mp2020")
    assert [a.get_potential_energy() for a in frames] == [-12.0, -12.0]


def test_what_stayed_as_computed_is_not_corrected_later(tmp_path):
    """Of a set that holds an iron oxide without U, the magnesia alone goes through a file into a training."""
    magnesia, _ = on_scale([labelled(MAGNESIA, PBE), labelled(haematite(), PBE)], "mp2020")
    write_frames(tmp_path / "train.extxyz", [magnesia])
    again = on_scale(read_frames(tmp_path / "train.extxyz", labelled=True), "mp2020")
    assert again[0].get_potential_energy() == -12.0
    assert scale_of_labels(again) == ""


def test_a_refined_potential_keeps_to_the_scale_of_its_labels(chgnet030, tmp_path):
    oxide = [labelled(haematite(), PBE)]
    for frames, scale in (([labelled(MAGNESIA, PBE)], "mp2020"), ([labelled(MAGNESIA, PBE), *oxide], "")):
        refined = chgnet030.copy()
        settle_scale(refined, on_scale_of(chgnet030, frames))
        back = load(save_bundle(refined, tmp_path / f"refined-{scale}"))
        assert back.energy_scale == scale
        (energy,) = [a.get_potential_energy() for a in on_scale_of(back, [labelled(MAGNESIA, PBE)])]
        assert energy == pytest.approx(-12.0 + (OXYGEN if scale else 0.0))
        if scale:
            with pytest.raises(InputError, match=r"the other labels have .*MP2020.*Invalid U value"):
                on_scale_of(back, oxide)
        else:
            assert on_scale_of(back, oxide)[0].get_potential_energy() == -12.0
    assert chgnet030.energy_scale == "mp2020" and "energy_scale" not in chgnet030.arch
    other = chgnet030.copy()
    settle_scale(other, [labelled(MAGNESIA, "gpaw: PBE, PAW (0badcafe)")])
    assert "energy_scale" not in other.arch  # its fingerprint stays what it would be


def test_a_refusal_is_told_in_short():
    with pytest.raises(InputError, match="Invalid U value") as error:
        mp2020_correction(haematite(), {"run_type": "PBE"})
    assert len(str(error.value)) < 400
