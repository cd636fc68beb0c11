"""The file of the program a potential comes from: tried by that program before it counts as exported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase.build import bulk

import aldriver
from aldriver.core.frames import write_frames
from aldriver.export import lammps
from aldriver.export.lammps import export_potential
from aldriver.export.vendor import vendor_form
from aldriver.potentials import vendor
from aldriver.testing.small_mace import small_mace

FORMAT_1 = Path(__file__).resolve().parents[1] / "potentials" / "data" / "format-1"


@pytest.fixture
def cell():
    return bulk("Fe", "bcc", a=2.85, cubic=True)


@pytest.fixture
def small(request):
    if request.param == "mace of two heads":
        return small_mace(("Fe",), heads=("pt_head", "Default"), head="pt_head")
    return {"chgnet": lambda: aldriver.load(FORMAT_1), "mace": lambda: small_mace(("Fe",))}[request.param]()


@pytest.mark.parametrize("small", ["chgnet", "mace", "mace of two heads"], indirect=True)
def test_the_program_reads_its_file_and_agrees(small, cell, tmp_path):
    (tmp_path / "check").mkdir()
    form = vendor_form(small, tmp_path, cell)
    assert (form.form, form.status, form.reason) == (small.family, "exported", "")
    assert (tmp_path / form.files[0]).is_file()
    assert form.max_dE < 1e-4 and form.max_dF < 2e-4 and form.max_dS < 32


def test_eam_comes_from_no_program(eam_fe, cell, tmp_path):
    assert vendor_form(eam_fe, tmp_path, cell) is None


def test_a_file_with_other_weights_is_not_exported(cell, tmp_path, monkeypatch):
    potential = aldriver.load(FORMAT_1)
    changed = potential.copy()
    with torch.no_grad():
        list(changed.module.mlp.parameters())[-1].add_(0.3)
    original = vendor.save_vendor
    monkeypatch.setattr("aldriver.potentials.vendor.save_vendor", lambda p, path: original(changed, path))
    (tmp_path / "check").mkdir()
    form = vendor_form(potential, tmp_path, cell)
    assert form.status == "failed" and "is not the potential" in form.reason


def test_a_file_that_cannot_be_read_is_not_exported(cell, tmp_path, monkeypatch):
    def broken(potential, path):
        path.write_bytes(b"nothing")
        return path

    monkeypatch.setattr("aldriver.potentials.vendor.save_vendor", broken)
    (tmp_path / "check").mkdir()
    form = vendor_form(aldriver.load(FORMAT_1), tmp_path, cell)
    assert form.status == "failed" and "cannot read its file" in form.reason


def test_the_card_shows_what_was_tried(cell, tmp_path, monkeypatch):
    """The lines of the card, pasted into a Python that sees the folder."""
    monkeypatch.setattr(lammps, "_forms", lambda *_: [])
    training = {"n_train": 12, "n_valid": 3, "strategy": "f4", "e0_shift": {"Fe": -4.3}, "parent": "0" * 16}
    result = export_potential(aldriver.load(FORMAT_1), tmp_path / "out", structure=cell, training=training)
    assert [f["status"] for f in result["forms"]] == ["exported"]
    card = (tmp_path / "out" / "card.md").read_text()
    assert "strategy f4, 12 labelled frames, 3 for validation" in card and "| chgnet | exported |" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    write_frames(tmp_path / "out" / "x.extxyz", [cell])
    code += "from ase.io import read\natoms = read('x.extxyz')\natoms.calc = calculator\nprint(atoms.get_potential_energy())\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    energy = aldriver.load(tmp_path / "out").evaluate([cell])[0].energy
    assert float(done.stdout.split()[-1]) == pytest.approx(energy, abs=1e-4)
    from aldriver.potentials.bundle import describe_bundle, recorded_shift

    assert recorded_shift(tmp_path / "out") == {"Fe": -4.3}
    assert describe_bundle(tmp_path / "out")["parent"] == "0" * 16
