from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from label_stubs import silicon

from aldriver.label import Label, LabelLimits, check_label

GOOD = {"energy": -10.0, "forces": np.array([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]]), "stress": np.zeros(6)}


def check(limits=None, **changes):
    return check_label(Label(status="ok", **(GOOD | changes)), silicon(), limits)


def test_a_good_label_passes_unchanged():
    label = Label(status="ok", **GOOD)
    assert check_label(label, silicon()) is label
    assert check(stress=None).ok


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"energy": None}, "energy is missing"),
        ({"energy": float("nan")}, "energy is missing or not a finite"),
        ({"free_energy": float("inf")}, "free energy"),
        ({"forces": None}, "forces are missing"),
        ({"forces": np.zeros((3, 3))}, "shape"),
        ({"forces": np.array([[np.nan, 0, 0], [0, 0, 0]])}, "forces hold numbers that are not finite"),
        ({"forces": np.array([[np.inf, 0, 0], [0, 0, 0]])}, "not finite"),
        ({"forces": np.array([[101.0, 0, 0], [-101.0, 0, 0]])}, "force on atom 0 is 101.0"),
        ({"forces": np.array([[0.1, 0, 0], [0.0, 0, 0]])}, "add up to 0.100"),
        ({"stress": np.zeros((3, 3))}, "stress has shape"),
        ({"stress": np.full(6, np.nan)}, "stress hold"),
        ({"stress": np.full(6, 20.0)}, "GPa, above the cap"),
        ({"magmoms": np.zeros(3)}, "magnetic moments have shape"),
        ({"magmoms": np.array([0.0, np.nan])}, "magmoms hold"),
    ],
)
def test_bad_labels_are_rejected_with_the_reason(changes, says):
    label = check(**changes)
    assert label.status == "rejected"
    assert says in label.reason


def test_net_force_allowance_grows_with_the_root_of_the_number_of_atoms():
    for n in (1, 100):
        frame = Atoms("Si" * n, positions=np.zeros((n, 3)), cell=np.eye(3) * 9, pbc=True)
        for net, fine in ((0.049, True), (0.051, False)):
            forces = np.zeros((n, 3))
            forces[:, 1] = net / np.sqrt(n)
            assert check_label(Label(status="ok", energy=0.0, forces=forces), frame).ok is fine


def test_another_spin_state_is_rejected():
    frame = Atoms("Fe2", positions=[[0, 0, 0], [1.4, 1.4, 1.4]], cell=np.eye(3) * 2.8, pbc=True)
    limits = LabelLimits(moments={"Fe": (1.5, 3.2), "Co": (1.0, 2.0)})
    label = Label(status="ok", energy=0.0, forces=np.zeros((2, 3)), magmoms=np.array([2.2, -2.2]))
    assert check_label(label, frame, limits).ok  # antiferromagnetic order has moments too
    lost = Label(status="ok", energy=0.0, forces=np.zeros((2, 3)), magmoms=np.zeros(2))
    assert "another spin state" in check_label(lost, frame, limits).reason
    none = Label(status="ok", energy=0.0, forces=np.zeros((2, 3)))
    assert "no magnetic moments" in check_label(none, frame, limits).reason


def test_stress_can_be_required_and_failures_pass_through():
    assert "stress is missing" in check(LabelLimits(need_stress=True), stress=None).reason
    failed = Label(status="failed", reason="crash")
    assert check_label(failed, silicon()) is failed
