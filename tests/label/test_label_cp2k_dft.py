"""Cp2kLabeler with the real CP2K: forces, and the sign and size of the stress, against finite differences."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from aldriver.core import recipe
from aldriver.label import label_frame, make_labeler

pytestmark = [
    pytest.mark.dft,
    pytest.mark.skipif(shutil.which("cp2k.psmp") is None, reason="CP2K is not installed"),
    pytest.mark.skipif(not Path("/usr/share/cp2k/BASIS_MOLOPT").is_file(), reason="CP2K's data files are absent"),
]


def labeler(**changes):
    block = {
        "basis": {"H": "SZV-MOLOPT-SR-GTH"},
        "potential": {"H": "GTH-PBE-q1"},
        "cutoff_Ry": 400,
        "rel_cutoff_Ry": 60,
        "eps_scf": 1e-7,
    }
    return make_labeler(recipe.Label(engine="cp2k", cp2k=block | changes, timeout_s=300), ["H"])


def hydrogen(shift=0.0, strain=0.0):
    """A stretched molecule along z."""
    atoms = Atoms("H2", [[0.1, 0.2, 0.3], [0.1, 0.25, 1.25 + shift]], cell=[4.5, 4.5, 5.0], pbc=True)
    atoms.set_cell(np.diag([4.5, 4.5, 5.0 * (1 + strain)]), scale_atoms=True)
    return atoms


@pytest.mark.slow
def test_forces_and_stress_are_derivatives_of_the_energy(tmp_path):
    cp2k, spec = labeler()
    assert cp2k.preflight() == []

    def energy(**change):
        return label_frame(hydrogen(**change), cp2k, spec, tmp_path).free_energy

    label = label_frame(hydrogen(), cp2k, spec, tmp_path)
    assert label.ok, label.reason
    slope = -(energy(shift=0.02) - energy(shift=-0.02)) / 0.04
    assert slope < -1  # the bond pulls the second atom back
    assert label.forces[1, 2] == pytest.approx(slope, rel=0.02)  # egg box of a coarse grid
    slope = (energy(strain=0.02) - energy(strain=-0.02)) / (0.04 * hydrogen().get_volume())
    assert label.stress[2] == pytest.approx(slope, rel=0.05)


def test_too_few_scf_steps_are_unconverged_though_cp2k_ends_well(tmp_path):
    cp2k, spec = labeler(max_scf_steps=2)
    label = label_frame(hydrogen(), cp2k, spec, tmp_path)
    assert label.status == "unconverged"
    assert "in 2 steps" in label.reason
    assert label.provenance["returncode"] == 0
