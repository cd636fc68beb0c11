"""Forms for pair styles the wheel lacks: made, evaluated outside LAMMPS, never called exported; a check goes with them."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from aldriver.core.frames import write_frames
from aldriver.core.units import EV_A3_TO_BAR
from aldriver.export import program_forms as forms
from aldriver.export.driver import run_input
from aldriver.export.form import Form
from aldriver.export.inputs import lammps_input
from aldriver.export.mliap_cell import MLIAPCell
from aldriver.export.program_forms import PROGRAMS, program_forms
from aldriver.export.vendor import vendor_form
from aldriver.testing.small_mace import small_mace


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Forms of a small MACE, and the folder they were made into."""
    folder = tmp_path_factory.mktemp("an export")
    (folder / "check").mkdir()
    potential = small_mace(("Fe",), heads=("pt_head", "Default"), head="pt_head")
    cell = bulk("Fe", "bcc", a=2.85, cubic=True)
    own = vendor_form(potential, folder, cell)
    programs = tuple(p for p in PROGRAMS["mace"] if p.package == "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(forms.PROGRAMS, "mace", programs)
        return folder, program_forms(potential, folder, cell, own)


def test_each_is_made_and_evaluated_and_not_called_exported(exported):
    folder, found = exported
    assert [form.form for form in found] == ["pair_style mace", "pair_style mliap unified"]
    for form in found:
        assert form.status == "not_run" and "check it there" in form.reason
        assert form.max_dE < 1e-4 and form.max_dF < 2e-4 and form.max_dS < 32
        assert all((folder / name).is_file() for name in form.files)
    assert "pair_coeff * * mace-lammps.pt ${elements}" in (folder / "in.mace").read_text()
    assert "pair_style mliap unified mace-mliap.pt 0" in (folder / "in.mliap").read_text()


def test_what_differs_is_failed_and_what_cannot_be_made_says_why(exported, monkeypatch):
    folder, _ = exported
    potential = small_mace(("Fe",), heads=("pt_head", "Default"), head="pt_head")
    own = Form(form="mace", status="exported", files=("potential.model",))
    cell = bulk("Fe", "bcc", a=2.85, cubic=True)
    zeros = {"energy": 0.0, "forces": np.zeros((2, 3)).tolist(), "stress": [0.0] * 6}
    monkeypatch.setattr(forms, "_made", lambda command: zeros)
    assert {f.status for f in program_forms(potential, folder, cell, own)} == {"failed"}
    monkeypatch.setattr(forms, "_made", lambda command: zeros | {"energy": float("nan")})
    assert {f.status for f in program_forms(potential, folder, cell, own)} == {"failed"}
    monkeypatch.setattr(forms, "_made", lambda command: {"error": "No module named 'symmetrix'"})
    last = program_forms(potential, folder, cell, own)[-1]
    assert last.status == "not_available" and "pip install symmetrix-xl" in last.reason
    failed = dataclasses.replace(own, status="failed")
    assert all(f.status == "not_available" for f in program_forms(potential, folder, cell, failed))


def test_only_networks_have_such_forms(eam_fe, tmp_path):
    assert program_forms(eam_fe, tmp_path, bulk("Fe", cubic=True), None) == []


def test_the_stand_in_for_lammps_does_its_sums():
    """A pair potential through it, against ASE's own: energy, forces and stress."""
    atoms = bulk("Ar", "fcc", a=5.0, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.01, rc=8.0, smooth=False)

    class Unified:
        def compute_forces(self, data):
            r = np.linalg.norm(data.rij, axis=1)
            x = (3.4 / r) ** 6
            energy = 0.5 * (0.04 * (x * x - x) - 0.04 * ((3.4 / 8.0) ** 12 - (3.4 / 8.0) ** 6))
            np.add.at(data.eatoms, data.pair_i, energy)
            data.energy = data.eatoms.sum()
            slope = 0.5 * 0.04 * (-12 * x * x + 6 * x) / r  # dE/dr of half a pair: its force on i is along rij
            data.update_pair_forces(slope[:, None] * data.rij / r[:, None])

    found = MLIAPCell(atoms, 8.0, ["Ar"]).evaluate(Unified())
    assert found["energy"] == pytest.approx(atoms.get_potential_energy())
    np.testing.assert_allclose(found["forces"], atoms.get_forces(), atol=1e-10)
    np.testing.assert_allclose(found["stress"], atoms.get_stress(), atol=1e-12)


def test_the_check_that_goes_with_an_export(eam_fe, tmp_path):
    """Its script on a run of LAMMPS itself: good with the right numbers, wrong with others; plain Python."""
    atoms = bulk("Fe", "bcc", a=2.85) * (2, 2, 2)  # not lower triangular
    atoms.rattle(0.05, seed=2)
    (tmp_path / "check").mkdir()
    truth = eam_fe.evaluate([atoms])[0]
    forms._write_check(tmp_path, atoms, ["Fe"], truth)
    (tmp_path / "in.native").write_text(
        lammps_input(title="t", run="t", elements=["Fe"], pair_style="eam/fs", potential_file="fe.eam.fs")
    )
    (tmp_path / "md").mkdir()
    shutil.copy(eam_fe.file, tmp_path / "md" / "fe.eam.fs")
    run_input(tmp_path / "in.native", atoms, tmp_path / "md", potential=None, variables={"steps": 0})
    command = [sys.executable, "-I", str(tmp_path / "check" / "compare.py"), str(tmp_path / "md")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("good") == 3, done.stdout + done.stderr
    expected = json.loads((tmp_path / "check" / "expected.json").read_text())
    assert expected["pressure_bar"] == pytest.approx(-truth.stress[:3].mean() * EV_A3_TO_BAR)
    expected["forces_eV_A"][3][1] += 0.01
    (tmp_path / "check" / "expected.json").write_text(json.dumps(expected))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "forces_eV_A" in done.stdout and done.stdout.count("WRONG") == 1


@pytest.mark.skipif("symmetrix" not in sys.modules and not shutil.which("c++"), reason="symmetrix needs a compiler")
def test_symmetrix_agrees(tmp_path):
    pytest.importorskip("symmetrix")
    shape = {"correlation": 3, "max_ell": 3, "hidden_irreps": "8x0e", "MLP_irreps": "8x0e"}
    potential = small_mace(("Fe",), **shape)
    from aldriver.potentials.vendor import save_vendor

    save_vendor(potential, tmp_path / "x.model")
    atoms = bulk("Fe", "bcc", a=2.85, cubic=True)
    atoms.rattle(0.05, seed=1)
    write_frames(tmp_path / "x.extxyz", [atoms])
    command = [sys.executable, "-m", "aldriver.export.make_mace", "symmetrix"]
    command += [str(tmp_path / name) for name in ("x.model", "x.json", "x.extxyz")]
    found = forms._made(command)
    assert "error" not in found, found
    np.testing.assert_allclose(found["forces"], potential.evaluate([atoms])[0].forces, atol=2e-4)
