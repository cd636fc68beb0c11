"""Trial labels: the cheapest element of a campaign through the engine's own commands."""

from __future__ import annotations

import numpy as np
import pytest
from label_stubs import UPF_V2, pw_output, script

from aldriver.core import recipe
from aldriver.label import make_labeler
from aldriver.label.trial import easiest, trial_frame, trial_label, trial_text


@pytest.mark.parametrize("element", ["H", "O", "Si", "Fe", "Cu", "Mg", "Ga", "S", "I", "Mn", "Po"])
def test_there_is_a_sensible_cell_of_every_element(element):
    frame = trial_frame(element)
    assert set(frame.get_chemical_symbols()) == {element}
    assert len(frame) <= 2
    assert frame.pbc.all()
    assert frame.get_volume() > 5
    if len(frame) > 1:
        assert 0.6 < frame.get_distance(0, 1, mic=True) < 3.5
    assert np.isfinite(frame.positions).all()


def test_the_easiest_element_is_light_and_not_magnetic():
    assert easiest(["O", "H"]) == "H"
    assert easiest(["Fe", "Cu"]) == "Cu"
    assert easiest(["Fe"]) == "Fe"


def espresso(tmp_path, body, output=""):
    (tmp_path / "Si.UPF").write_text(UPF_V2)
    (tmp_path / "answer").write_text(output)
    binary = script(tmp_path / "pw.x", f"cp espresso.pwi {tmp_path}/asked\nOUT={tmp_path}/answer\n{body}")
    block = {"command": str(binary), "pseudo_dir": tmp_path, "pseudopotentials": {"Si": "Si.UPF"}, "ecutwfc_Ry": 20}
    block |= {"kpoints": (6, 6, 6), "spin": True, "starting_magnetization": {"Si": 0.5}, "conv_thr_Ry": 1e-10}
    return recipe.Label(engine="espresso", espresso=block, retries=2)


def test_a_trial_runs_the_recipes_command_crudely(tmp_path):
    frame, label = trial_label(espresso(tmp_path, "cat $OUT", pw_output()), ["Si"])
    assert label.ok, label.reason
    asked = (tmp_path / "asked").read_text()
    assert "K_POINTS gamma" in asked
    assert "nspin" not in asked
    assert "conv_thr = 0.0001" in asked
    text = trial_text(frame, label)
    assert text.startswith("Si2 in ")
    assert "Quantum ESPRESSO pw.x 6.7MaX" in text
    assert str(tmp_path / "pw.x") in text


def test_what_goes_wrong_is_in_the_text(tmp_path):
    failed = trial_text(*trial_label(espresso(tmp_path, "exit 3"), ["Si"]))
    assert "failed: pw.x crashed (exit status 3)" in failed
    crude = trial_text(*trial_label(espresso(tmp_path, "cat $OUT; exit 2", pw_output(converged=False)), ["Si"]))
    assert "it runs, though the SCF" in crude


@pytest.mark.parametrize(
    ("engine", "block"),
    [
        ("gpaw", {"ecut_eV": 800, "kpoints": (4, 4, 4), "spin": True, "starting_moments_muB": {"Si": 1.0}}),
        ("cp2k", {"basis": {"Si": "a"}, "potential": {"Si": "b"}, "cutoff_Ry": 500, "kspacing_per_A": 0.2}),
    ],
)
def test_crude_settings_are_cheaper_and_keep_command_and_files(engine, block):
    from importlib import import_module

    settings = recipe.Label(engine=engine, **{engine: block | {"command": "mpirun x"}})
    crude = import_module(f"aldriver.label.{engine}").cheap(settings)
    before, after = getattr(settings, engine), getattr(crude, engine)
    assert after.command == before.command
    assert (after.kpoints, after.kspacing_per_A) == ((1, 1, 1), None)
    assert make_labeler(crude, ["Si"])[1].digest() != make_labeler(settings, ["Si"])[1].digest()
