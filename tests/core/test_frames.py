"""Frames: hashing, labels that survive a round trip, and readable errors for bad files."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aldriver.core import frames as fr
from aldriver.core.errors import InputError


def cell(seed=0):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def test_hash_is_identity_not_similarity():
    atoms = cell()
    same = atoms.copy()
    same.info["anything"] = 1
    same.set_momenta(np.ones((8, 3)))
    assert fr.frame_hash(same) == fr.frame_hash(atoms)
    moved = atoms.copy()
    moved.positions[0, 0] += 1e-3
    swapped = atoms[[1, 0, *range(2, 8)]]
    stretched = atoms.copy()
    stretched.cell[0, 0] += 1e-3
    assert len({fr.frame_hash(a) for a in (atoms, moved, swapped, stretched)}) == 4


def test_minus_zero_is_zero():
    a = Atoms("Fe", positions=[[0.0, 0, 0]], cell=[2, 2, 2], pbc=True)
    b = Atoms("Fe", positions=[[-0.0, 0, 0]], cell=[2, 2, 2], pbc=True)
    assert fr.frame_hash(a) == fr.frame_hash(b)


def test_labels_and_provenance_survive_a_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    forces, stress = rng.normal(size=(8, 3)), rng.normal(size=6)
    atoms = cell()
    atoms.info.update(group="walker-3", step=40, junk="left behind")
    frame = fr.with_labels(atoms, energy=-3.5, forces=forces, stress=stress, label_key="k1")
    fr.write_frames(tmp_path / "f.extxyz", [frame, fr.with_labels(cell(1), energy=1.0, forces=forces)])
    first, second = fr.read_frames(tmp_path / "f.extxyz", labelled=True)
    assert fr.label_of(first, "energy") == pytest.approx(-3.5)
    np.testing.assert_allclose(fr.label_of(first, "forces"), forces, atol=1e-7)
    np.testing.assert_allclose(fr.label_of(first, "stress"), stress, atol=1e-7)
    assert (first.info["group"], first.info["step"], first.info["label_key"]) == ("walker-3", 40, "k1")
    assert "junk" not in first.info
    assert fr.label_of(second, "stress") is None  # missing stays missing: never zeros
    assert second.info["group"] == "f-1"


def test_foreign_keys_are_understood(tmp_path):
    path = tmp_path / "gap.xyz"
    path.write_text(
        '1\nLattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3:force:R:3 energy=-3460.9 '
        'virial="8 0 0 0 16 0 0 0 24" pbc="T T T"\nFe 0 0 0 0.1 0.2 0.3\n'
    )
    (frame,) = fr.read_frames(path, labelled=True)
    np.testing.assert_allclose(fr.label_of(frame, "forces"), [[0.1, 0.2, 0.3]])
    np.testing.assert_allclose(fr.label_of(frame, "stress"), [-1, -2, -3, 0, 0, 0])  # σ = −virial / V, V = 8 Å³


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\nLattice=\"2 0 0 0 2 0 0 0 2\" Properties=species:S:1:pos:R:3\nFe 0 0 0\n", "frame 0 cannot be read"),
        ("not a number\n\n", "cannot be read"),
        ("1\nLattice=\"2 0 0 0 2 0 0 0 2\" Properties=species:S:1:pos:R:3\nFe 0 0 nan\n", "not finite numbers"),
        ("1\nLattice=\"2 0 0 0 2 0 0 0 2\" Properties=species:S:1:pos:R:3 pbc=\"T T T\"\nFe 0 0 0\n", "has no energy"),
        ("1\nLattice=\"2 0 0 0 2 0 0 0 2\" Properties=species:S:1:pos:R:3:forces:R:3 energy=nan pbc=\"T T T\"\n"
         "Fe 0 0 0 0 0 0\n", "energy is not finite"),
    ],
)  # fmt: skip
def test_unreadable_files_are_explained(tmp_path, text, message):
    path = tmp_path / "bad.extxyz"
    path.write_text(text)
    with pytest.raises(InputError, match="bad.extxyz") as error:
        fr.read_frames(path, labelled=True)
    assert message in str(error.value)


def test_missing_file_and_empty_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        fr.read_frames(tmp_path / "absent.extxyz")
    fr.write_frames(tmp_path / "empty.extxyz", [])
    assert fr.read_frames(tmp_path / "empty.extxyz") == []
