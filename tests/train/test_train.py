from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from ase import Atoms

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.recipe_train import LossWeights, Train
from aldriver.train import TrainResult, judge, train
from aldriver.train.base import make_adapter
from aldriver.train.guard import Probe, energies_per_atom
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
        assert line["drift"]["drift_meV_atom"] > 0
        assert line["strategy"] == "naive"
        assert line["replay_loss"] is line["ewc_penalty"] is None
    assert result.history[-1]["lr"] < result.history[1]["lr"] <= s.learning_rate


def test_each_term_was_seen_to_move_the_weights(result):
    for term in ("energy", "forces", "stress"):
        assert result.checks[term]["active"]
        assert result.checks[term]["gradient_norm"] > 0
    assert 0 < result.checks["memory_GB"] < 4


def test_the_guards_measured_the_potential_that_came_out(result, chgnet020):
    best = result.history[result.best_epoch - 1]["drift"]
    assert result.guards["drift_meV_atom"] == pytest.approx(best["drift_meV_atom"], rel=1e-3)
    probe = Probe(chgnet020, exclude={"Fe"})
    again = probe.drift(lambda frames: list(energies_per_atom(result.potential, frames)))
    assert again["drift_meV_atom"] == pytest.approx(best["drift_meV_atom"], rel=1e-3)
    assert "meV/atom" in result.guards["reason"]


def test_forgetting_is_measured_against_the_foundation(chgnet020, iron, settings, result, tmp_path):
    """The start has drifted already: a gentle training from it does not count from zero."""
    frames = iron(2)
    s = settings(epochs=1, learning_rate=1e-6, ema_decay=0.0)
    refined = result.potential
    own = train(refined, frames, frames, s, tmp_path / "own", seed=0)
    against = train(refined, frames, frames, s, tmp_path / "foundation", seed=0, foundation=chgnet020)
    assert own.history[0]["drift"]["drift_meV_atom"] < 0.5
    assert against.history[0]["drift"]["drift_meV_atom"] == pytest.approx(result.guards["drift_meV_atom"], abs=0.5)


def test_double_precision_inside_and_the_starts_precision_outside(chgnet020, iron, settings, tmp_path):
    frames = iron(2)
    outcome = train(
        chgnet020, frames, frames, settings(epochs=3, learning_rate=1e-4, dtype="float64"), tmp_path, seed=0
    )
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]
    assert {t.dtype for t in saved["model"].values()} == {torch.float64}
    assert outcome.accepted
    assert outcome.potential.precision == chgnet020.precision == "float32"


def test_scratch_is_judged_against_what_came_in(chgnet020, iron, settings, tmp_path):
    frames = iron(2)
    outcome = train(chgnet020, frames, frames, settings(strategy="scratch", epochs=1), tmp_path, seed=0)
    incoming = train(chgnet020, frames, frames, settings(strategy="zero-shot"), tmp_path / "0", seed=0)
    assert outcome.before == incoming.before
    assert outcome.after["loss"] > 2 * outcome.before["loss"], "one epoch from nothing"
    assert not outcome.accepted
    assert outcome.potential is chgnet020


def test_labels_of_two_methods_are_refused(chgnet020, iron, settings, tmp_path):
    frames = iron(4)
    for k, atoms in enumerate(frames):
        atoms.info["level"] = "PBE" if k else "r2SCAN"
    with pytest.raises(InputError, match="2 levels of theory"):
        train(chgnet020, frames[:2], frames[2:], settings(), tmp_path, seed=0)


def test_heads_are_for_families_that_have_them(chgnet020, iron, settings, tmp_path):
    s = settings(replay={"source": "self", "heads": "separate"})
    with pytest.raises(InputError, match="have but one head"):
        train(chgnet020, iron(2), iron(2), s, tmp_path, seed=0)


def test_corrected_energies_are_what_chgnet_is_trained_on(chgnet020, iron, settings, tmp_path):
    frames = iron(2)
    for atoms in frames:
        atoms.info["energy_corrected"] = atoms.get_potential_energy() + 1.0
    raw = train(chgnet020, iron(2), iron(2), settings(strategy="zero-shot"), tmp_path, seed=0)
    corrected = train(chgnet020, frames, frames, settings(strategy="zero-shot"), tmp_path, seed=0)
    assert raw.e0_shift["Fe"] - corrected.e0_shift["Fe"] == pytest.approx(0.5, abs=1e-5)


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


def test_isolated_atoms_align_the_energies(iron, settings, tmp_path):
    pytest.importorskip("mace", reason="mace-torch is not installed here")
    from aldriver.testing.small_mace import small_mace

    start = small_mace(("Fe",), atomic_energies={"Fe": -3.0})
    alone = start.evaluate([Atoms("Fe", cell=[12.0] * 3, pbc=True)], stress=False)[0].energy
    s = settings(e0_shift="isolated", isolated_atoms_eV={"Fe": 1.5}, epochs=1)
    result = train(start, iron(4)[:2], iron(4)[2:], s, tmp_path / "a", seed=0)
    assert result.e0_shift == {"Fe": pytest.approx(alone - 1.5, abs=1e-5)}
    with pytest.raises(InputError, match="no energy of the isolated atom for Fe"):
        train(start, iron(2), iron(2), settings(e0_shift="isolated"), tmp_path / "b", seed=0)
