from __future__ import annotations

import json

import pytest

from aldriver.core.errors import InputError
from aldriver.train.study import study_learning_rates


def test_the_best_rate_is_one_that_does_not_forget(chgnet020, iron, settings, tmp_path):
    frames = iron(2)
    s = settings(epochs=4, guard={"max_drift_meV_atom": 5.0})
    arguments = (chgnet020, frames, frames, s, tmp_path)
    seen = []
    study = study_learning_rates(*arguments, rates=[1e-5, 1e-4, 3e-3], seed=0, on_epoch=seen.append)
    assert [row["learning_rate"] for row in study.rows] == [1e-5, 1e-4, 3e-3]
    drift = [row["drift"]["drift_meV_atom"] for row in study.rows]
    assert drift[0] < drift[1] < drift[2]
    assert drift[2] > 5.0
    assert [row["accepted"] for row in study.rows] == [True, True, False]
    allowed = [row for row in study.rows if row["accepted"]]
    assert study.best == min(allowed, key=lambda row: row["loss"])["learning_rate"] == 1e-4
    assert study.result.after["loss"] == study.rows[1]["loss"]
    saved = json.loads((tmp_path / "study.json").read_text())
    assert saved["best"] == 1e-4
    assert [row["loss"] for row in saved["rows"]] == [row["loss"] for row in study.rows]
    assert {p.name for p in tmp_path.iterdir()} == {"study.json", "lr-1e-05", "lr-0.0001", "lr-0.003"}
    again = study_learning_rates(*arguments, rates=[1e-5, 1e-4, 3e-3], seed=0, on_epoch=seen.append)
    assert len(seen) == 12, "nothing is trained twice"
    assert again.best == study.best


@pytest.mark.parametrize("rates", [[], [1e-3, 1e-3], [-1.0], [float("nan")]])
def test_rates_must_be_different_positive_numbers(rates, chgnet020, iron, settings, tmp_path):
    with pytest.raises(InputError, match="different positive numbers"):
        study_learning_rates(chgnet020, iron(2), iron(2), settings(), tmp_path, rates=rates, seed=0)
