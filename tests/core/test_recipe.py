"""Recipes: what is accepted, and how every kind of mistake is explained."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt

from aldriver.core.errors import InputError
from aldriver.core.recipe import Recipe, json_schema, load_recipe, load_suite
from aldriver.core.section import Section

RECIPES = Path(__file__).resolve().parents[2] / "recipes"

MINIMAL = {
    "name": "fe",
    "systems": [{"name": "bulk", "bulk": {"element": "Fe", "lattice": "bcc", "a": 2.86}, "supercell": [2, 2, 2]}],
    "potential": "chgnet:0.2.0",
    "label": {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs"},
    "benchmark": {"cases": [{"name": "bcc-Fe", "element": "Fe", "lattice": "bcc", "a": 2.86}]},
}


@pytest.fixture
def write(tmp_path):
    def _write(change=None, text=None):
        data = copy.deepcopy(MINIMAL)
        if change is not None:
            change(data)
        path = tmp_path / "recipe.yaml"
        path.write_text(text if text is not None else yaml.safe_dump(data, sort_keys=False))
        return path

    return _write


def test_minimal_recipe_has_documented_defaults(write):
    recipe = load_recipe(write())
    assert recipe.detect.soap.r_cut == 5.0
    assert (recipe.detect.soap.n_max, recipe.detect.soap.l_max, recipe.detect.soap.sigma) == (8, 6, 0.375)
    assert recipe.explore.ensemble == "nvt"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_recipes_are_valid(path):
    assert load_recipe(path).name


def line_of(path, key):
    return next(i for i, line in enumerate(path.read_text().splitlines(), 1) if line.strip().startswith(key))


def test_unknown_key_names_line_and_neighbour(write):
    path = write(lambda d: d["label"].update(buget=3))
    with pytest.raises(InputError) as error:
        load_recipe(path)
    message = str(error.value)
    assert f"line {line_of(path, 'buget')}" in message
    assert "label.buget: unknown key; did you mean 'budget'?" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["explore"].update(ensemble="nvtt") if "explore" in d else d.update(explore={"ensemble": "nvtt"}),
         ["explore.ensemble", "'nve', 'nvt' or 'npt'", "'nvtt'"]),
        (lambda d: d.update(explore={"temperatures_K": [300, -5]}), ["explore.temperatures_K.1", "greater than 0", "-5"]),
        (lambda d: d.update(explore={"steps": 5, "sample_every": 10}), ["explore", "sample_every (10) is larger than steps"]),
        (lambda d: d.update(explore={"ensemble": "nve", "temperature_end_K": 500}), ["temperature_end_K needs a thermostat"]),
        (lambda d: d.update(explore={"pressure_end_GPa": 5}), ["pressure_end_GPa needs a barostat"]),
        (lambda d: d.update(explore={"ensemble": "npt", "deform_per_ps": {"zz": 1e-3}}), ["needs flexible: aniso"]),
        (lambda d: d.update(explore={"deform_per_ps": {"z": 1e-3}}), ["deform_per_ps.z", "'xx'"]),
        (lambda d: d.update(explore={"swaps": {"pairs": [["Fe", "Fe"]]}}), ["swaps", "two different elements"]),
        (lambda d: d.update(explore={"lammps_input": "in.no"}), ["explore.lammps_input", "in.no does not exist"]),
        (lambda d: d["systems"][0].update(periodic=[True, True, False], supercell=[1, 1, 2]), ["cannot be repeated"]),
        (lambda d: (d["systems"][0].update(periodic=[True, True, False], supercell=[2, 2, 1]), d["label"].update(
            engine="gpaw", gpaw={"ecut_eV": 300})), ["not periodic in all directions", "gpaw"]),
        (lambda d: d["systems"][0]["bulk"].update(element="Qq"), ["systems.0.bulk.element", "'Qq' is not a chemical element"]),
        (lambda d: d["systems"][0].pop("bulk"), ["systems.0", "either `file` or `bulk`"]),
        (lambda d: d["systems"].append(d["systems"][0]), ["systems", "two systems are called 'bulk'"]),
        (lambda d: d["label"].pop("reference"), ["label", "needs the block or key `reference`"]),
        (lambda d: d["label"].update(audit=30), ["label", "audit (30) is larger than the budget"]),
        (lambda d: d.pop("potential"), ["potential", "required, but not given"]),
        (lambda d: d.update(name="no spaces allowed"), ["name", "no spaces allowed"]),
        (lambda d: d["systems"][0].update(supercell=[0, 1, 1]), ["supercell repeats"]),
        (lambda d: d["systems"][0].update(file="nowhere.cif", bulk=None), ["systems.0.file", "nowhere.cif does not exist"]),
        (lambda d: d.update(test={"file": "no.extxyz"}), ["test.file", "no.extxyz does not exist"]),
    ],
)  # fmt: skip
def test_bad_values_are_explained(write, change, expected):
    with pytest.raises(InputError) as error:
        load_recipe(write(change))
    for text in expected:
        assert text in str(error.value)


def test_every_problem_is_listed_at_once(write):
    with pytest.raises(InputError) as error:
        load_recipe(write(lambda d: (d.pop("potential"), d["label"].update(budget=0))))
    assert len(str(error.value).splitlines()) == 2


def test_reference_md_needs_a_calculator(write):
    def change(data):
        data["label"] = {
            "engine": "espresso",
            "espresso": {"pseudopotentials": {"Fe": "Fe.UPF"}, "ecutwfc_Ry": 30},
        }
        data["test"] = {"temperatures_K": [300]}

    with pytest.raises(InputError, match="needs label.engine 'calculator'"):
        load_recipe(write(change))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: fe\n  systems: [\n", "line 2: not valid YAML"),
        ("name: a\nname: b\n", "line 2: key 'name' is given twice"),
        ("- just\n- a list\n", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("name: !!python/object:os.system {}\n", "not valid YAML"),
    ],
)
def test_malformed_yaml(write, text, expected):
    with pytest.raises(InputError, match="recipe.yaml") as error:
        load_recipe(write(text=text))
    assert expected in str(error.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_recipe(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="cannot be read as text"):
        load_recipe(binary)


def test_digest_depends_on_meaning_not_on_layout(write):
    first = load_recipe(write()).digest()
    assert load_recipe(write(lambda d: d.update(seed=0))).digest() == first  # seed 0 is the default
    assert load_recipe(write(lambda d: d.update(seed=1))).digest() != first


def test_schema_describes_every_section():
    schema = json_schema()
    assert set(Recipe.model_fields) == set(schema["properties"])
    assert schema["additionalProperties"] is False


def _blocks(model):
    return {model}.union(*(_blocks(sub) for sub in model.__subclasses__()))


@pytest.mark.parametrize("block", sorted(_blocks(Section), key=lambda b: b.__name__))
def test_no_bound_of_a_field_overrides_another(block):
    """Of two bounds of a kind pydantic checks but one, and not the narrower one."""
    for name, field in block.model_fields.items():
        kinds = [type(bound) for bound in field.metadata if isinstance(bound, Gt | Ge | Lt | Le)]
        assert len(kinds) == len(set(kinds)), name


@pytest.mark.parametrize("value", [".inf", ".nan", "0.9"])
def test_numbers_that_are_none_and_bounds_of_volumes_are_refused(value, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"properties: [qha]\ncases: [fcc-Cu]\nqha: {{largest: {value}}}\n")
    with pytest.raises(InputError, match=r"qha\.largest"):
        load_suite(suite)
