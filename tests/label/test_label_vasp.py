"""The VASP labeler with the stand-in in place of VASP: real inputs, real processes, real files, known truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from label_stubs import script

from aldriver.core import recipe, recipe_label
from aldriver.core.errors import StoreError
from aldriver.label import label_frame, make_labeler
from aldriver.label.levels import differences, wanted_settings
from aldriver.label.vasp_input import functional_name
from aldriver.label.vasp_output import read_vasp

pytest.importorskip("custodian", reason="custodian, which runs VASP, is not installed")
STANDIN = f"{sys.executable} -m aldriver.testing.vasp_standin --calculator emt"


def alloy(seed: int = 3) -> Atoms:
    """Eight atoms, species interleaved, one atom outside the cell."""
    atoms = bulk("Cu", a=3.75, cubic=True).repeat((2, 1, 1))
    atoms.symbols = ["Cu", "Al"] * 4
    atoms.rattle(0.1, seed=seed)
    atoms.positions[0] -= atoms.cell[0]
    return atoms


def standin(options: str = "", *, retries: int = 0, timeout_s: float = 300.0, **changes):
    vasp = {"command": f"{STANDIN} {options}", "kpoints": (1, 2, 2), "magmoms": {"Cu": 0.6, "Al": 0.2}} | changes
    return make_labeler(recipe.Label(engine="vasp", vasp=vasp, retries=retries, timeout_s=timeout_s), ["Cu", "Al"])


@pytest.fixture
def absent(monkeypatch, tmp_path):
    monkeypatch.delenv("PMG_VASP_PSP_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    vasp = {"command": "srun vasp_std", "potcars": {"Si": "Si", "Fe": "Fe_pv"}, "kpoints": (1, 1, 1)}
    return make_labeler(recipe.Label(engine="vasp", vasp=vasp), ["Si", "Fe", "Cu"])


def test_everything_that_is_missing_is_named(absent):
    text = "\n".join(absent[0].preflight())
    for words in (
        "'srun' was not found",
        "'vasp_std' was not found",
        "PMG_VASP_PSP_DIR is not set",
        "no POTCAR for Cu",
    ):
        assert words in text


def test_what_is_there_is_not_called_missing(absent, monkeypatch, tmp_path):
    for name in ("srun", "vasp_std"):
        script(tmp_path / "bin" / name, "exit 0")
    potcars = tmp_path / "psp" / "POT_GGA_PAW_PBE"
    potcars.mkdir(parents=True)
    (potcars / "POTCAR.Fe_pv").write_text("TITEL = PAW_PBE Fe_pv 06Sep2000\n")
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(tmp_path / "psp"))
    problems = absent[0].preflight()
    assert not any("PATH" in p or "Fe_pv" in p for p in problems)
    assert any("no POTCAR 'Si' for Si" in p for p in problems)
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(tmp_path / "nowhere"))
    assert any("not a folder" in p for p in absent[0].preflight())


def test_without_vasp_a_label_is_the_reason(absent, tmp_path):
    frame = bulk("Si", a=5.43)
    label = label_frame(frame, *absent, tmp_path / "labels")
    assert label.status == "failed"
    assert label.reason.startswith("vasp is not available: ")


def test_spin_is_asked_for_where_it_matters():
    vasp = {"command": "vasp_std", "kpoints": (1, 1, 1), "spin": False}
    labeler, spec = make_labeler(recipe.Label(engine="vasp", vasp=vasp), ["Fe"])
    assert any("without spin" in w for w in labeler.warnings())
    assert spec.method == "PBE, PAW 520 eV, k-grid 1x1x1"


def test_the_label_of_an_interleaved_alloy_is_the_truth_in_the_frames_order(tmp_path):
    frame = alloy()
    truth = frame.copy()
    truth.calc = EMT()
    labeler, spec = standin()
    assert labeler.preflight() == []
    label = label_frame(frame, labeler, spec, tmp_path)
    assert label.ok, label.reason
    assert label.free_energy == pytest.approx(truth.get_potential_energy(), abs=1e-7)
    assert label.energy - label.free_energy == pytest.approx(1e-4 * len(frame), abs=1e-7)  # half of T·S
    np.testing.assert_allclose(label.forces, truth.get_forces(), atol=1e-7)
    np.testing.assert_allclose(label.stress, truth.get_stress(), atol=1e-9)
    np.testing.assert_allclose(label.magmoms, [0.6, 0.2] * 4)
    p = label.provenance
    assert p["stand_in"] is True and "stand-in" in spec.method
    assert (p["kpoints"], p["cutoff"], p["scf_steps"], p["energy_is"]) == ([1, 2, 2], 520, 9, "E(sigma->0)")
    kept = {x.name for x in (tmp_path / label.key).iterdir()}
    assert {"INCAR", "KPOINTS", "POSCAR", "POTCAR.spec", "OSZICAR", "vasprun.xml.gz", "OUTCAR.gz"} <= kept
    assert not kept & {"POTCAR", "vasprun.xml", "OUTCAR", "process.json", "request.json", "inputs.json"}
    assert label_frame(frame, labeler, spec, tmp_path).cached
    (again,) = read_vasp(tmp_path / label.key)  # and the packed files read as the same label
    assert again.label.energy == label.energy and again.label.provenance["stand_in"] is True


def test_version_5_writes_its_energy_wrong_and_it_is_read_right(tmp_path):
    frame = bulk("Cu", a=3.7)
    label = label_frame(frame, *standin("--version 5.4.4", kpoints=(1, 1, 1)), tmp_path)
    truth = frame.copy()
    truth.calc = EMT()
    assert label.ok, label.reason
    assert label.energy == pytest.approx(truth.get_potential_energy() + 1e-4, abs=1e-7)
    other = label_frame(frame, *standin("--version 5.4.4", version="6.4", kpoints=(1, 1, 1)), tmp_path / "6")
    assert other.status == "rejected" and "vasp 5.4.4 computed it" in other.reason


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("truncated", "failed", "breaks off"),
        ("crash", "failed", "SIGSEGV"),
        ("garbage", "failed", "breaks off"),
    ],
)
def test_a_run_that_breaks_says_how(fault, status, words, tmp_path):
    labeler, spec = standin(f"--fault {fault}", corrections=0)
    label = label_frame(alloy(), labeler, spec, tmp_path)
    assert (label.status, label.energy) == (status, None)
    assert words in label.reason
    assert label.provenance["stand_in"] is True


def test_a_crash_is_tried_again_with_the_same_input(tmp_path):
    label = label_frame(alloy(), *standin("--fault crash_once", retries=1, corrections=0), tmp_path)
    assert label.ok, label.reason
    assert label.provenance["retries"] == 1 and label.provenance["corrections"] == []


def test_unconverged_electrons_get_another_algorithm_and_nothing_else(tmp_path):
    label = label_frame(alloy(), *standin("--fault unconverged_once"), tmp_path)
    assert label.ok, label.reason
    (correction,) = label.provenance["corrections"]
    assert correction["errors"] == ["Unconverged"]
    assert correction["actions"][0]["action"] == {"_set": {"ALGO": "Normal"}}
    truth = alloy()
    truth.calc = EMT()
    assert label.free_energy == pytest.approx(truth.get_potential_energy(), abs=1e-7)


def test_electrons_that_never_converge_give_no_value(tmp_path):
    labeler, spec = standin("--fault unconverged", corrections=0, max_scf_steps=20)
    label = label_frame(alloy(), labeler, spec, tmp_path)
    assert label.status == "unconverged" and label.energy is None and label.forces is None
    assert "20 steps" in label.reason


def test_a_run_that_hangs_is_ended(tmp_path):
    label = label_frame(alloy(), *standin("--fault hang", timeout_s=6), tmp_path)
    assert label.status == "timeout"
    assert not _below(tmp_path)


def test_a_full_disk_is_not_the_frames_fault(tmp_path):
    with pytest.raises(StoreError, match="no space left"):
        label_frame(alloy(), *standin("--fault disk_full"), tmp_path)
    assert not [p for p in tmp_path.glob("*") if not p.name.startswith(".")]


def test_results_of_something_else_are_refused(tmp_path, monkeypatch):
    """A binary that calls itself VASP but is the stand-in; and a program that swaps two atoms on the way."""
    potcars = tmp_path / "psp"
    potcars.mkdir()
    for element in ("Cu", "Al"):
        (potcars / f"POTCAR.{element}").write_text(f"TITEL = PAW_PBE {element}\n")
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(potcars))
    named = {"Cu": "Cu", "Al": "Al"}
    vasp = script(tmp_path / "vasp_std", f"exec {STANDIN}")
    label = label_frame(alloy(), *standin(command=str(vasp), potcars=named), tmp_path / "a")
    assert label.status == "rejected" and "written by the stand-in" in label.reason
    wrapper = script(tmp_path / "vasp_standin_swapped", f"sed -i 's/^1.0$/1.01/' POSCAR; exec {STANDIN}")
    label = label_frame(alloy(), *standin(command=str(wrapper)), tmp_path / "b")
    assert label.status == "rejected" and "not the frame" in label.reason
    wrapper = script(tmp_path / "vasp_standin_settings", f"sed -i 's/^SIGMA.*/SIGMA = 0.4/' INCAR; exec {STANDIN}")
    label = label_frame(alloy(), *standin(command=str(wrapper)), tmp_path / "c")
    assert label.status == "rejected" and "SIGMA 0.05 became 0.4" in label.reason


def test_a_correction_that_changes_the_physics_ends_the_label(tmp_path):
    """ISMEAR 0 and SIGMA 0.05 are what custodian sets for this message."""
    program = script(tmp_path / "vasp_standin_tetrahedra", "echo 'Tetrahedron method fails'; exit 1")
    label = label_frame(alloy(), *standin(command=str(program), sigma_eV=0.1), tmp_path / "labels")
    assert label.status == "rejected", label.reason
    assert "SIGMA 0.1 became 0.05" in label.reason


def test_terminated_it_takes_vasp_with_it(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_label_vasp import alloy, standin\n"
        "from aldriver.label import label_frame\n"
        "label_frame(alloy(), *standin('--fault hang'), Path(sys.argv[1]))"
    )
    here = str(Path(__file__).parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(here).parents[1]), here])}
    for signum in (signal.SIGTERM, signal.SIGKILL):
        labels = tmp_path / signum.name
        process = subprocess.Popen([sys.executable, "-c", code, str(labels), here], env=env)
        deadline = time.monotonic() + 120
        while not list(labels.glob(".tmp-*/OSZICAR")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signum)
        process.wait(60)
        if signum == signal.SIGKILL:  # nobody could tell VASP: the next one to look ends it
            from aldriver.label import clean_orphans

            assert _below(labels)
            assert clean_orphans(labels, pattern=".tmp-*") >= 2
        assert not _below(labels)


def _below(folder: Path) -> list[int]:
    from aldriver.testing.label_storm import processes_below

    return processes_below(folder)


def test_the_stand_in_is_what_pymatgen_takes_for_vasp(tmp_path):
    from pymatgen.io.vasp.outputs import Oszicar, Outcar, Vasprun

    frame = alloy()
    label = label_frame(frame, *standin(), tmp_path)
    folder = tmp_path / label.key
    theirs = Vasprun(str(folder / "vasprun.xml.gz"), parse_potcar_file=False)
    assert theirs.converged and theirs.generator["program"].lower() == "aldriver-stand-in"
    assert float(theirs.final_energy) == pytest.approx(label.energy, abs=1e-7)
    outcar = Outcar(str(folder / "OUTCAR.gz"))
    assert [m["tot"] for m in outcar.magnetization] == [0.6] * 4 + [0.2] * 4
    assert float(Oszicar(str(folder / "OSZICAR")).final_energy) == pytest.approx(label.energy, abs=1e-5)
    assert json.loads((folder / "label.json").read_text())["provenance"]["code"] == "VASP stand-in"


def of_its_recipe(settings, **changes):
    """What tells an output from those of its recipe with changes; the stand-in names itself, which is not asked here."""
    vasp = {
        "kpoints": (1, 2, 2),
        "smearing": "methfessel-paxton",
        "sigma_eV": 0.2,
        "hubbard_u_eV": {"Co": 5.76, "Cu": 4},
    }
    wanted = wanted_settings(
        recipe.Label(engine="vasp", vasp=vasp | {"potcars": {"Cu": "Cu_pv", "Al": "Al"}} | changes)
    )
    return differences({**settings, "code": "VASP"}, wanted)


def test_a_label_taken_in_again_is_of_the_level_of_its_own_recipe_and_of_no_other(tmp_path):
    labeler, spec = standin(smearing="methfessel-paxton", sigma_eV=0.2, hubbard_u_eV={"Co": 5.76, "Cu": 4},
                            potcars={"Cu": "Cu_pv", "Al": "Al"})  # fmt: skip
    label = label_frame(alloy(), labeler, spec, tmp_path)
    (found,) = read_vasp(tmp_path / label.key)
    assert found.settings["functional"] == "PBE+U (Cu 4)"  # there is no Co in it
    assert of_its_recipe(found.settings) == []
    assert of_its_recipe(found.settings, encut_eV=450) == ["cutoff_eV is 520.0, not 450.0"]
    assert of_its_recipe(found.settings, hubbard_u_eV={"Cu": 5}) == ["functional is PBE+U (Cu 4), not PBE+U (Cu 5)"]
    assert of_its_recipe(found.settings, hubbard_u_eV={}) == ["functional is PBE+U (Cu 4), not PBE"]
    (other,) = of_its_recipe(found.settings, potcars={"Cu": "Cu", "Al": "Al"})
    assert other.startswith("the pseudopotential of Cu is PAW_PBE Cu_pv")
    assert len(of_its_recipe(found.settings, sigma_eV=0.1, spin=False, kpoints=(2, 2, 2))) == 3


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "PBE"),
        ({"potcar_functional": "LDA"}, "LDA"),
        ({"incar": {"GGA": "PS"}}, "PBEsol"),
        (
            {"incar": {"lhfcalc": True}},
            "hybrid of PBE (AEXX 0.25, screening 0)",
        ),  # no PBE: it must not be corrected as such
        ({"incar": {"METAGGA": "R2SCAN"}, "hubbard_u_eV": {"Fe": 2.3}}, "R2SCAN+U (Fe 2.3)"),
        ({"incar": {"IVDW": 12}}, "PBE+D (IVDW 12)"),
    ],
)
def test_a_recipe_names_its_functional_as_its_outputs_will(changes, name):
    assert functional_name(recipe_label.Vasp(kpoints=(1, 1, 1), **changes)) == name
