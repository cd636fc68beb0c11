from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aldriver.detect.audit import Counts, audit, drift


def counts(**some: int) -> Counts:
    return Counts(**{"left": 0, "flagged": 0, "audited": 0, "audited_bad": 0, "labelled": 0, "labelled_bad": 0} | some)


def test_rates_come_from_bayes_rule():
    """1000 frames: 100 of 900 left alone and 60 of 100 flagged are bad, all labelled: the rates are exact."""
    found = audit(counts(left=900, flagged=100, audited=900, audited_bad=100, labelled=100, labelled_bad=60))
    assert found.unnoticed == pytest.approx(100 / 900)
    assert found.miss_rate == pytest.approx(100 / 160)
    assert found.false_alarms == pytest.approx(40 / (40 + 800))
    for value, (low, high) in (
        (found.miss_rate, found.miss_rate_interval),
        (found.false_alarms, found.false_alarms_interval),
    ):
        assert low < value < high


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    p, q, left, flagged = 0.08, 0.5, 800, 200
    true_miss = p * left / (p * left + q * flagged)
    true_alarm = (1 - q) * flagged / ((1 - q) * flagged + (1 - p) * left)
    inside = np.zeros(2)
    for _ in range(400):
        found = audit(
            counts(
                left=left,
                flagged=flagged,
                audited=12,
                audited_bad=int(rng.binomial(12, p)),
                labelled=30,
                labelled_bad=int(rng.binomial(30, q)),
            )
        )
        for k, (truth, (low, high)) in enumerate(
            ((true_miss, found.miss_rate_interval), (true_alarm, found.false_alarms_interval))
        ):
            inside[k] += low <= truth <= high
    assert (inside / 400 >= 0.95).all()


def test_what_was_not_measured_is_not_claimed():
    nothing = audit(counts(left=50, flagged=5, labelled=5, labelled_bad=2))
    assert nothing.unnoticed is None and nothing.miss_rate is None and nothing.miss_rate_interval[1] > 0.99
    assert nothing.sentence.startswith("no audit: no audit label")
    everything = audit(counts(flagged=40, labelled=20, labelled_bad=5))
    assert everything.miss_rate == 0.0  # nothing was left alone: nothing can have been missed
    assert everything.sentence.startswith("no audit: no frame was left unflagged")
    assert audit(counts()).miss_rate is None


def test_generations_are_pooled_by_their_counts():
    one = counts(left=10, flagged=2, audited=2, audited_bad=1, labelled=2, labelled_bad=1)
    assert Counts.summed([one, one]) == counts(left=20, flagged=4, audited=4, audited_bad=2, labelled=4, labelled_bad=2)


def test_drift_is_neither_chance_nor_negligible():
    rng = np.random.default_rng(1)
    base = rng.lognormal(size=200)
    assert not drift(rng.lognormal(size=150), base).drifted
    assert drift(2.5 * rng.lognormal(size=150), base).drifted
    assert not drift(1.05 * rng.lognormal(size=20_000), rng.lognormal(size=20_000)).drifted  # sure, but negligible
    assert drift([], base) is None
    assert drift(np.r_[base, np.nan], base).p == pytest.approx(1.0)
    shifted = np.r_[base, np.full(300, np.inf)]
    expected = stats.ks_2samp(np.r_[base, np.full(300, 1e9)], base)
    assert drift(shifted, base).distance == pytest.approx(expected.statistic)
