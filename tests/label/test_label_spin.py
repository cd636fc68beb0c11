"""Spin states: windows of moments, and one more start of a frame that fell out of its window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from label_stubs import spec

from aldriver.core import recipe_label
from aldriver.label import LabelLimits, label_frame
from aldriver.label.base import Label, Labeler
from aldriver.label.espresso import EspressoLabeler
from aldriver.label.spin import moment_problem, usual_moments

IRON = Atoms("Fe2", positions=[[0, 0, 0], [1.4, 1.4, 1.4]], cell=np.eye(3) * 2.8, pbc=True)
WINDOW = {"Fe": (1.5, 3.2)}


def label(magmoms=None, **provenance) -> Label:
    moments = None if magmoms is None else np.array(magmoms)
    return Label(status="ok", energy=-16.8, forces=np.zeros((2, 3)), magmoms=moments, provenance=provenance)


@pytest.mark.parametrize(
    ("found", "fine"),
    [
        (label([2.2, 2.2]), True),
        (label([2.2, -2.2]), True),  # antiferromagnetic order has moments too
        (label([0.0, 0.0]), False),
        (label([4.0, 4.0]), False),
        (label(None), False),
        (label(None, absolute_magnetisation=4.7, magnetisation=4.4), True),
        (label(None, absolute_magnetisation=4.7, magnetisation=0.0), True),
        (label(None, absolute_magnetisation=0.0, magnetisation=0.0), False),
        (label(None, magnetisation=4.4), True),
        (label(None, magnetisation=0.0), False),
        (label(None, magnetisation=8.0), False),
    ],
)
def test_windows(found, fine):
    assert (moment_problem(found, IRON, WINDOW) == "") is fine


def test_elements_that_are_not_there_ask_for_nothing():
    assert moment_problem(label(None), IRON, {"Co": (1.0, 2.0)}) == ""
    assert moment_problem(label(None), IRON, {"Fe": (0.0, 3.0)}) == ""


def test_metals_of_iron_cobalt_and_nickel_have_a_usual_state_and_compounds_none():
    assert set(usual_moments(Atoms("Fe53Cu"))) == {"Fe"}
    assert set(usual_moments(Atoms("Fe3Ni"))) == {"Fe", "Ni"}
    assert usual_moments(Atoms("Fe2O2")) == {}
    assert usual_moments(Atoms("CoCl2")) == {}
    for symbol, moment in (("Fe", 2.22), ("Co", 1.72), ("Ni", 0.606)):  # Kittel, ch. 12, table 2
        least, most = usual_moments(Atoms(symbol))[symbol]
        assert least < moment < most


class TwoStates(Labeler):
    """Converges to the non-magnetic state unless it starts from a large moment."""

    code_id = "two-states"

    def __init__(self, start: float, log: list[float]) -> None:
        super().__init__()
        self.start, self.log = start, log

    def preflight(self):
        return []

    def with_start(self, moments):
        return TwoStates(moments["Fe"], self.log)

    def label(self, frame: Atoms, workdir: Path) -> Label:
        assert workdir.is_dir()
        self.log.append(self.start)
        moment = 2.2 if self.start > 1.0 else 0.0
        return Label(status="ok", energy=-16.0 - moment, forces=np.zeros((2, 3)), magmoms=np.full(2, moment), cpu_s=1.0)


def test_a_frame_outside_the_window_gets_one_more_start_and_the_correction_is_recorded(tmp_path):
    runs: list[float] = []
    limits = LabelLimits(moments=WINDOW, second_start={"Fe": 3.0})
    found = label_frame(IRON, TwoStates(0.5, runs), spec(), tmp_path, limits=limits)
    assert runs == [0.5, 3.0]
    assert found.ok
    assert found.magmoms is not None and found.magmoms.mean() == pytest.approx(2.2)
    assert found.cpu_s == 2.0  # both runs were paid for
    (note,) = found.provenance["corrections"]
    assert note["starting_moments"] == {"Fe": 3.0}
    assert note["first_energy"] == -16.0
    assert "another spin state" in note["because"]


def test_a_second_start_that_ends_there_too_leaves_the_first_label_and_the_reason(tmp_path):
    runs: list[float] = []
    limits = LabelLimits(moments=WINDOW, second_start={"Fe": 0.8})
    found = label_frame(IRON, TwoStates(0.5, runs), spec(), tmp_path, limits=limits)
    assert runs == [0.5, 0.8]
    assert found.status == "rejected"
    assert "another spin state" in found.reason
    assert found.provenance["corrections"][0]["second_energy"] == -16.0


def test_a_frame_inside_the_window_is_computed_once(tmp_path):
    runs: list[float] = []
    limits = LabelLimits(moments=WINDOW, second_start={"Fe": 3.0})
    assert label_frame(IRON, TwoStates(2.0, runs), spec(), tmp_path, limits=limits).ok
    assert runs == [2.0]


def test_a_stored_label_has_to_pass_todays_limits(tmp_path):
    assert label_frame(IRON, TwoStates(0.5, []), spec(), tmp_path).ok
    again = label_frame(IRON, TwoStates(0.5, []), spec(), tmp_path, limits=LabelLimits(moments=WINDOW))
    assert again.status == "rejected"
    assert label_frame(IRON, TwoStates(0.5, []), spec(), tmp_path).ok  # the store itself is not changed


def test_espresso_starts_again_with_everything_else_the_same():
    block = recipe_label.Espresso(
        pseudopotentials={"Fe": "Fe.UPF"}, ecutwfc_Ry=30, spin=True, starting_magnetization={"Fe": 0.3}
    )
    labeler = EspressoLabeler(block, spec(), elements=("Fe",))
    other = labeler.with_start({"Fe": 0.8})
    assert other is not None
    changed = {k for k, v in other.settings.model_dump().items() if v != labeler.settings.model_dump()[k]}
    assert len(changed) == 1
    assert other.cancelled is False
    labeler.cancel()
    assert other.cancelled
    unpolarised = EspressoLabeler(block.model_copy(update={"spin": False}), spec())
    assert unpolarised.with_start({"Fe": 0.8}) is None


def test_limits_of_a_recipe():
    limits = {"moments": {"Fe": [1.5, 3.2]}, "second_start": {"Fe": 0.6}, "energies_eV": {"Fe": -8.4}}
    block = recipe_label.Label(engine="calculator", reference="eam:x", limits=limits)
    made = LabelLimits.of(block)
    assert made.moments == {"Fe": (1.5, 3.2)}
    assert made.reference is not None and made.reference.energies == {"Fe": -8.4}
    assert LabelLimits.of(recipe_label.Label(engine="calculator", reference="eam:x")) == LabelLimits()
    for wrong in ({"moments": {"Fe": [3, 1]}}, {"second_start": {"Fe": 1.0}}):
        with pytest.raises(ValueError, match="moments"):
            recipe_label.Label(engine="calculator", reference="eam:x", limits=wrong)
