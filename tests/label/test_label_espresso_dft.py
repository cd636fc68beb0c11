"""EspressoLabeler with the real pw.x: forces and stress against finite differences of its own energies."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from aldriver.core import recipe
from aldriver.core.records import read_json
from aldriver.label import LabelLimits, clean_orphans, label_frame, make_labeler
from aldriver.label.process import is_alive

PSEUDO = Path("/usr/share/espresso/pseudo")
pytestmark = [
    pytest.mark.dft,
    pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed"),
    pytest.mark.skipif(not (PSEUDO / "Si.pbe-rrkj.UPF").is_file(), reason="Debian's pseudopotentials are absent"),
]


def silicon_labeler(*, timeout_s=120.0, **changes):
    block = {
        "pseudo_dir": PSEUDO,
        "pseudopotentials": {"Si": "Si.pbe-rrkj.UPF"},
        "ecutwfc_Ry": 20,
        "kpoints": (2, 2, 2),
        "conv_thr_Ry": 1e-9,
    }
    return make_labeler(recipe.Label(engine="espresso", espresso=block | changes, timeout_s=timeout_s), ["Si"])


def rattled(*, strain=None):
    atoms = bulk("Si", a=5.43)
    atoms.rattle(0.08, seed=3)
    if strain is not None:
        atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    labels = tmp_path_factory.mktemp("dft")
    labeler, spec = silicon_labeler()
    assert labeler.preflight() == []
    return labels, labeler, spec, label_frame(rattled(), labeler, spec, labels)


def test_forces_are_the_derivative_of_the_energy(reference):
    labels, labeler, spec, label = reference
    assert label.ok, label.reason
    step = 0.01
    energies = []
    for sign in (1, -1):
        moved = rattled()
        moved.positions[1, 0] += sign * step
        energies.append(label_frame(moved, labeler, spec, labels).energy)
    slope = -(energies[0] - energies[1]) / (2 * step)
    assert label.forces[1, 0] == pytest.approx(slope, abs=3e-3)
    assert np.abs(label.forces.sum(axis=0)).max() < 1e-3


def test_stress_is_the_derivative_of_the_energy_with_ases_sign(reference):
    labels, labeler, spec, label = reference
    step = 0.005
    volume = rattled().get_volume()
    for component, (i, j) in ((0, (0, 0)), (5, (0, 1))):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            energies.append(label_frame(rattled(strain=strain), labeler, spec, labels).energy)
        slope = (energies[0] - energies[1]) / (2 * step * volume)
        # 20 Ry leaves about 0.1 GPa of Pulay stress on the diagonal
        assert label.stress[component] == pytest.approx(slope, abs=1.5e-3)


def test_compression_gives_negative_stress_and_expansion_positive(reference):
    labels, labeler, spec, _ = reference
    for factor, sign in ((0.97, -1), (1.05, 1)):
        cell = bulk("Si", a=5.47 * factor)
        stress = label_frame(cell, labeler, spec, labels).stress
        assert (np.sign(stress[:3]) == sign).all()
        assert np.abs(stress[3:]).max() < 1e-4


def test_provenance_and_cost_of_a_real_label(reference):
    labels, labeler, spec, label = reference
    p = label.provenance
    assert p["version"].startswith(("6.", "7."))
    assert p["pseudopotentials"]["Si"]["valence"] == 4
    assert p["scf_steps"] > 3
    assert p["minus_TS_eV"] <= 0
    assert 0.05 < p["engine_cpu_s"] <= label.cpu_s < p["engine_cpu_s"] + 0.2
    again = label_frame(rattled(), labeler, spec, labels)
    assert again.cached
    assert np.array_equal(again.forces, label.forces)
    assert again.provenance["created"] == p["created"]
    assert "scratch" not in {f.name for f in (labels / label.key).iterdir()}


def test_the_same_frame_permuted_and_wrapped_is_not_computed_again(reference):
    labels, labeler, spec, label = reference
    twin = rattled()[[1, 0]]
    twin.positions += np.asarray(twin.cell)[[2, 0]]
    found = label_frame(twin, labeler, spec, labels)
    assert (found.cached, found.key, found.energy) == (True, label.key, label.energy)
    assert np.array_equal(found.forces, label.forces[[1, 0]])
    labels_of_its_own = labels.parent / "twin"
    truth = label_frame(twin, labeler, spec, labels_of_its_own)
    assert not truth.cached
    assert found.forces == pytest.approx(truth.forces, abs=1e-4)
    assert found.stress == pytest.approx(truth.stress, abs=1e-5)


def test_one_scf_step_is_unconverged_and_more_steps_are_tried(tmp_path):
    labeler, spec = silicon_labeler(max_scf_steps=1)
    label = label_frame(rattled(), labeler, spec, tmp_path)
    assert label.status == "unconverged"
    assert "did not converge in 1 iterations" in label.reason
    assert label.energy is None
    more, more_spec = silicon_labeler(max_scf_steps=100)
    assert label_frame(rattled(), more, more_spec, tmp_path).ok


def test_an_error_of_pw_x_is_told_in_its_own_words(tmp_path):
    broken = tmp_path / "pseudo"
    broken.mkdir()
    text = (PSEUDO / "Si.pbe-rrkj.UPF").read_text()
    (broken / "Si.pbe-rrkj.UPF").write_text(text[: len(text) // 3])
    labeler, spec = silicon_labeler(pseudo_dir=broken)
    label = label_frame(rattled(), labeler, spec, tmp_path / "labels")
    assert label.status == "failed"
    assert "pw.x" in label.reason


@pytest.mark.skipif(not (PSEUDO / "Al.pz-vbc.UPF").is_file(), reason="no pseudopotential for Al")
def test_a_metal_with_smearing_forces_and_shear_stress(tmp_path):
    block = {
        "pseudo_dir": PSEUDO,
        "pseudopotentials": {"Al": "Al.pz-vbc.UPF"},
        "ecutwfc_Ry": 15,
        "kspacing_per_A": 0.8,
        "smearing": "marzari-vanderbilt",
        "degauss_Ry": 0.05,
        "conv_thr_Ry": 1e-9,
    }
    labeler, spec = make_labeler(recipe.Label(engine="espresso", espresso=block), ["Al"])

    def aluminium(shift=0.0, shear=0.0):
        atoms = bulk("Al", a=4.05) * (2, 1, 1)
        atoms.rattle(0.08, seed=3)
        atoms.positions[1, 0] += shift
        strain = np.zeros((3, 3))
        strain[0, 1] = strain[1, 0] = shear / 2
        atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
        return atoms

    def energy(**change):
        return label_frame(aluminium(**change), labeler, spec, tmp_path).free_energy

    label = label_frame(aluminium(), labeler, spec, tmp_path)
    assert label.ok, label.reason
    # reciprocal vectors of fcc: 2π √3 / a = 2.69 1/Å, and half of that along the doubled axis
    assert label.provenance["kpoints"] == [2, 4, 4]
    slope = -(energy(shift=0.02) - energy(shift=-0.02)) / 0.04
    assert label.forces[1, 0] == pytest.approx(slope, abs=3e-3)
    slope = (energy(shear=0.01) - energy(shear=-0.01)) / (0.02 * aluminium().get_volume())
    assert label.stress[5] == pytest.approx(slope, abs=5e-4)
    assert label.provenance["minus_TS_eV"] != 0


@pytest.mark.skipif(not (PSEUDO / "Fe.pbe-nd-rrkjus.UPF").is_file(), reason="no pseudopotential for Fe")
def test_iron_is_magnetic(tmp_path):
    block = {
        "pseudo_dir": PSEUDO,
        "pseudopotentials": {"Fe": "Fe.pbe-nd-rrkjus.UPF"},
        "ecutwfc_Ry": 25,
        "ecutrho_Ry": 200,
        "kpoints": (3, 3, 3),
        "smearing": "marzari-vanderbilt",
        "degauss_Ry": 0.02,
        "conv_thr_Ry": 1e-7,
        "spin": True,
        "starting_moments_muB": {"Fe": 3.2},
    }
    labeler, spec = make_labeler(recipe.Label(engine="espresso", espresso=block), ["Fe"])
    iron = bulk("Fe", a=2.86)
    iron.set_initial_magnetic_moments(None)
    label = label_frame(iron, labeler, spec, tmp_path)
    assert label.ok, label.reason
    assert 1.8 < label.magmoms[0] < 3.2
    assert label.provenance["magnetisation"] == pytest.approx(label.magmoms[0], rel=0.1)
    assert spec.method == "PBE, plane waves 25 Ry, k-grid 3x3x3, spin-polarised"


@pytest.mark.skipif(not (PSEUDO / "Fe.pbe-nd-rrkjus.UPF").is_file(), reason="no pseudopotential for Fe")
@pytest.mark.parametrize(("second", "status"), [(3.2, "ok"), (0.2, "rejected")])
def test_iron_that_lost_its_moment_gets_a_second_start(tmp_path, second, status):
    block = {
        "pseudopotentials": {"Fe": "Fe.pbe-nd-rrkjus.UPF"},
        "ecutwfc_Ry": 25,
        "ecutrho_Ry": 200,
        "kpoints": (3, 3, 3),
        "smearing": "marzari-vanderbilt",
        "degauss_Ry": 0.02,
        "conv_thr_Ry": 1e-6,
        "spin": True,
        "starting_moments_muB": {"Fe": 0.3},
    }
    limits = {"moments": {"Fe": (1.5, 3.5)}, "second_start": {"Fe": second}}
    settings = recipe.Label(engine="espresso", espresso=block, limits=limits)
    labeler, spec = make_labeler(settings, ["Fe"])
    label = label_frame(bulk("Fe", a=2.86), labeler, spec, tmp_path, limits=LabelLimits.of(settings))
    assert label.status == status, label.reason
    (note,) = label.provenance["corrections"]
    assert (note["what"], note["starting_moments"], note["second_status"]) == ("second start", {"Fe": second}, "ok")
    assert "the mean moment of Fe is 0.00 µB" in note["because"]
    if status == "ok":
        assert label.energy == note["second_energy"]
        assert note["second_energy"] < note["first_energy"] - 0.3  # iron gains about half an eV by its moment
        assert 1.5 < label.magmoms[0] < 3.5
    else:
        assert label.energy == note["first_energy"] == pytest.approx(note["second_energy"], abs=1e-3)
        assert "another spin state" in label.reason


RUNNER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_label_espresso_dft import silicon_labeler
from aldriver.label import label_frame
from ase.build import bulk
labeler, spec = silicon_labeler(ecutwfc_Ry=60, kpoints=(6, 6, 6))
big = bulk("Si", a=5.43, cubic=True)
big.rattle(0.1, seed=1)
label_frame(big, labeler, spec, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_pw_x_does_not_outlive_its_label(tmp_path, how):
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(Path(__file__).parent), str(tmp_path)])
    record, end = None, time.monotonic() + 60
    while record is None or record["pid"] is None:
        assert time.monotonic() < end
        time.sleep(0.05)
        found = list(tmp_path.glob(".tmp-*/process.json"))
        record = read_json(found[0]) if found else None
    pid = record["pid"]
    runner.send_signal(how)
    assert runner.wait(30) == -how
    if how == signal.SIGKILL:
        assert is_alive(pid)
        assert clean_orphans(tmp_path, pattern=".tmp-*", remove=True) >= 1
    assert not is_alive(pid)
    assert not list(tmp_path.glob(".tmp-*"))
