from __future__ import annotations

import json
from pathlib import Path

import pytest

from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.protocols import PROTOCOLS
from aldriver.benchmark.reference import published, reference_cases, reference_sets
from aldriver.core.recipe_benchmark import Benchmark

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "reference"

QUOTED = {("DFT (Meng 2021)", "Em_vac"), ("DFT (Meng 2021)", "mu")}


def units(name):
    case = case_by_name(name)
    settings = Benchmark(cases=[case])
    return {
        value: unit
        for p in PROTOCOLS.values()
        for value, unit in p.units(case, getattr(settings, p.name, None)).items()
    }


@pytest.mark.parametrize("case", reference_cases())
def test_every_set_has_a_source_and_the_suite_s_names_and_units(case):
    assert case_by_name(case).name == case
    for entry in reference_sets(case):
        assert len(entry.source) > 20
        assert entry.kind in ("dft", "potential")
        assert set(entry.values) <= set(entry.units)
        assert all(units(case)[name] == unit for name, unit in entry.units.items())
        assert (entry.functional in ("PBE", "PW91")) == (entry.kind == "dft")


@pytest.mark.parametrize("case", reference_cases())
def test_elastic_constants_are_consistent_and_stable(case):
    for entry in reference_sets(case):
        v = entry.values
        if "c11" in v:
            fits = v["bulk_modulus"] == pytest.approx((v["c11"] + 2 * v["c12"]) / 3, abs=1.01)
            assert fits != bool(entry.warning)  # what contradicts itself says so
            assert v["c11"] > v["c12"]


def test_unknown_crystals_have_none():
    assert reference_sets("bcc-Zr") == ()
    assert reference_sets("../bcc-Fe") == ()
    assert published("bcc-Zr") is None
    assert published("bcc-Fe", "no such potential") is None


def test_iron():
    assert {"bcc-Fe", "diamond-Si", "fcc-Cu"} <= set(reference_cases())
    assert published("bcc-Fe").values["vacancy_formation_energy"] == 2.19
    assert "cut" in published("bcc-Fe", "chgnet:0.2.0").note


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collection of reference values is not here")
def test_values_are_those_of_the_collection():
    fe = json.loads((SHARED / "fe.json").read_text())
    names = {"a": "lattice_constant", "B": "bulk_modulus", "C_prime": "c_prime", "C44": "c44"}
    names |= {"Ef_vac": "vacancy_formation_energy", "C11": "c11", "C12": "c12", "V0": "eos_volume"}
    names |= {"Em_vac": "vacancy_migration_energy", "mu": "magnetic_moment"}
    for name, row in (
        ("DFT", fe["bulk"]["dft_this_study"]),
        ("DFT (Meng 2021)", fe["bulk"]["dft_literature"]),
        ("DFT (Zhang 2023)", fe["bulk"]["mlpeg"]),
        ("chgnet:0.2.0", fe["models_published"]["CHGNet_0.2.0"]),
        ("chgnet:0.2.0 fine-tuned (Mohandas 2026)", fe["models_published"]["CHGNet_0.2.0_finetuned"]),
    ):
        # of the second, the moment and the barrier are other papers', quoted beside it
        printed = {names[k]: v for k, v in row.items() if k in names and (name, k) not in QUOTED}
        sites = row.get("oct_tet", {}) if "fine-tuned" not in name else {}
        printed |= {f"oct_minus_tet({x})": v for x, v in sites.items()}
        assert published("bcc-Fe", name).values == printed
    for k, name in enumerate(("DFT (Bialon 2013)", "DFT (Souissi 2016)")):
        printed = {f"oct_minus_tet({x})": v[k - 2] for x, v in fe["interstitial_oct_minus_tet"]["dft"].items()}
        assert published("bcc-Fe", name).values == printed
    assert published("bcc-Fe", "DFT (Domain 2001)").values == {
        "vacancy_migration_energy": fe["bulk"]["dft_literature"]["Em_vac"]
    }
    names = {"a0": "lattice_constant", "B": "bulk_modulus", "Ev": "vacancy_formation_energy"}
    names |= {"Em": "vacancy_migration_energy"}
    names |= {"C11": "c11", "C12": "c12", "C44": "c44"}
    for element, row in json.loads((SHARED / "elements.json").read_text())["dft"].items():
        case = f"{row['lattice']}-{element}"
        assert published(case).values == {names[k]: v for k, v in row.items() if k in names}
    cu, mo = published("fcc-Cu", "mace-mp-0b fine-tuned (Liu 2025)"), published("bcc-Mo", "mace-mp-0")
    silicon = json.loads((SHARED / "elements.json").read_text())["Si_Bartok"]
    bartok = published("diamond-Si", "DFT (Bartók 2018)").values
    found = {f"{what[:3]}_int": bartok[f"self_interstitial_energy({what})"] for what in ("hexagonal", "tetrahedral")}
    assert found | {"dumb_int": bartok["self_interstitial_energy(110)"]} == {
        k: v for k, v in silicon.items() if k.endswith("_int")
    }
    surfaces = {f"surf_{plane}": bartok[f"surface_energy({plane})"] for plane in ("111", "110")}
    assert surfaces == {k: v for k, v in silicon.items() if k.startswith("surf_")}
    models = json.loads((SHARED / "elements.json").read_text())["models"]
    keys = {"C44": "c44", "Ev": "vacancy_formation_energy", "Em": "vacancy_migration_energy"}
    assert [cu.values[name] for name in keys.values()] == [models["Cu"][k][0] for k in keys]
    assert [mo.values[name] for name in keys.values()] == [models["Mo"][f"base_{k}"][1] for k in keys]
