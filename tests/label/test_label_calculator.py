from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from label_stubs import Springs, silicon, spec

from aldriver.core import recipe
from aldriver.core.errors import AldriverError
from aldriver.label import label_frame, make_labeler
from aldriver.label.calculator import CalculatorLabeler


def test_labels_agree_with_the_potential_and_say_that_they_are_a_stand_in(tmp_path):
    frame = silicon()
    truth = Springs(bulk("Si", a=5.43))
    label = CalculatorLabeler(truth, spec()).label(frame, tmp_path)
    step = 1e-4
    for atom, axis in ((0, 0), (1, 2)):
        plus, minus = frame.copy(), frame.copy()
        plus.positions[atom, axis] += step
        minus.positions[atom, axis] -= step
        high, low = (p.energy for p in truth.evaluate([plus, minus]))
        assert label.forces[atom, axis] == pytest.approx(-(high - low) / (2 * step), abs=1e-8)
    assert label.free_energy == label.energy
    assert label.provenance["stand_in"] is True
    assert "not DFT" in label.provenance["note"]
    assert label.provenance["fingerprint"] == truth.fingerprint


def test_the_cache_spares_the_potential_and_follows_its_fingerprint(tmp_path):
    truth = Springs(bulk("Si", a=5.43))
    for _ in range(3):
        assert label_frame(silicon(), CalculatorLabeler(truth, spec()), spec(), tmp_path).ok
    assert truth.calls == 1
    other = Springs(bulk("Si", a=5.43), k=3.0)
    other.fingerprint = "f00dfeed00000002"
    assert not label_frame(silicon(), CalculatorLabeler(other, spec()), spec(), tmp_path).cached


def test_unknown_elements_are_a_failed_label_with_their_names(tmp_path):
    gold = Atoms("Au", cell=np.eye(3) * 4, pbc=True)
    labeler = CalculatorLabeler(Springs(bulk("Si")), spec(), elements=("Si", "Au"))
    label = labeler.label(gold, tmp_path)
    assert label.status == "failed"
    assert "Au" in label.reason
    assert "does not know Au" in labeler.preflight()[0]


def test_a_wild_potential_is_stopped_by_the_gate(tmp_path):
    wild = CalculatorLabeler(Springs(bulk("Si", a=5.43), k=1e5), spec())
    assert label_frame(silicon(), wild, spec(), tmp_path).status == "rejected"


def test_a_reference_that_does_not_load_is_a_problem_in_words_and_a_failed_label(tmp_path):
    settings = recipe.Label(engine="calculator", reference="nonsense:1")
    labeler, how = make_labeler(settings, ["Fe"])
    (problem,) = labeler.preflight()
    assert "'nonsense:1' cannot be loaded" in problem
    label = label_frame(silicon(), labeler, how, tmp_path)
    assert label.status == "failed"
    assert "nonsense:1" in label.reason


def test_cancelled_labeler_computes_nothing(tmp_path):
    truth = Springs(bulk("Si"))
    labeler = CalculatorLabeler(truth, spec())
    labeler.cancel()
    assert labeler.label(silicon(), tmp_path).status == "cancelled"
    assert truth.calls == 0


def test_eam_iron_is_a_reference(tmp_path):
    settings = recipe.Label(engine="calculator", reference="eam:Fe_mm.eam.fs")
    labeler, how = make_labeler(settings, ["Fe"])
    try:
        assert labeler.preflight() == []
    except AldriverError as error:
        pytest.skip(str(error))
    frame = bulk("Fe", a=2.855, cubic=True).repeat((2, 2, 2))
    frame.set_initial_magnetic_moments(None)
    frame.rattle(0.05, seed=2)
    label = label_frame(frame, labeler, how, tmp_path)
    assert label.ok
    # cohesive energy of the Mendelev potential: -4.122 eV/atom at its lattice constant 2.855 Å
    assert label.energy / len(frame) == pytest.approx(-4.12, abs=0.05)
    assert np.abs(label.forces.sum(axis=0)).max() < 1e-6
    assert label.stress.shape == (6,)
