"""Records: NaN never passes as a value, JSON is always strict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aldriver.core.errors import StoreError
from aldriver.core.records import PropertyRecord, dumps, read_json


def test_a_property_that_is_not_finite_becomes_a_reason():
    record = PropertyRecord(property="c44", case="bcc-Fe", value=float("nan"), unit="GPa")
    assert record.value is None
    assert not record.converged
    assert "not finite" in record.reason


def test_json_is_strict_and_plain():
    text = dumps({"a": np.float32(1.5), "b": np.array([[1, 2]]), "c": float("inf"), "d": Path("x"), 3: {1}})
    assert json.loads(text) == {"a": 1.5, "b": [[1, 2]], "c": None, "d": "x", "3": [1]}


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(StoreError, match=r"x\.json: not readable as JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(StoreError, match="no such file"):
        read_json(tmp_path / "absent.json")
