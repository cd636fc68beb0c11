from __future__ import annotations

import pytest
import torch

from aldriver.train.ema import MovingAverage


def test_average_by_hand():
    p = {"w": torch.nn.Parameter(torch.tensor([0.0]))}
    ema = MovingAverage(p, decay=0.5)
    expected = 0.0
    for n, value in enumerate((1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 8.0), start=1):
        with torch.no_grad():
            p["w"].fill_(value)
        ema.update(p)
        keep = min(0.5, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * value
        assert float(ema.average["w"]) == pytest.approx(expected)


def test_applied_swaps_and_gives_back():
    p = {"w": torch.nn.Parameter(torch.tensor([1.0]))}
    ema = MovingAverage(p, decay=0.9)
    with torch.no_grad():
        p["w"].fill_(5.0)
    with pytest.raises(RuntimeError), ema.applied(p):
        assert float(p["w"]) == 1.0
        raise RuntimeError
    assert float(p["w"]) == 5.0


def test_decay_zero_is_no_average():
    p = {"w": torch.nn.Parameter(torch.tensor([1.0]))}
    ema = MovingAverage(p, decay=0.0)
    with torch.no_grad():
        p["w"].fill_(5.0)
    ema.update(p)
    assert float(ema.average["w"]) == 5.0
