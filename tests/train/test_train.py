from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.recipe_train import LossWeights, Train
from aldriver.train import TrainResult, judge, train
from aldriver.train.base import make_adapter
from aldriver.train.loop import TrainingLoop
from aldriver.train.loss import counts_of, loss_sums, total_loss
from aldriver.train.metrics import measure


@pytest.fixture(scope="module")
def result(chgnet020, iron, settings, tmp_path_factory) -> TrainResult:
    """A training that overfits four cells: validation on the training frames must get better."""
    frames = iron(4)
    out = tmp_path_factory.mktemp("train")
    seen: list[dict] = []
    outcome = train(chgnet020, frames, frames, settings(epochs=6), out, seed=0, on_epoch=seen.append)
    assert seen == outcome.history == [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return outcome


def test_errors_fall_and_the_potential_is_the_one_validated(result, iron):
    assert result.accepted, result.reason
    assert result.after["forces_rmse_meV_A"] < 0.7 * result.before["forces_rmse_meV_A"]
    assert result.after["loss"] == pytest.approx(min(line["valid"]["loss"] for line in result.history), rel=1e-6)
    frames = iron(4)
    predictions = result.potential.evaluate(frames)
    errors = np.concatenate([p.forces - a.get_forces() for p, a in zip(predictions, frames, strict=True)])
    assert 1e3 * np.sqrt(np.mean(errors**2)) == pytest.approx(result.after["forces_rmse_meV_A"], rel=1e-3)
    shift = 2 * result.e0_shift["Fe"]
    energies = [p.energy - a.get_potential_energy() - shift for p, a in zip(predictions, frames, strict=True)]
    assert 1e3 * np.mean(np.abs(energies)) / 2 == pytest.approx(result.after["energy_mae_meV_atom"], abs=0.02)


def test_history_tells_what_was_done(result, settings):
    s = settings(epochs=6)
    assert [line["epoch"] for line in result.history] == [1, 2, 3, 4, 5, 6]
    for line in result.history:
        assert line["batch_size"] == line["micro_batch"] == 2
        assert line["skipped_steps"] == 0
        assert line["seconds"] > 0
        assert line["cpu_s"] > 0
        assert all(line["terms"][k] > 0 for k in ("energy", "forces", "stress"))
        assert line["train_loss"] == pytest.approx(sum(getattr(s.weights, k) * v for k, v in line["terms"].items()))
        assert all(math.isfinite(v) for v in line["valid"].values())
    assert result.history[-1]["lr"] < result.history[1]["lr"] <= s.learning_rate


def test_each_term_was_seen_to_move_the_weights(result):
    for term in ("energy", "forces", "stress"):
        assert result.checks[term]["active"]
        assert result.checks[term]["gradient_norm"] > 0
    assert 0 < result.checks["memory_GB"] < 4


def test_the_teachers_energy_scale_is_met_by_a_shift(result):
    # about −4.1 eV/atom in the embedded-atom model, about −8.4 eV/atom in CHGNet
    assert result.e0_shift["Fe"] == pytest.approx(-4.3, abs=0.1)


def test_no_regress(chgnet020, iron, settings, tmp_path):
    frames = iron(4)
    outcome = train(chgnet020, frames[:2], frames[2:], settings(learning_rate=3.0), tmp_path, seed=0)
    assert not outcome.accepted
    assert outcome.potential is chgnet020
    assert "the potential is kept" in outcome.reason


@pytest.mark.parametrize(
    ("before", "after", "epoch", "accepted"),
    [(1.0, 0.5, 3, True), (1.0, 1.0, 3, False), (1.0, 1.1, 3, False), (1.0, math.nan, 3, False), (1.0, 0.5, 0, False)],
)
def test_judge(before, after, epoch, accepted):
    decision, reason = judge(before, after, epoch)
    assert decision is accepted
    assert reason


def test_divergence_ends_the_training(chgnet020, iron, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("aldriver.train.loop.total_loss", lambda *args: total_loss(*args) * math.nan)
    frames = iron(4)
    outcome = train(chgnet020, frames[:2], frames[2:], settings(epochs=9), tmp_path, seed=0)
    assert len(outcome.history) == 1
    assert not outcome.accepted
    assert "diverged in epoch 1" in outcome.reason


def test_missing_stress_is_no_zero_stress(chgnet020, iron, settings, tmp_path):
    frames = iron(2, with_stress=False) + iron(1, seed=5)
    outcome = train(chgnet020, frames[:2], frames[2:], settings(epochs=1), tmp_path, seed=0)
    assert outcome.checks["stress"] == {"active": False, "reason": "no frame has a label"}
    assert outcome.history[0]["terms"]["stress"] == 0.0
    assert outcome.before["stress_mae_GPa"] is not None
    only = train(chgnet020, frames[2:], frames[:2], settings(epochs=1), tmp_path / "2", seed=0)
    assert only.before["stress_mae_GPa"] is None
    assert only.checks["stress"]["frames"] == 1


def test_a_term_that_moves_nothing_is_an_error(chgnet020, iron, settings, examples, tmp_path):
    adapter, batch = examples(chgnet020, iron(2), None)
    for name, p in adapter.module.named_parameters():
        p.requires_grad_(name.startswith("site_wise"))
    loop = TrainingLoop(adapter, batch, batch, settings(), tmp_path, seed=0, key="k")
    with pytest.raises(AldriverError, match="moves none of the trainable weights"):
        loop.check_terms()
    adapter.set_trainable(Train())
    off = settings(weights=LossWeights(energy=0, forces=0, stress=0))
    with pytest.raises(AldriverError, match="no term of the loss is active"):
        TrainingLoop(adapter, batch, batch, off, tmp_path, seed=0, key="k").check_terms()


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(chgnet020, iron, settings, examples, tmp_path):
    adapter, batch = examples(chgnet020, iron(3), {"Fe": -4.3})
    loop = TrainingLoop(adapter, batch, batch, settings(), tmp_path, seed=0, key="k")
    gradients = []
    for micro_batch in (3, 1):
        loop.state.micro_batch = micro_batch
        loop._step(batch)
        gradients.append(torch.cat([p.grad.flatten() for p in loop.named.values() if p.grad is not None]))
    assert float((gradients[0] - gradients[1]).norm()) < 1e-3 * float(gradients[0].norm())


def test_the_memory_limit_cuts_the_batch_but_not_the_steps(chgnet020, iron, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("aldriver.train.loop.fitting_batch", lambda run, sizes, wanted, limit: (1, limit))
    frames = iron(4)
    outcome = train(chgnet020, frames, frames, settings(epochs=1, batch_size=4), tmp_path, seed=0)
    assert outcome.history[0]["micro_batch"] == 1
    assert outcome.history[0]["batch_size"] == 4


def test_too_little_memory_is_an_error_in_plain_words(chgnet020, iron, settings, tmp_path):
    frames = iron(4)
    with pytest.raises(AldriverError, match=r"memory_limit_GB = 0\.01"):
        train(chgnet020, frames[:2], frames[2:], settings(memory_limit_GB=0.01), tmp_path, seed=0)


def test_validation_loss_is_the_training_loss(chgnet020, iron, settings, examples):
    adapter, batch = examples(chgnet020, iron(3), {"Fe": -4.3})
    p = adapter.predict([x.graph for x in batch], training=False)
    s = settings()
    expected = total_loss(loss_sums(p, batch, delta=s.huber_delta), counts_of(batch), s.weights)
    assert measure(adapter, batch, s)["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_sides_are_checked(chgnet020, iron, settings, tmp_path):
    frames = iron(2)
    with pytest.raises(InputError, match="no validation frames"):
        train(chgnet020, frames, [], settings(), tmp_path, seed=0)
    del frames[0].calc.results["energy"]
    with pytest.raises(InputError, match="a training frame has no energy"):
        train(chgnet020, frames[:1], frames[1:], settings(), tmp_path, seed=0)


def test_the_strategy_is_the_recipes(chgnet020):
    assert len(make_adapter(chgnet020).set_trainable(Train(strategy="conv-only"))) > 0
