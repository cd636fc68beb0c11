"""Exports run by themselves and agree with their parent; a form that does not agree is not called exported."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

import aldriver
from aldriver.core.errors import InputError
from aldriver.core.store import is_published, verify
from aldriver.core.units import EV_A3_TO_BAR
from aldriver.export.compare import compare_run, read_run, read_thermo
from aldriver.export.driver import main, run_input
from aldriver.export.inputs import lammps_input
from aldriver.export.lammps import export_potential

ROOT = Path(__file__).resolve().parents[2]


def forms_of(result):
    return {form["form"]: form for form in result["forms"]}


@pytest.fixture(scope="module")
def eam_export(eam_fe, tmp_path_factory):
    """Exported once: (result, folder); the path has a space, as users' paths do."""
    folder = tmp_path_factory.mktemp("an export") / "out"
    detector = tmp_path_factory.mktemp("detector")
    (detector / "config.json").write_text('{"thresholds": {}}')
    return export_potential(eam_fe, folder, detector_dir=detector), folder


def test_eam_runs_in_both_forms_and_agrees(eam_export):
    result, _ = eam_export
    forms = forms_of(result)
    assert set(forms) == {"fix external", "pair_style eam/fs"}
    for form in forms.values():
        assert form["status"] == "exported" and form["reason"] == ""
        assert form["frames"] == 3
        assert form["max_dE"] <= 1e-5 and form["max_dF"] <= 2e-5 and form["max_dS"] <= 1.0


def test_the_folder_is_complete_and_sealed(eam_export, eam_fe):
    result, folder = eam_export
    assert is_published(folder)
    verify(folder)
    assert json.loads((folder / "export.json").read_text()) == json.loads(json.dumps(result))
    for name in ("in.lammps", "in.native", "run_lammps.py", "card.md", "config.json", "detector/config.json"):
        assert (folder / name).is_file()
    again = aldriver.load(folder)
    assert again.fingerprint == eam_fe.fingerprint == result["fingerprint"]
    card = (folder / "card.md").read_text()
    assert eam_fe.fingerprint in card and "| fix external | exported |" in card and "detector/" in card


def test_an_export_runs_on_another_cell(eam_export, eam_fe, tmp_path):
    """What a user does: the script in a process of its own, another structure, several frames, NPT."""
    _, folder = eam_export
    atoms = bulk("Fe", "bcc", a=2.85) * (3, 3, 3)  # primitive: not orthogonal
    write(tmp_path / "POSCAR", atoms)
    out = tmp_path / "md run"
    command = [sys.executable, str(folder / "run_lammps.py"), "POSCAR", "--out", str(out), "--steps", "40"]
    command += ["--every", "10", "--ensemble", "npt", "--flexible", "aniso", "--temperature", "600", "--pressure", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    deviation = compare_run(out, eam_fe, every=10)
    assert deviation.frames == 5 and deviation.problem() == ""
    assert read_thermo(out / "log.lammps")[0]["Temp"] == pytest.approx(600.0)


def test_chgnet_is_exported_through_fix_external(chgnet020, tmp_path):
    result = export_potential(chgnet020, tmp_path / "out", structure=bulk("Fe", "bcc", a=2.85, cubic=True))
    forms = forms_of(result)
    assert forms["fix external"]["status"] == "exported"
    assert forms["fix external"]["max_dF"] <= 2e-5
    assert forms["pair_style"]["status"] == "not_available" and "no pair style" in forms["pair_style"]["reason"]
    assert aldriver.load(tmp_path / "out").fingerprint == chgnet020.fingerprint
    assert "No detector" in (tmp_path / "out" / "card.md").read_text()


def test_a_form_that_disagrees_is_not_exported(eam_fe, tmp_path, monkeypatch):
    """The comparison is made with the potential at hand: let it say something else than the files."""
    truth = type(eam_fe).evaluate

    def other(self, frames, **kwargs):
        return [dataclasses.replace(p, forces=p.forces + 1e-3) for p in truth(self, frames, **kwargs)]

    monkeypatch.setattr("aldriver.potentials.bundle._probe", lambda potential: [])
    monkeypatch.setattr(type(eam_fe), "evaluate", other)
    result = export_potential(eam_fe, tmp_path / "out")
    for form in result["forms"]:
        assert form["status"] == "failed" and "forces" in form["reason"]
        assert form["max_dF"] == pytest.approx(1e-3, rel=1e-3)


def test_a_form_that_does_not_run_says_why(eam_fe, tmp_path, monkeypatch):
    monkeypatch.setattr("aldriver.export.lammps.lammps_input", lambda **kwargs: "units metal\nno_such_command\n")
    result = export_potential(eam_fe, tmp_path / "out")
    for form in result["forms"]:
        assert form["status"] == "failed" and "no_such_command" in form["reason"]
    assert "failed" in (tmp_path / "out" / "card.md").read_text()


def test_not_finite_deviations_are_problems(eam_export, eam_fe):
    _, folder = eam_export
    deviation = compare_run(folder / "check" / "external", eam_fe, every=5)
    assert deviation.problem() == ""
    for key in ("max_dE", "max_dF", "max_dS"):
        assert dataclasses.replace(deviation, **{key: float("nan")}).problem()


def test_bad_input_is_refused(eam_fe, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="never overwritten"):
        export_potential(eam_fe, tmp_path / "there")
    with pytest.raises(InputError, match="Cu"):
        export_potential(eam_fe, tmp_path / "a", structure=bulk("Cu", cubic=True))
    with pytest.raises(InputError, match="periodic"):
        export_potential(eam_fe, tmp_path / "a", structure=Atoms("Fe"))
    with pytest.raises(InputError, match="no such detector"):
        export_potential(eam_fe, tmp_path / "a", detector_dir=tmp_path / "nowhere")
    assert not (tmp_path / "a").exists()


@pytest.fixture
def external(tmp_path):
    path = tmp_path / "in.external"
    path.write_text(lammps_input(title="test", run="test", elements=["Fe"]))
    return path


def test_the_driver_says_what_is_wrong(tmp_path, external, capsys):
    structure = tmp_path / "fe.extxyz"
    write(structure, bulk("Fe", cubic=True))
    given = ["--input", str(external), "--out", str(tmp_path / "md"), "--steps", "2", "--every", "1"]
    assert main([str(tmp_path / "no.extxyz"), *given, "--potential", "eam:Fe_mm.eam.fs"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main([str(structure), *given]) == 2
    assert "name the potential" in capsys.readouterr().err
    assert main([str(structure), "--input", str(tmp_path / "in.none")]) == 2
    assert "no such LAMMPS input" in capsys.readouterr().err
    assert main([str(structure), *given, "--potential", "eam:Al_mm.eam.fs"]) == 2
    assert "does not know the element Fe" in capsys.readouterr().err
    assert main([str(structure), *given, "--potential", "eam:Fe_mm.eam.fs", "--ensemble", "nve"]) == 0


def test_a_potential_that_fails_inside_lammps_is_heard(eam_fe, tmp_path, external, monkeypatch):
    """Errors and NaN of a step end the run with their message; the working directory is put back."""
    from aldriver.core.errors import AldriverError
    from aldriver.potentials.base import Stepper

    class Sick(Stepper):
        def __init__(self, inner, how):
            self.inner, self.how, self.calls = inner, how, 0

        def __call__(self, positions, cell, *, stress=True, features=False):
            self.calls += 1
            p = self.inner(positions, cell, stress=stress)
            if self.calls < 4:
                return p
            if self.how == "nan":
                return dataclasses.replace(p, energy=np.nan)
            raise RuntimeError("out of memory")

    here, healthy = Path.cwd(), type(eam_fe).stepper
    variables = {"steps": 10, "every": 5}
    for how, error, says in (("nan", AldriverError, "not finite at step 3"), ("raise", RuntimeError, "out of memory")):
        monkeypatch.setattr(type(eam_fe), "stepper", lambda self, a, how=how: Sick(healthy(self, a), how))
        with pytest.raises(error, match=says):
            run_input(external, bulk("Fe", cubic=True), tmp_path / how, potential=eam_fe, variables=variables)
        assert Path.cwd() == here


def test_species_keep_their_places(tmp_path, external):
    """Sites of two elements in an order LAMMPS does not use; the dump names them, the forces follow the sites."""
    potential = aldriver.load("eam:AlCu.eam.alloy")
    first, second = sorted(potential.elements)[:2]
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True) * (2, 1, 1)
    atoms.set_chemical_symbols([second, first, first, second, first, second, second, first])
    atoms.rattle(0.08, seed=3)
    run_input(external, atoms, tmp_path / "md", potential=potential, variables={"steps": 4, "every": 2})
    start = read_run(tmp_path / "md", 2)[0][0]
    assert start.get_chemical_symbols() == atoms.get_chemical_symbols()
    np.testing.assert_allclose(start.get_forces(), potential.evaluate([atoms])[0].forces, atol=1e-9)
    assert compare_run(tmp_path / "md", potential, every=2).problem() == ""


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "langevin", "npt", "deform"])
def test_the_templates_run_in_plain_lammps(eam_fe, tmp_path, ensemble):
    """``lmp -in in.nvt -var ...`` as the README says, without aldriver."""
    atoms = bulk("Fe", "bcc", a=2.86, cubic=True) * (3, 3, 3)
    write(tmp_path / "structure.data", atoms, format="lammps-data", masses=True, force_skew=True)
    lmp = Path(sys.executable).with_name("lmp")
    if not lmp.exists():
        pytest.skip("no lmp beside this Python")
    command = [str(lmp), "-in", str(ROOT / "lammps_inputs" / f"in.{ensemble}"), "-screen", "none"]
    command += ["-var", "potential", str(eam_fe.file), "-var", "steps", "20", "-var", "T", "500"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    thermo = read_thermo(tmp_path / "log.lammps")
    assert thermo[0]["Temp"] == pytest.approx(500.0)
    if ensemble == "nve":
        assert thermo[20]["TotEng"] == pytest.approx(thermo[0]["TotEng"], abs=2e-3)
    frames = read(tmp_path / "dump.lammpstrj", index=":", format="lammps-dump-text")
    assert len(frames) == 3 and (tmp_path / "last.restart").is_file()
    if ensemble in ("nve", "nvt", "npt"):  # dumped forces hold the random ones of Langevin, boxes the next deformation
        assert compare_run(tmp_path, eam_fe, every=10).problem() == ""
    if ensemble == "deform":
        assert frames[-1].cell[2, 2] / atoms.cell[2, 2] - 1 == pytest.approx(0.001 * 0.020, rel=1e-6)


def test_the_templates_are_what_the_code_writes():
    import runpy

    written = runpy.run_path(str(ROOT / "lammps_inputs" / "write_inputs.py"))["templates"]()
    for name, text in written.items():
        assert (ROOT / "lammps_inputs" / name).read_text() == text


def test_units_of_a_logged_run(eam_fe, tmp_path, external):
    """1 % compression of Fe: the logged virial pressure is the potential's −tr σ/3 in bar, and positive."""
    atoms = bulk("Fe", "bcc", a=2.855 * 0.99, cubic=True)
    run_input(external, atoms, tmp_path / "md", potential=eam_fe, variables={"steps": 1, "every": 1})
    _, energy, stress = read_run(tmp_path / "md", 1)[0]
    p = eam_fe.evaluate([atoms])[0]
    assert energy == pytest.approx(p.energy, abs=1e-9)
    np.testing.assert_allclose(stress, p.stress, atol=1e-8)
    assert -stress[:3].mean() * EV_A3_TO_BAR > 4e4
