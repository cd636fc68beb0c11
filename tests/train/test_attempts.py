from __future__ import annotations

import json
from pathlib import Path

from aldriver.core.recipe_train import Attempt, Replay, Train
from aldriver.train.attempts import train_attempts, with_attempt


def test_an_accepted_result_needs_no_fallback(chgnet020, iron, settings, tmp_path):
    frames = iron(2)
    s = settings(epochs=4, fallbacks=[{"strategy": "conv-only"}])
    result, attempts = train_attempts(chgnet020, frames, frames, s, tmp_path, seed=0)
    assert result.accepted
    assert [a["strategy"] for a in attempts] == ["naive"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["attempt-0"]


def test_refused_results_lead_to_the_next_strategy(chgnet020, iron, settings, tmp_path):
    """A drift limit that naive training at a high rate breaks and the readout-only training keeps."""
    frames = iron(2)
    fallbacks = [{"strategy": "conv-only", "learning_rate": 2e-3}, {"strategy": "conv-only", "learning_rate": 1e-5}]
    s = settings(epochs=4, learning_rate=3e-3, guard={"max_drift_meV_atom": 2.0}, fallbacks=fallbacks)
    seen: list[dict] = []
    result, attempts = train_attempts(chgnet020, frames, frames, s, tmp_path, seed=0, on_epoch=seen.append)
    assert [a["accepted"] for a in attempts] == [False, False, True]
    assert [a["learning_rate"] for a in attempts] == [3e-3, 2e-3, 1e-5]
    assert all("it forgets" in a["reason"] for a in attempts[:2])
    assert attempts[0]["numbers"]["drift_meV_atom"] > 2.0 > attempts[2]["numbers"]["drift_meV_atom"]
    assert all(a["numbers"]["after"] is not None for a in attempts)
    assert result.strategy == "conv-only"
    assert result.accepted
    assert [line["strategy"] for line in seen] == ["naive"] * 4 + ["conv-only"] * 8
    json.dumps(attempts)
    again, told = train_attempts(chgnet020, frames, frames, s, tmp_path, seed=0, on_epoch=seen.append)
    assert len(seen) == 12, "finished attempts are read back"
    assert told == attempts
    assert again.potential.fingerprint == result.potential.fingerprint


def test_the_last_refusal_is_returned(chgnet020, iron, settings, tmp_path):
    frames = iron(2)
    s = settings(epochs=1, guard={"max_drift_meV_atom": 1e-9}, fallbacks=[{"strategy": "conv-only", "epochs": 2}])
    result, attempts = train_attempts(chgnet020, frames, frames, s, tmp_path, seed=0)
    assert not result.accepted
    assert result.potential is chgnet020
    assert [a["epochs"] for a in attempts] == [1, 2]
    assert "guard.max_drift_meV_atom" in result.reason
    assert result.guards["reason"] in result.reason


def test_an_attempt_changes_what_it_names_and_nothing_else():
    settings = Train(learning_rate=2e-3, epochs=7, replay=Replay(source=Path("general.extxyz"), weight=3.0))
    changed = with_attempt(settings, Attempt(strategy="lora", epochs=9))
    assert (changed.strategy, changed.epochs, changed.learning_rate) == ("lora", 9, 2e-3)
    assert changed.replay == settings.replay
    assert with_attempt(settings, Attempt(strategy="naive", replay=Replay(source="none"))).replay.source == "none"
