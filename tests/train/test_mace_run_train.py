"""Beside mace's own training functions: same start, frames in the same order, loss, rate and average; the same result.

Where batches and losses differ (``mace_run_train`` itself) the two are compared over several seeds by
``aldriver.testing.bench``.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from aldriver.core.recipe_train import Train
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.testing.small_mace import small_mace
from aldriver.train.base import make_adapter
from aldriver.train.loop import TrainingLoop
from aldriver.train.loss import make_example
from aldriver.train.metrics import measure

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mace") is None, reason="mace is not installed here")
EPOCHS, SEED, BATCH = 2, 3, 2
QUADRATIC = 1e3
"""Width of the Huber terms, beyond every error: mace's is the same number in eV/Å³ as in eV/Å, ours in GPa."""


def test_the_loop_does_what_maces_training_functions_do(iron, tmp_path):
    from aldriver.testing.bench_mace import SETTINGS, STRESS, Theirs

    start = small_mace(("Fe",), atomic_energies={"Fe": -3.75}, dtype="float64", seed=1)
    known, unseen = iron(6), iron(4, seed=9)
    weights = {"energy": 1.0, "forces": 10.0, "stress": STRESS / EV_A3_TO_GPA**2}
    same = {"epochs": EPOCHS, "batch_size": BATCH, "dtype": "float64", "weights": weights, "huber_delta": QUADRATIC}
    settings = Train.model_validate(SETTINGS | same)
    adapter = make_adapter(start)
    adapter.set_trainable(settings)
    sides = [[make_example(adapter, atoms, None) for atoms in side] for side in (known, unseen)]
    before = measure(adapter, sides[1], settings)
    loop = TrainingLoop(adapter, *sides, settings, tmp_path / "ours", seed=SEED, key="test")
    history = loop.run().history

    # Adam's variant AMSGrad, which mace takes by default, is the one thing that the loop does not have
    options = {"seed": SEED, "huber_delta": QUADRATIC, "amsgrad": False, "batch_size": BATCH}
    theirs = Theirs(start, known, unseen, tmp_path, **options)
    other = make_adapter(start)
    assert dict(other.module.named_parameters()).keys() == theirs.averaged().keys()
    for line in history:
        theirs.epoch()
        with torch.no_grad():
            for name, value in theirs.averaged().items():
                other.module.get_parameter(name).copy_(value)
        expected = measure(other, sides[1], settings)
        assert line["valid"] == pytest.approx(expected, rel=1e-9)
    assert history[-1]["valid"]["loss"] < 0.95 * before["loss"], "both have learnt something"
