from __future__ import annotations

import json

import numpy as np
import pytest
from label_stubs import silicon, spec

from aldriver.core.errors import StoreError
from aldriver.core.frames import label_of, read_frames, write_frames
from aldriver.core.records import dumps
from aldriver.label import Label


def a_label(**changes):
    values = {
        "status": "ok",
        "energy": -1 / 3,
        "free_energy": -1 / 3,
        "forces": np.array([[0.1, 1 / 7, 0.3], [-0.1, -1 / 7, -0.3]]),
        "stress": np.arange(6) / 11,
        "provenance": {"code": "x", "n": np.int64(3)},
        "key": "k",
    }
    return Label(**(values | changes))


def test_json_round_trip_is_exact_and_a_failure_keeps_its_reason():
    label = a_label()
    back = Label.from_json(json.loads(dumps(label.to_json())))
    assert back.energy == label.energy
    assert (back.forces == label.forces).all()
    assert (back.stress == label.stress).all()
    assert back.magmoms is None
    failed = Label(status="failed", reason="it crashed")
    assert Label.from_json(json.loads(dumps(failed.to_json()))) == failed


def test_nan_in_a_label_becomes_none_in_json_not_a_number():
    text = dumps(a_label(forces=np.array([[np.nan, 0, 0], [0, 0, 0]])).to_json())
    assert "NaN" not in text
    assert json.loads(text)["forces"][0][0] is None


def test_status_and_reason_are_checked():
    with pytest.raises(ValueError, match="not a label status"):
        Label(status="fine")
    with pytest.raises(ValueError, match="needs a reason"):
        Label(status="timeout")
    with pytest.raises(StoreError, match="not a label"):
        Label.from_json({"status": "ok", "colour": "red"})


def test_labelled_frame_survives_extxyz(tmp_path):
    frame = silicon()
    frame.info["group"] = "walker-3"
    write_frames(tmp_path / "x.extxyz", [a_label().labelled(frame)])
    (back,) = read_frames(tmp_path / "x.extxyz", labelled=True)
    assert back.info["group"] == "walker-3"
    assert back.info["label_key"] == "k"
    assert label_of(back, "energy") == pytest.approx(-1 / 3, abs=1e-8)
    assert np.allclose(label_of(back, "forces"), a_label().forces, atol=1e-8)
    assert np.allclose(label_of(back, "stress"), a_label().stress, atol=1e-8)
    with pytest.raises(ValueError, match="has no value"):
        Label(status="failed", reason="no").labelled(frame)


def test_digest_depends_on_numbers_only():
    base = spec().digest()
    assert spec(timeout_s=1.0, retries=9, effort={"max_scf_steps": 5}).digest() == base
    assert spec(settings={"a": 2}).digest() != base
    assert spec(method="other").digest() != base
    assert spec(settings={"b": 1, "a": 2}).digest() == spec(settings={"a": 2, "b": 1}).digest()
