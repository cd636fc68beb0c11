"""GpawLabeler with the real GPAW: forces and stress against finite differences of its own energies, and iron's moment.

GPAW is found where aldriver finds it by itself: in this Python, the configured one, or that of ``make setup-gpaw``.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from ase.build import bulk

from aldriver.core import recipe
from aldriver.label import label_frame, make_labeler
from aldriver.label.gpaw_output import read_gpaw
from aldriver.label.levels import differences, wanted_settings

pytestmark = [pytest.mark.dft, pytest.mark.usefixtures("gpaw_python")]


def gpaw(elements, **changes):
    block = {"ecut_eV": 200, "kpoints": (2, 2, 2)} | changes
    return make_labeler(recipe.Label(engine="gpaw", gpaw=block, timeout_s=300), elements)


def rattled(strain=None):
    atoms = bulk("Si", a=5.43)
    atoms.rattle(0.08, seed=3)
    if strain is not None:
        atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


@pytest.fixture(scope="module")
def silicon(tmp_path_factory, gpaw_python):
    labels = tmp_path_factory.mktemp("gpaw")
    labeler, spec = gpaw(["Si"])
    assert labeler.preflight() == []

    @cache
    def free_energy(step, strained):
        frame = rattled(step * np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])) if strained else rattled()
        if not strained:
            frame.positions[1, 0] += step
        return label_frame(frame, labeler, spec, labels).free_energy

    return labels, labeler, spec, label_frame(rattled(), labeler, spec, labels), free_energy


def test_forces_are_the_derivative_of_the_free_energy(silicon):
    *_, label, free_energy = silicon
    assert label.ok, label.reason
    slope = -(free_energy(0.01, False) - free_energy(-0.01, False)) / 0.02
    assert label.forces[1, 0] == pytest.approx(slope, abs=3e-3)
    assert np.abs(label.forces.sum(axis=0)).max() < 1e-3


def test_shear_stress_is_the_derivative_of_the_free_energy(silicon):
    *_, label, free_energy = silicon
    slope = (free_energy(0.005, True) - free_energy(-0.005, True)) / (0.01 * rattled().get_volume())
    assert label.stress[5] == pytest.approx(slope, abs=5e-4)


def test_a_label_says_how_it_was_made_and_its_log_says_the_same(silicon):
    labels, labeler, spec, label, _ = silicon
    p = label.provenance
    assert p["code"] == "GPAW"
    assert p["stand_in"] is False
    assert p["pseudopotentials"]["Si.PBE"]["sha256"][:12] in labeler.code_id
    assert p["energy_is"] == "extrapolated to zero smearing"
    assert label.free_energy < label.energy  # F = E(σ→0) − TS/2 − ...: the entropy only lowers it
    assert label_frame(rattled(), labeler, spec, labels).cached
    (found,) = read_gpaw(labels / label.key / "gpaw.txt")
    assert found.label.energy == pytest.approx(label.energy, abs=1e-6)
    for changes, differ in (({}, 0), ({"ecut_eV": 300, "width_eV": 0.2, "kpoints": (4, 4, 4), "spin": True}, 4)):
        block = recipe.Label(engine="gpaw", gpaw={"ecut_eV": 200, "kpoints": (2, 2, 2)} | changes)
        assert len(differences(found.settings, wanted_settings(block))) == differ
    assert found.label.provenance["scf_steps"] == p["scf_steps"]
    np.testing.assert_allclose(found.label.forces, label.forces, atol=1e-5)
    np.testing.assert_allclose(found.label.stress, label.stress, atol=1e-6)
    np.testing.assert_allclose(found.frame.positions, rattled().positions, atol=1e-6)


def test_too_few_scf_steps_are_unconverged_and_more_are_tried(tmp_path):
    labeler, spec = gpaw(["Si"], max_scf_steps=2, kpoints=(1, 1, 1))
    label = label_frame(rattled(), labeler, spec, tmp_path)
    assert label.status == "unconverged"
    assert "max_scf_steps 2" in label.reason
    assert label.energy is None
    assert label.provenance["scf_steps"] == 2
    more, more_spec = gpaw(["Si"], kpoints=(1, 1, 1))
    assert label_frame(rattled(), more, more_spec, tmp_path).ok


def test_iron_is_magnetic(tmp_path):
    labeler, spec = gpaw(["Fe"], ecut_eV=350, kpoints=(4, 4, 4), spin=True, starting_moments_muB={"Fe": 2.3})
    iron = bulk("Fe", a=2.86)
    iron.set_initial_magnetic_moments(None)
    label = label_frame(iron, labeler, spec, tmp_path)
    assert label.ok, label.reason
    assert label.magmoms[0] == pytest.approx(2.2, abs=0.4)  # experiment: 2.2 µB; a coarse grid
    assert label.provenance["magnetisation"] == pytest.approx(label.magmoms[0], rel=0.1)


def test_a_missing_data_set_is_told_before_anything_runs():
    labeler, _ = gpaw(["Si"], setups={"Si": "nonsense"})
    assert "Si.nonsense.PBE" in labeler.preflight()[0]
