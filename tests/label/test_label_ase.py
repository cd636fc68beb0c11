"""Labels by ASE calculators in a process of their own: same numbers as in this one, and every failure is a label."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from pydantic import ValidationError

from aldriver.core import recipe
from aldriver.core.errors import InputError
from aldriver.label import label_frame, make_labeler

TRICKS = """
import os, signal, time
from ase.calculators.calculator import Calculator, all_changes, SCFError

class Trick(Calculator):
    implemented_properties = ["energy", "forces"]

    def __init__(self, how, log=None):
        super().__init__()
        self.how, self.log = how, log

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.log:
            with open(self.log, "a") as handle:
                handle.write("x")
        if self.how == "scf":
            raise SCFError("residual 3e-2")
        if self.how == "words":
            raise RuntimeError("SCF not converged in 250 cycles")
        if self.how == "input":
            raise ValueError("unknown element Xx")
        if self.how == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "hang":
            time.sleep(60)
        if self.how == "moments" and atoms.get_initial_magnetic_moments().any():
            raise ValueError("37 unpaired electrons")
        self.results = {"energy": 1.0, "forces": 0.0 * atoms.positions}
"""


def copper(seed=2):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def emt(**changes):
    return make_labeler(recipe.Label(engine="ase", ase={"calculator": "ase.calculators.emt:EMT"} | changes), ["Cu"])


@pytest.fixture
def trick(tmp_path, monkeypatch):
    (tmp_path / "tricky.py").write_text(TRICKS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    def make(how, *, timeout_s=60.0, retries=0, **arguments):
        block = {"calculator": "tricky:Trick", "arguments": {"how": how} | arguments, "trusted": ["tricky"]}
        return make_labeler(recipe.Label(engine="ase", ase=block, timeout_s=timeout_s, retries=retries), ["Cu"])

    return make


def test_the_numbers_are_those_of_the_calculator(tmp_path):
    labeler, spec = emt()
    frame = copper()
    label = label_frame(frame, labeler, spec, tmp_path)
    here = copper()
    here.calc = EMT()
    assert label.ok, label.reason
    assert label.energy == here.get_potential_energy()
    np.testing.assert_array_equal(label.forces, here.get_forces())
    np.testing.assert_array_equal(label.stress, here.get_stress())
    assert label.magmoms is None
    assert label_frame(frame, labeler, spec, tmp_path).cached
    assert 0.05 < label.provenance["engine_cpu_s"] <= label.cpu_s


def test_a_label_is_a_stand_in_unless_its_level_of_theory_is_stated(tmp_path):
    labeler, spec = emt()
    assert spec.method.startswith("stand-in EMT")
    assert any("stand-in" in w for w in labeler.warnings())
    assert label_frame(copper(), labeler, spec, tmp_path).provenance["stand_in"] is True
    stated, stated_spec = emt(level="effective medium theory")
    assert stated_spec.method == "effective medium theory"
    assert stated.warnings() == []
    assert label_frame(copper(), stated, stated_spec, tmp_path).provenance["stand_in"] is False


def test_importing_runs_code_and_is_done_only_for_known_or_trusted_packages():
    with pytest.raises(InputError, match="label.ase.trusted"):
        make_labeler(recipe.Label(engine="ase", ase={"calculator": "os:system"}))
    block = {"calculator": "nowhere_at_all:X", "trusted": ["nowhere_at_all"]}
    labeler, _ = make_labeler(recipe.Label(engine="ase", ase=block))
    assert "No module named 'nowhere_at_all'" in labeler.preflight()[0]
    assert labeler.code_id == "ase:absent"


@pytest.mark.parametrize("bad", [{"calculator": "ase.calculators.emt"}, {"calculator": "x; import os:EMT"}])
def test_a_calculator_is_named_by_module_and_class(bad):
    with pytest.raises(ValidationError):
        recipe.Label(engine="ase", ase=bad)


def test_arguments_must_be_plain():
    with pytest.raises(ValidationError, match="only numbers, text"):
        recipe.Label(engine="ase", ase={"calculator": "ase.calculators.emt:EMT", "arguments": {"x": object()}})


@pytest.mark.parametrize("how", ["scf", "words"])
def test_what_does_not_converge_is_unconverged_and_not_tried_again(trick, how, tmp_path):
    log = tmp_path / "runs"
    labeler, spec = trick(how, retries=2, log=str(log))
    label = label_frame(copper(), labeler, spec, tmp_path / "labels")
    assert label.status == "unconverged"
    assert "converge" in label.reason
    assert label.energy is None
    assert log.read_text() == "x"


def test_what_the_calculator_refuses_is_told_in_its_words(trick, tmp_path):
    labeler, spec = trick("input", retries=2)
    label = label_frame(copper(), labeler, spec, tmp_path)
    assert (label.status, label.reason) == ("failed", "ValueError: unknown element Xx")
    assert label.provenance["retries"] == 0


def test_a_crash_is_tried_again_with_the_same_input(trick, tmp_path):
    log = tmp_path / "runs"
    labeler, spec = trick("crash", retries=1, log=str(log))
    label = label_frame(copper(), labeler, spec, tmp_path / "labels")
    assert label.status == "failed"
    assert "SIGSEGV" in label.reason
    assert "2 attempts" in label.reason
    assert log.read_text() == "xx"


def test_a_hang_ends_at_its_time_limit(trick, tmp_path):
    labeler, spec = trick("hang", timeout_s=3.0)
    label = label_frame(copper(), labeler, spec, tmp_path)
    assert label.status == "timeout"
    assert "label.timeout_s 3" in label.reason
    assert label.seconds < 20


def test_moments_of_a_frame_stay_behind_and_those_of_the_recipe_are_given(trick, tmp_path):
    frame = copper()
    frame.set_initial_magnetic_moments([2.3] * 4)
    labeler, spec = trick("moments")
    assert label_frame(frame, labeler, spec, tmp_path / "a").ok
    block = {"calculator": "tricky:Trick", "arguments": {"how": "moments"}, "trusted": ["tricky"]}
    block["starting_moments_muB"] = {"Cu": 1.0}
    labeler, spec = make_labeler(recipe.Label(engine="ase", ase=block), ["Cu"])
    assert "unpaired" in label_frame(copper(), labeler, spec, tmp_path / "b").reason


def test_no_stress_is_no_stress_and_not_zero(trick, tmp_path):
    labeler, spec = trick("fine")
    label = label_frame(copper(), labeler, spec, tmp_path)
    assert label.ok
    assert label.stress is None
    open_cell = copper()
    open_cell.pbc = False
    labeler, spec = emt()
    assert label_frame(open_cell, labeler, spec, tmp_path).stress is None


def test_a_python_that_is_not_there_is_a_sentence(tmp_path):
    labeler, spec = emt(command="/no/such/python")
    assert "/no/such/python was not found" in labeler.preflight()[0]
    label = label_frame(copper(), labeler, spec, tmp_path)
    assert label.status == "failed"
    assert "could not be started" in label.reason


def test_the_runner_needs_nothing_of_aldriver(tmp_path):
    """It is started in Pythons that may not have it: with an isolated path the calculator still runs."""
    labeler, spec = emt(command=f"{sys.executable} -I")
    assert labeler.preflight() == []
    assert label_frame(copper(), labeler, spec, tmp_path).ok
