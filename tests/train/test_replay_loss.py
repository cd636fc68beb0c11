"""Replayed frames in the loss. Where they come from is ``replay.py``'s business."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk

from aldriver.core.errors import AldriverError
from aldriver.core.frames import read_frames, with_labels, write_frames
from aldriver.train import train
from aldriver.train.loop import TrainingLoop
from aldriver.train.loss import counts_of, loss_sums, total_loss


@pytest.fixture
def made(chgnet020_double, iron, settings, examples, tmp_path):
    """made(weight): a loop with three new and three replayed frames."""

    frames = iron(6)

    def loop(weight: float, **changes) -> TrainingLoop:
        adapter, batch = examples(chgnet020_double, frames, {"Fe": -4.3})
        s = settings(replay={"source": "self", "weight": weight, "per_step": 2}, **changes)
        return TrainingLoop(adapter, batch[:3], batch[:3], s, tmp_path, seed=3, key="k", replay=batch[3:])

    return loop


def gradient(loop: TrainingLoop, replay: bool = True) -> torch.Tensor:
    loop.state.micro_batch = 2
    loop._step(loop.train, loop.replay if replay else ())
    return torch.cat([p.grad.flatten() for p in loop.named.values() if p.grad is not None])


def test_the_gradient_is_linear_in_the_weight(made):
    new = gradient(made(1.0), replay=False)
    extra = [gradient(made(weight)) - new for weight in (0.0, 1.0, 3.0)]
    assert float(extra[0].norm()) == 0.0
    assert float(extra[1].norm()) > 1e-3 * float(new.norm())
    assert torch.allclose(extra[2], 3 * extra[1], atol=1e-12 * float(new.norm()), rtol=1e-9)


def test_replayed_frames_are_divided_by_their_own_counts(made):
    loop = made(1.0)
    loop.state.micro_batch = 2
    values = loop._step(loop.train, loop.replay)
    p = loop.adapter.predict([x.graph for x in loop.replay], training=False)
    s = loop.settings
    expected = total_loss(loss_sums(p, loop.replay, delta=s.huber_delta), counts_of(loop.replay), s.weights)
    assert values["replay"] == pytest.approx(float(expected), rel=1e-9)


def test_every_replayed_frame_has_its_turn(made):
    loop = made(1.0, batch_size=1)
    order = loop._replay_order()
    assert [len(step) for step in order] == [2, 2, 2]
    assert sorted(i for step in order for i in step) == [0, 0, 1, 1, 2, 2]
    assert loop._replay_order() == order, "an epoch that is repeated replays the same frames"
    loop.state.epoch = 1
    assert any(loop._replay_order() != order for loop.state.epoch in range(1, 5))


@pytest.mark.slow
def test_replay_keeps_what_the_foundation_says(chgnet020, iron, settings, tmp_path):
    frames = iron(3)
    results = {}
    for weight in (0.0, 3.0):
        changes = {"epochs": 10, "batch_size": 1, "learning_rate": 2e-4, "schedule": "constant"}
        s = settings(**changes, replay={"source": "self", "weight": weight, "per_step": 4, "elements": ["Cr"]})
        results[weight] = train(chgnet020, frames, frames, s, tmp_path / str(weight), seed=0)
    off, on = results[0.0], results[3.0]
    assert [line["replay_loss"] for line in off.history] == [None] * 10
    assert all(line["replay_loss"] > 0 for line in on.history)
    assert "replay" not in off.checks
    assert on.checks["replay"]["active"]
    assert on.checks["replay"]["value"] == pytest.approx(0.0, abs=1e-6), "the foundation labels the frames itself"
    assert on.checks["replay"]["prediction_gradient_norm"] > 0
    rehearsed = read_frames(tmp_path / "3.0" / "replay.extxyz")
    before = np.array([a.get_potential_energy() for a in rehearsed])
    sizes = np.array([len(a) for a in rehearsed])
    forgotten = []
    for result in (off, on):
        assert result.accepted, result.reason
        energies = np.array([p.energy for p in result.potential.evaluate(rehearsed)])
        forgotten.append(float(np.sqrt(np.mean(((energies - before) / sizes) ** 2))))
    assert forgotten[1] < 0.7 * forgotten[0]


def test_replayed_frames_that_do_not_act_are_an_error(made):
    loop = made(1.0)
    for name, p in loop.adapter.module.named_parameters():
        p.requires_grad_(name == "atom_embedding.embedding.weight")
    loop.named = {"atom_embedding.embedding.weight": loop.adapter.module.atom_embedding.embedding.weight}
    assert loop.check_terms()["replay"]["active"]

    class Other(type(loop.adapter)):
        def predict(self, graphs, *, training):
            from dataclasses import replace

            p = super().predict(graphs, training=training)
            if graphs[0] is loop.replay[0].graph:
                p = replace(p, energy=p.energy.detach(), forces=p.forces.detach(), stress=p.stress.detach())
            return p

    loop.adapter.__class__ = Other
    with pytest.raises(AldriverError, match="replayed frames do not act"):
        loop.check_terms()


def test_general_frames_of_a_file_are_replayed(chgnet020, iron, settings, tmp_path):
    general = []
    for symbol, a in (("Al", 4.05), ("Cu", 3.61)):
        atoms = bulk(symbol, "fcc", a=a).repeat((2, 1, 1))
        atoms.rattle(0.05, seed=1)
        p = chgnet020.evaluate([atoms])[0]
        general.append(with_labels(atoms, energy=p.energy + 0.02, forces=p.forces + 0.05, stress=p.stress))
    write_frames(tmp_path / "general.extxyz", general)
    s = settings(epochs=1, replay={"source": str(tmp_path / "general.extxyz"), "per_step": 1})
    result = train(chgnet020, iron(2), iron(2), s, tmp_path / "out", seed=0)
    assert result.checks["replay"]["frames"] == 2
    assert result.checks["replay"]["value"] > 0
    assert np.isfinite(result.history[0]["replay_loss"])
