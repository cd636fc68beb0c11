"""``aldriver evaluate`` as a user calls it."""

from __future__ import annotations

import json

import pytest
from ase.build import bulk

import aldriver
from aldriver.cli.main import main
from aldriver.core.frames import with_labels, write_frames
from aldriver.core.records import dumps
from aldriver.potentials.bundle import save_bundle

EAM = "eam:AlCu.eam.alloy"


def call(*args) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0)


@pytest.fixture
def files(tmp_path):
    """Two files: alloys that carry groups, and copper that has none; energies off by 0.1 eV per copper atom."""
    eam = aldriver.load(EAM)
    alloys, copper = [], []
    for seed in range(6):
        atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
        if seed < 4:
            atoms.symbols[: 1 + seed % 2] = "Al"
        atoms.rattle(0.05, seed=seed)
        p = eam.evaluate([atoms])[0]
        n_copper = int((atoms.numbers == 29).sum())
        labelled = with_labels(atoms, energy=p.energy - 0.1 * n_copper, forces=p.forces + 0.03, stress=p.stress)
        (alloys if seed < 4 else copper).append(labelled)
        if seed < 4:
            labelled.info["group"] = f"walker-{seed % 2}"
    write_frames(tmp_path / "alloys.extxyz", alloys)
    write_frames(tmp_path / "copper.extxyz", copper)
    return tmp_path / "alloys.extxyz", tmp_path / "copper.extxyz"


def evaluated(tmp_path, *args):
    out = tmp_path / "errors.json"
    assert call("evaluate", *args, "--json", out) == 0
    return json.loads(out.read_text())


def test_errors_by_element_composition_and_group(files, tmp_path, capsys):
    result = evaluated(tmp_path, EAM, *files, "--e0-shift", "never")
    assert (result["n_frames"], result["e0_shift"], result["e0_shift_from"]) == (6, None, None)
    assert result["forces_rmse_meV_A"] == pytest.approx(30.0, rel=1e-4)
    assert result["stress_rmse_GPa"] == pytest.approx(0.0, abs=1e-4)
    assert {e: m["n_atoms"] for e, m in result["elements"].items()} == {"Al": 6, "Cu": 18}
    assert result["compositions"]["Cu"]["energy_mae_meV_atom"] == pytest.approx(100.0, rel=1e-4)
    assert result["compositions"]["AlCu"]["energy_mae_meV_atom"] == pytest.approx(50.0, rel=1e-4)
    assert {g: m["n_frames"] for g, m in result["groups"].items()} == {"walker-0": 2, "walker-1": 2, "copper": 2}
    shown = capsys.readouterr().out
    assert "walker-1" in shown and "AlCu3" in shown and "MAE / RMSE" in shown


def test_the_shift_is_fitted_when_it_is_large_and_always_said(files, tmp_path, capsys):
    result = evaluated(tmp_path, EAM, *files)
    assert result["e0_shift_from"] == "fit" and result["e0_shift"]["Cu"] == pytest.approx(0.1, abs=1e-5)
    assert result["energy_mae_meV_atom"] == pytest.approx(0.0, abs=1e-2)
    assert "moved by Al" in " ".join(capsys.readouterr().out.split())


def test_the_shift_recorded_at_the_training_comes_first(files, tmp_path):
    folder = save_bundle(aldriver.load(EAM), tmp_path / "one", extra={"e0_shift": {"Al": 0.0, "Cu": 0.2}})
    result = evaluated(tmp_path, folder, *files)
    assert result["e0_shift"] == {"Al": 0.0, "Cu": 0.2} and result["e0_shift_from"] == "training"
    assert result["compositions"]["Cu"]["energy_mae_meV_atom"] == pytest.approx(100.0, rel=1e-4)
    campaign = save_bundle(aldriver.load(EAM), tmp_path / "two")
    (campaign / "card.json").write_text(dumps({"e0_shift": {"Al": 0.0, "Cu": 0.1}}))
    result = evaluated(tmp_path, campaign, *files)
    assert result["e0_shift_from"] == "training" and result["energy_mae_meV_atom"] == pytest.approx(0.0, abs=1e-2)


@pytest.mark.parametrize("suffix", ["html", "png", "svg"])
def test_the_parity_figure(files, tmp_path, suffix, capsys):
    plot = tmp_path / f"parity.{suffix}"
    result = evaluated(tmp_path, EAM, *files, "--plot", plot)
    assert result["plot"] == str(plot) and plot.stat().st_size > 10_000
    assert str(plot) in capsys.readouterr().out.replace("\n", "")


def test_what_is_refused(files, tmp_path, capsys):
    assert call("evaluate", EAM, files[0], "--plot", tmp_path / "x.pdf") == 2
    assert "ends in .html, .png, .svg" in " ".join(capsys.readouterr().err.split())
    assert call("evaluate", EAM, files[0], "--head", "other") == 2
    assert "has one head only" in capsys.readouterr().err
    assert call("evaluate", EAM, files[0], "--e0-shift", "sometimes") == 2
