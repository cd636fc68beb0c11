from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aldriver.core.errors import InputError
from aldriver.detect.calibrate import needed, threshold


@pytest.mark.parametrize(("n", "quantile"), [(19, 0.95), (40, 0.9), (99, 0.95), (10, 0.5)])
def test_false_alarms_of_exchangeable_scores_are_as_promised(n, quantile):
    """Over many draws P(new > threshold) = 1 − rank/(n+1), whatever the distribution of the scores."""
    rng = np.random.default_rng(n)
    draws = 8000
    alarms = 0
    for _ in range(draws):
        scores = rng.lognormal(sigma=2.0, size=n + 1)
        alarms += scores[-1] > threshold(scores[:-1], quantile).value
    promised = 1 - threshold(np.arange(n), quantile).coverage
    assert promised <= 1 - quantile + 1e-12
    assert promised > 1 - quantile - 1 / (n + 1)
    assert stats.binomtest(alarms, draws, promised).pvalue > 1e-3


def test_is_the_corrected_rank_not_the_plain_quantile():
    t = threshold(np.arange(1.0, 21.0), 0.9)
    assert (t.rank, t.value, t.frames, t.note) == (19, 19.0, 20, "")
    assert t.coverage == pytest.approx(19 / 21)


@pytest.mark.parametrize(("quantile", "count"), [(0.95, 19), (0.9, 9), (0.99, 99), (0.5, 1)])
def test_number_of_frames_needed(quantile, count):
    assert needed(quantile) == count
    assert threshold(np.arange(float(count)), quantile).note == ""
    if count > 1:
        short = threshold(np.arange(count - 1.0), quantile)
        assert short.note.startswith("too few held-out frames")
        assert short.value == count - 2 or short.value == 1e-12
        assert short.coverage < quantile


def test_order_does_not_matter():
    scores = np.random.default_rng(0).normal(size=30) ** 2
    assert threshold(scores, 0.9) == threshold(scores[::-1], 0.9)


def test_nan_is_left_out_and_counted():
    t = threshold([1.0, np.nan, 3.0, 2.0], 0.5)
    assert (t.value, t.frames) == (2.0, 3)
    assert "1 held-out frame(s) without a finite score" in t.note


def test_zero_scores_leave_a_usable_threshold():
    assert threshold(np.zeros(40), 0.9).value > 0


@pytest.mark.parametrize("bad", [[], [np.nan], [1.0, np.inf]])
def test_unusable_scores_are_refused(bad):
    with pytest.raises(InputError, match="held-out"):
        threshold(bad, 0.9)
