"""Beside chgnet's own trainer: same start, frames in the same order, loss and rate; the same result."""

from __future__ import annotations

import copy

import pytest

from aldriver.core.recipe_train import Train
from aldriver.potentials.chgnet import CHGNetPotential
from aldriver.testing.bench_train import their_loader, their_trainer
from aldriver.testing.vendors import LoopOrder
from aldriver.train.base import make_adapter
from aldriver.train.loop import TrainingLoop
from aldriver.train.loss import make_example
from aldriver.train.metrics import measure

SEED = 5


@pytest.mark.filterwarnings("ignore")  # what chgnet is warned of is not ours to mend
def test_the_loop_does_what_chgnets_trainer_does(chgnet030, iron, settings, tmp_path):
    weights = {"energy": 1.0, "forces": 1.0, "stress": 0.1}
    same: Train = settings(epochs=2, schedule="constant", ema_decay=0.0, clip_norm=1e9, weights=weights)
    known, unseen = iron(6), iron(2, seed=9)
    adapter = make_adapter(chgnet030)
    adapter.set_trainable(same)
    sides = [[make_example(adapter, a, None) for a in side] for side in (known, unseen)]
    before = measure(adapter, sides[1], same)
    history = TrainingLoop(adapter, *sides, same, tmp_path / "ours", seed=SEED, key="test").run().history

    model = copy.deepcopy(chgnet030.module).requires_grad_(True)
    trainer = their_trainer(model, same, scheduler="ExponentialLR", scheduler_params={"gamma": 1.0})
    errors, save = [], trainer.save_checkpoint

    def keep(*arguments, **options):
        save(*arguments, **options)
        errors.append(measure(make_adapter(CHGNetPotential(copy.deepcopy(trainer.model))), sides[1], same))

    trainer.save_checkpoint = keep
    loader, valid = their_loader(known, LoopOrder(6, seed=SEED), 2), their_loader(unseen, range(2), 2)
    trainer.train(loader, valid, save_dir=str(tmp_path))
    for line, expected in zip(history, errors, strict=True):
        assert line["valid"] == pytest.approx(expected, rel=1e-3)  # in single precision
    assert errors[-1]["forces_rmse_meV_A"] < 0.7 * before["forces_rmse_meV_A"], "both have learnt something"
