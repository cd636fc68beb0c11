from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from aldriver.train.schedule import FINAL_LR, PLATEAU_EPOCHS, PLATEAU_FACTOR, Schedule, learning_rate_factor


def schedule(kind: str, total: int = 100) -> tuple[Schedule, torch.optim.Optimizer]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    return Schedule(optimizer, kind, 1e-3, total), optimizer


def test_cosine_rises_then_falls_to_its_end():
    factors = [learning_rate_factor(step, 100) for step in range(101)]
    top = factors.index(max(factors))
    assert 0 < top < 6
    assert factors[0] < 0.25
    assert all(a < b for a, b in pairwise(factors[: top + 1]))
    assert all(a >= b for a, b in pairwise(factors[top:]))
    assert factors[-1] == pytest.approx(FINAL_LR)
    assert learning_rate_factor(0, 1) <= 1.0


@pytest.mark.parametrize("kind", ["constant", "plateau"])
def test_constant_and_plateau_stay_after_the_rise(kind):
    s, optimizer = schedule(kind)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        s.step()
    assert rates[0] < 0.3e-3
    assert rates[5:] == [1e-3] * 95


def test_a_plateau_lowers_the_rate_when_nothing_gets_better():
    s, optimizer = schedule("plateau", total=10)
    for _ in range(10):
        s.step()
    for loss in (1.0, 0.9, 0.8):
        s.epoch(loss)
    assert s.learning_rate == 1e-3
    for _ in range(PLATEAU_EPOCHS - 1):
        s.epoch(0.8)
    assert s.learning_rate == 1e-3
    s.epoch(None)  # a loss that is no number is no better
    assert s.learning_rate == optimizer.param_groups[0]["lr"] == pytest.approx(PLATEAU_FACTOR * 1e-3)
    for _ in range(100):
        s.epoch(1.0)
    assert s.learning_rate == pytest.approx(FINAL_LR * 1e-3)


def test_constant_ignores_the_losses():
    s, _ = schedule("constant")
    for _ in range(50):
        s.step()
        s.epoch(1.0)
    assert s.learning_rate == 1e-3


def test_it_goes_on_from_its_state():
    one, _ = schedule("plateau", total=10)
    for _ in range(12):
        one.step()
        one.epoch(1.0)
    other, optimizer = schedule("plateau", total=10)
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict()
    assert optimizer.param_groups[0]["lr"] == one.learning_rate
