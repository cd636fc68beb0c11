"""The identity of a code: the version a recipe names holds on every host, a hash where there is none; outputs must fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from label_stubs import fake_espresso, script, silicon

from aldriver.core import recipe
from aldriver.core.errors import InputError
from aldriver.label import label_frame, make_labeler
from aldriver.label.cache import find_label
from aldriver.label.program import Program, version_problem

ENGINES = {
    "espresso": {"command": "pw.x", "pseudopotentials": {"Si": "none.upf"}, "ecutwfc_Ry": 20},
    "vasp": {"command": "vasp_std", "potcars": {"Si": "Si"}, "kpoints": (1, 1, 1)},
    "cp2k": {"command": "cp2k.psmp", "basis": {"Si": "SZV"}, "potential": {"Si": "GTH"}, "cutoff_Ry": 200},
    "gpaw": {"command": "/no/such/python", "ecut_eV": 200},
    "ase": {"command": "/no/such/python", "calculator": "tblite.ase:TBLite"},
}


@pytest.fixture
def bare_host(monkeypatch, tmp_path):
    """A host without any engine; returns a folder on its PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def labeler(engine, **changes):
    return make_labeler(recipe.Label.model_validate({"engine": engine, engine: ENGINES[engine] | changes}), ["Si"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_named_version_is_the_code_on_every_host(engine, bare_host):
    named, spec = labeler(engine, version="7.2")
    plain, plain_spec = labeler(engine)
    assert named.code_id.endswith("7.2")
    assert plain.code_id == f"{engine}:absent"
    assert labeler(engine, version="7.3")[0].code_id != named.code_id
    assert spec.digest() == plain_spec.digest()  # it names a code, not a level of theory


@pytest.mark.parametrize("engine", ["espresso", "vasp", "cp2k"])
def test_without_a_version_another_binary_is_another_code(engine, bare_host):
    found = []
    for body in ("exit 0", "exit 1"):
        script(bare_host / ENGINES[engine]["command"], body)
        found.append((labeler(engine)[0].code_id, labeler(engine, version="7.2")[0].code_id))
    (first, named), (second, still) = found
    assert first != second
    assert named == still


def test_a_label_made_on_a_node_is_found_where_the_code_is_not(tmp_path):
    node, spec = fake_espresso(tmp_path, "cat $OUT", version="6.7")
    label = label_frame(silicon(), node, spec, tmp_path / "labels")
    assert label.ok, label.reason
    (tmp_path / "pw.x").unlink()
    _, found = find_label(silicon(), node, spec, tmp_path / "labels")
    assert found is not None and found.ok


def test_an_output_of_another_version_is_refused(tmp_path):
    labeler, spec = fake_espresso(tmp_path, "cat $OUT", version="7.2")
    label = label_frame(silicon(), labeler, spec, tmp_path / "labels")
    assert label.status == "rejected"
    assert label.reason == "espresso 6.7MaX computed it, the recipe says 7.2 (label.espresso.version)"


def test_an_installed_package_of_another_version_is_refused(tmp_path):
    block = {"calculator": "ase.calculators.emt:EMT"}
    copper = silicon()
    copper.symbols[:] = "Cu"
    for version, status in (("3", "ok"), ("99.1", "rejected")):
        settings = recipe.Label.model_validate({"engine": "ase", "ase": block | {"version": version}})
        label = label_frame(copper, *make_labeler(settings, ["Cu"]), tmp_path)
        assert label.status == status, label.reason


@pytest.mark.parametrize(
    ("wanted", "used", "fits"),
    [("6.4", "6.4.2", True), ("6.4", "6.41", False), ("6.7", "6.7MaX", True), ("6.4.2", "6.4", False), ("7", "", False),
     (None, "", True)],
)  # fmt: skip
def test_what_a_version_covers(wanted, used, fits):
    assert (version_problem("vasp", wanted, used) == "") is fits


def test_the_program_within_a_command_line(bare_host):
    program = Program(engine="vasp", command="srun -p vasp --job-name=vasp-1 vasp_std", default="v", pattern="vasp")
    assert program.name == "vasp_std"
    assert program.missing() == ["srun", "vasp_std"]
    script(bare_host / "srun", "exit 0")
    assert program.missing() == ["vasp_std"]
    assert replace(program, command="").words == ["v"]
    with pytest.raises(InputError, match=r"label\.vasp\.command.*quotation"):
        _ = replace(program, command="srun 'vasp_std").words


@pytest.mark.parametrize("engine", ENGINES)
def test_a_frame_is_not_blamed_for_an_engine_that_is_not_there(engine, bare_host, tmp_path, monkeypatch):
    """With a version named the key is the same once the engine is there: a stored failure would stand in its way."""
    monkeypatch.delenv("PMG_VASP_PSP_DIR", raising=False)
    label = label_frame(silicon(), *labeler(engine, version="7.2"), tmp_path / "labels")
    assert label.status == "failed"
    assert "PATH" in label.reason or "could not be started" in label.reason
    assert list((tmp_path / "labels").iterdir()) == []


def test_a_launcher_that_does_not_find_the_program_is_no_failure_of_the_frame(tmp_path, bare_host):
    script(bare_host / "mpirun", "exit 127")
    node, spec = fake_espresso(tmp_path, "cat $OUT", command="mpirun pw.x", version="6.7")
    label = label_frame(silicon(), node, spec, tmp_path / "labels")
    assert (label.status, label.reason) == ("failed", "pw.x crashed (exit status 127)")
    assert list((tmp_path / "labels").iterdir()) == []
    there, spec = fake_espresso(tmp_path, "/bin/cat $OUT", version="6.7")
    assert label_frame(silicon(), there, spec, tmp_path / "labels").ok


def test_a_calculator_that_is_not_installed_is_no_failure_of_the_frame(tmp_path):
    block = {"calculator": "ase.calculators.no_such_module:Nothing", "version": "3"}
    made = make_labeler(recipe.Label.model_validate({"engine": "ase", "ase": block}), ["Si"])
    label = label_frame(silicon(), *made, tmp_path / "labels")
    assert label.status == "failed" and "No module named" in label.reason
    assert list((tmp_path / "labels").iterdir()) == []
