from __future__ import annotations

import json
from pathlib import Path

import pytest

from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.reference import published, reference_cases, reference_sets
from aldriver.benchmark.suite import PROTOCOLS
from aldriver.core.recipe_benchmark import Benchmark

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "reference"
CASE = case_by_name("bcc-Fe")
UNITS = {
    name: unit
    for p in PROTOCOLS.values()
    for name, unit in p.units(CASE, getattr(Benchmark(cases=[CASE]), p.name, None)).items()
}


@pytest.mark.parametrize("case", reference_cases())
def test_every_set_has_a_source_and_the_suite_s_names_and_units(case):
    assert case_by_name(case).name == case
    for entry in reference_sets(case):
        assert len(entry.source) > 20
        assert entry.kind in ("dft", "potential")
        assert set(entry.values) <= set(entry.units)
        assert all(UNITS[name] == unit for name, unit in entry.units.items())
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
    for name, row in (
        ("DFT", fe["bulk"]["dft_this_study"]),
        ("DFT (Meng 2021)", fe["bulk"]["dft_literature"]),
        ("DFT (Zhang 2023)", fe["bulk"]["mlpeg"]),
        ("chgnet:0.2.0", fe["models_published"]["CHGNet_0.2.0"]),
        ("chgnet:0.2.0 fine-tuned (Mohandas 2026)", fe["models_published"]["CHGNet_0.2.0_finetuned"]),
    ):
        assert published("bcc-Fe", name).values == {names[k]: v for k, v in row.items() if k in names}
    names = {"a0": "lattice_constant", "B": "bulk_modulus", "Ev": "vacancy_formation_energy"}
    names |= {"C11": "c11", "C12": "c12", "C44": "c44"}
    for element, row in json.loads((SHARED / "elements.json").read_text())["dft"].items():
        case = f"{row['lattice']}-{element}"
        assert published(case).values == {names[k]: v for k, v in row.items() if k in names}
    cu, mo = published("fcc-Cu", "mace-mp-0b fine-tuned (Liu 2025)"), published("bcc-Mo", "mace-mp-0")
    models = json.loads((SHARED / "elements.json").read_text())["models"]
    assert [cu.values["c44"], cu.values["vacancy_formation_energy"]] == [models["Cu"][k][0] for k in ("C44", "Ev")]
    assert [mo.values["c44"], mo.values["vacancy_formation_energy"]] == [
        models["Mo"][f"base_{k}"][1] for k in ("C44", "Ev")
    ]
