"""Files of other programs: read by that program's own code they give the same numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from bundle_helpers import FORMAT_1
from chgnet.model import CHGNet
from pymatgen.io.ase import AseAtomsAdaptor

from aldriver import load
from aldriver.core.errors import InputError
from aldriver.core.units import EV_A3_TO_GPA, voigt_to_matrix
from aldriver.potentials.chgnet_vendor import read_checkpoint
from aldriver.potentials.vendor import VENDORS, save_vendor, vendor_of


def refined(potential):
    """The potential with weights that no package holds."""
    changed = potential.copy()
    with torch.no_grad():
        for parameter in changed.module.mlp.parameters():
            parameter.add_(0.003)
    return changed.with_module(changed.module, name="refined")


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0"])
def test_chgnets_own_code_reads_the_file_and_agrees(version, fe_frames, tmp_path):
    potential = refined(load(f"chgnet:{version}"))
    model = CHGNet.from_file(str(save_vendor(potential, tmp_path / "refined.pth.tar")))
    for atoms in fe_frames[1:]:
        p = potential.evaluate([atoms])[0]
        theirs = model.predict_structure(AseAtomsAdaptor.get_structure(atoms))
        assert float(theirs["e"]) == pytest.approx(p.energy / len(atoms), abs=2e-6)
        np.testing.assert_allclose(theirs["f"], p.forces, atol=2e-5)
        np.testing.assert_allclose(theirs["s"], voigt_to_matrix(p.stress) * EV_A3_TO_GPA, atol=2e-4)


def test_the_snippet_of_the_documentation_runs(fe_frames, tmp_path):
    """As pasted by a user: in a process of its own, without aldriver."""
    potential = refined(load("chgnet:0.2.0"))
    save_vendor(potential, tmp_path / "refined.pth.tar")
    fe_frames[2].write(tmp_path / "fe.extxyz")
    code = VENDORS["chgnet"].snippet.format(file="refined.pth.tar")
    code += "from ase.io import read\natoms = read('fe.extxyz')\natoms.calc = calculator\n"
    code += "print(repr(float(atoms.get_potential_energy())))\nimport sys\nassert 'aldriver' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    energy = float(done.stdout.split()[-1])
    assert energy == pytest.approx(potential.evaluate([fe_frames[2]])[0].energy, abs=1e-4)


def test_a_file_is_read_back(fe_frames, tmp_path):
    potential = refined(load(FORMAT_1))
    path = save_vendor(potential, tmp_path / "x.pth.tar")
    again = read_checkpoint(path, name="again")
    assert again.fingerprint == potential.fingerprint
    assert again.evaluate(fe_frames)[1].energy == potential.evaluate(fe_frames)[1].energy


def test_double_precision_is_written_as_chgnet_computes(tmp_path, chgnet020_double):
    path = save_vendor(chgnet020_double, tmp_path / "x.pth.tar")
    saved = torch.load(path, weights_only=True)["model"]["state_dict"]
    assert {t.dtype for t in saved.values() if t.is_floating_point()} == {torch.float32}


def test_what_cannot_be_written_is_refused(eam_fe, tmp_path):
    potential = load(FORMAT_1)
    with pytest.raises(InputError, match="no file format of another program"):
        save_vendor(eam_fe, tmp_path / "x.pth.tar")
    with pytest.raises(InputError, match=r"end in \.pth\.tar"):
        save_vendor(potential, tmp_path / "x.model")
    with pytest.raises(InputError, match="does not exist"):
        save_vendor(potential, tmp_path / "no" / "x.pth.tar")
    save_vendor(potential, tmp_path / "x.pth.tar")
    with pytest.raises(InputError, match="exists already"):
        save_vendor(potential, tmp_path / "x.pth.tar")
    assert vendor_of(potential).program == "chgnet"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"weights": 1}, "there is no 'model'"),
        ([1, 2], "there is no 'model'"),
        ({"model": {"model_args": {"atom_fea_dim": 8}, "state_dict": {}}}, "do not fit"),
        ({"model": {"model_args": {"no_such_argument": 8}, "state_dict": {}}}, "do not fit"),
        ("text", "there is no 'model'"),
    ],
)
def test_files_that_are_something_else(content, says, tmp_path):
    torch.save(content, tmp_path / "x.pth.tar")
    with pytest.raises(InputError, match=says):
        read_checkpoint(tmp_path / "x.pth.tar", name="x")


def test_files_that_are_no_torch_files(tmp_path):
    (tmp_path / "x.pth.tar").write_bytes(b"no such thing")
    with pytest.raises(InputError, match="not a CHGNet file"):
        read_checkpoint(tmp_path / "x.pth.tar", name="x")
