from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from aldriver.core.errors import InputError, StoreError
from aldriver.train.checkpoint import CHECKPOINT, load_checkpoint, random_states, restore_random_states, save_checkpoint


def draws() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.random()), random.random()


@pytest.fixture(autouse=True)
def keep_generators():
    states = random_states()
    yield
    restore_random_states(states)


def test_state_and_random_numbers_come_back(tmp_path):
    state = {"epoch": 3, "weights": {"a": torch.arange(5.0)}, "best_loss": float("inf")}
    random.gauss(0, 1)  # leaves a half-used pair behind in the generator
    np.random.normal()
    save_checkpoint(tmp_path, state, key="k")
    expected = draws(), random.gauss(0, 1), np.random.normal()
    draws()
    loaded = load_checkpoint(tmp_path, key="k")
    assert loaded is not None
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["weights"]["a"], torch.arange(5.0))
    assert (draws(), random.gauss(0, 1), np.random.normal()) == expected


def test_readable_without_running_code_from_the_file(tmp_path):
    save_checkpoint(tmp_path, {"x": torch.zeros(2)}, key="k")
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["key"] == "k"


def test_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path, key="k") is None


def test_a_write_cut_short_is_ignored_and_removed(tmp_path):
    save_checkpoint(tmp_path, {"epoch": 1}, key="k")
    whole = (tmp_path / CHECKPOINT).read_bytes()
    leftover = tmp_path / f".{CHECKPOINT}.4711.abcdef.tmp"
    leftover.write_bytes(whole[: len(whole) // 2])
    loaded = load_checkpoint(tmp_path, key="k")
    assert loaded == {"epoch": 1}
    assert not leftover.exists()


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    save_checkpoint(tmp_path, {"epoch": 1}, key="k")
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match=r"damaged.*delete it"):
        load_checkpoint(tmp_path, key="k")


def test_another_trainings_checkpoint_is_refused(tmp_path):
    save_checkpoint(tmp_path, {"epoch": 1}, key="k")
    with pytest.raises(InputError, match="other frames, settings, seed or start"):
        load_checkpoint(tmp_path, key="other")
