"""``aldriver label`` run, ingest, redo and atoms, as a user calls them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk

import aldriver
from aldriver.cli.main import main
from aldriver.core.frames import read_frames, with_labels, write_frames

EAM = "eam:Fe_mm.eam.fs"


def call(*args) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0)


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(f"label:\n  engine: calculator\n  reference: {EAM}\n")
    return path


@pytest.fixture
def frames(tmp_path):
    """Three rattled iron cells; the labels they carry are of no method at all."""
    found = []
    for seed in range(3):
        atoms = bulk("Fe", cubic=True, a=2.86)
        atoms.set_initial_magnetic_moments(None)
        atoms.rattle(0.05, seed=seed)
        found.append(with_labels(atoms, energy=-20.0 - seed, forces=np.zeros((2, 3))))
    write_frames(tmp_path / "frames.extxyz", found)
    return tmp_path / "frames.extxyz"


def test_run_is_what_label_means(frames, spec, tmp_path):
    block = tmp_path / "block.yaml"
    block.write_text(f"engine: calculator\nreference: {EAM}\n")
    for k, args in enumerate(
        (
            ("label", frames, "--recipe", spec),
            ("label", "run", frames, "--spec", spec),
            ("label", frames, "--spec", block),
        )
    ):
        assert call(*args, "--out", tmp_path / f"store{k}", "--json", tmp_path / "out.json") == 0
        assert json.loads((tmp_path / "out.json").read_text())["ok"] == 3
    assert call("label", frames, "--out", tmp_path / "x") == 2  # does not say how
    (tmp_path / "bad.yaml").write_text("label:\n  engine: calculator\n  referenc: x\n")
    assert call("label", "run", frames, "--spec", tmp_path / "bad.yaml", "--out", tmp_path / "x") == 2


def test_limits_of_the_spec_hold(frames, tmp_path):
    block = tmp_path / "block.yaml"
    block.write_text(f"engine: calculator\nreference: {EAM}\nlimits: {{energies_eV: {{Fe: -4479.9}}}}\n")
    assert call("label", frames, "--spec", block, "--out", tmp_path / "s", "--json", tmp_path / "out.json") == 1
    result = json.loads((tmp_path / "out.json").read_text())
    assert {r["status"] for r in result["labels"]} == {"rejected"}
    (reason, count), *_ = result["reasons"].items()
    assert count == 3 and "another energy reference" in reason


def test_redo_labels_a_data_set_at_another_level_and_goes_on_where_it_stopped(frames, spec, tmp_path, capsys):
    assert call("label", "ingest", frames, "--out", tmp_path / "old") == 0
    capsys.readouterr()
    result = []
    for _ in range(2):
        assert call("label", "redo", tmp_path / "old", "--spec", spec, "--out", tmp_path / "new", "--json") == 0
        result.append(json.loads(capsys.readouterr().out))
    assert [r["key"] for r in result[0]["labels"]] == [r["key"] for r in result[1]["labels"]]
    assert len(list((tmp_path / "new").glob("*/label.json"))) == 3
    relabelled = read_frames(tmp_path / "new" / "dataset.extxyz", labelled=True)
    truth = aldriver.load(EAM).evaluate(relabelled)
    np.testing.assert_allclose([f.get_potential_energy() for f in relabelled], [p.energy for p in truth], atol=1e-6)
    assert {f.info["level"].split(" (")[0] for f in relabelled} == {f"calculator: stand-in {EAM}"}
    assert call("label", "redo", tmp_path / "old", "--spec", spec, "--out", tmp_path / "old") == 2


def test_isolated_atoms_come_from_a_run_or_say_that_they_do_not(frames, spec, tmp_path, capsys):
    assert call("label", "atoms", "Fe", "--spec", spec, "--out", tmp_path / "atoms", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    # an embedded atom with no neighbour has its embedding energy at zero density: F(0) = 0
    assert result["atoms"]["Fe"]["energy_eV"] == pytest.approx(0.0, abs=1e-6)
    assert result["isolated_atoms_eV"] == {"Fe": pytest.approx(0.0, abs=1e-6)}
    assert call("label", "atoms", "Xx", "--spec", spec) == 2


def test_least_squares_stand_in_for_an_atom_that_fails(frames, tmp_path, monkeypatch):
    from aldriver.core.recipe_label import Label as Block
    from aldriver.label import atoms
    from aldriver.label.base import Label

    monkeypatch.setattr(atoms, "label_frame", lambda *a, **k: Label(status="unconverged", reason="too many steps"))
    block = Block(engine="calculator", reference=EAM)
    bare = atoms.isolated_atoms(["Fe"], block, tmp_path / "a")
    assert bare["atoms"]["Fe"]["energy_eV"] is None and bare["isolated_atoms_eV"] is None
    fitted = atoms.isolated_atoms(["Fe"], block, tmp_path / "a", dataset=frames)
    assert fitted["atoms"]["Fe"]["energy_eV"] == pytest.approx(-10.5)  # the median of -10, -10.5 and -11
    assert (
        "least squares" not in fitted["atoms"]["Fe"]["from"].lower()
        or "too many steps" in fitted["atoms"]["Fe"]["from"]
    )
    assert fitted["isolated_atoms_eV"] is None


def test_an_atom_is_computed_at_gamma_with_spin_and_nothing_else_changed():
    from aldriver.core.recipe_label import Label as Block
    from aldriver.label.atoms import atom_cell, atom_settings

    block = Block(
        engine="espresso",
        espresso={"pseudopotentials": {"Fe": "Fe.UPF", "He": "He.UPF"}, "ecutwfc_Ry": 40, "kpoints": (4, 4, 4)},
    )
    iron = atom_settings(block, "Fe").espresso
    assert iron.kpoints == (1, 1, 1) and iron.spin
    assert iron.ecutwfc_Ry == 40 and iron.pseudopotentials == block.espresso.pseudopotentials
    assert not atom_settings(block, "He").espresso.spin  # a closed shell
    edges = atom_cell("Fe", 12.0).cell.lengths()
    assert len(set(edges)) == 3 and edges.min() >= 12.0


def test_ingest_shows_a_table_and_writes_json(frames, tmp_path, capsys):
    assert call("label", "ingest", frames, "--out", tmp_path / "labels") == 0
    shown = capsys.readouterr().out
    assert "3 accepted, 0 refused" in shown
    assert call("label", "ingest", tmp_path / "nothing", "--out", tmp_path / "labels") == 2
    assert call("label", "ingest", frames, "--spin", "Fe", "--out", tmp_path / "labels") == 2
    out = tmp_path / "x.json"
    assert call("label", "ingest", frames, "--spin", "Fe=1:3", "--out", tmp_path / "l2", "--json", out) == 1
    data = json.loads(out.read_text())
    assert data["refused"] == 3 and data["accepted"] == 0
    assert set(data) == {"files", "accepted", "refused", "skipped", "reasons", "datasets"}
