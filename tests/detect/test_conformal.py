"""Promises about force errors, checked on scores and errors drawn at random."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aldriver.core.errors import InputError
from aldriver.detect.calibrate import (
    frames_needed,
    interval,
    limit,
    limits_by_set,
    outcome_of,
    upper_bound,
)


def drawn(n: int, rng: np.random.Generator, noise: float = 0.5, centre: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    errors = rng.lognormal(centre, 0.8, n)
    return errors * rng.lognormal(0.0, noise, n), errors


@pytest.mark.parametrize(("miss_rate", "noise"), [(0.05, 0.3), (0.1, 1.0), (0.2, 30.0)])
def test_the_miss_rate_is_kept_whatever_the_score_is_worth(miss_rate, noise):
    """Over many calibrations P(not flagged | error > tolerance) is the mean of k/(b + 1), which is at most α."""
    rng = np.random.default_rng(1)
    missed = total = 0
    promised = []
    for _ in range(1500):
        scores, errors = drawn(120, rng, noise)
        found = limit(scores[:-1], errors[:-1], tolerance=1.0, miss_rate=miss_rate)
        assert found.outcome == "certified"
        if errors[-1] > 1.0:
            total += 1
            missed += not found.ratio(scores[-1]) > 1.0
            promised.append(found.promise)
    assert max(promised) <= miss_rate
    assert stats.binomtest(missed, total, float(np.mean(promised))).pvalue > 1e-3


def test_false_alarms_are_those_of_the_calibration_frames():
    scores, errors = drawn(400, np.random.default_rng(2))
    found = limit(scores, errors, tolerance=1.0, miss_rate=0.1)
    flagged = np.array([found.ratio(s) > 1 for s in scores])
    assert found.false_alarms == np.sum(flagged & (errors <= 1.0))
    assert np.sum(~flagged & (errors > 1.0)) == found.rank - 1  # the k-th itself is flagged
    assert found.above == np.sum(errors > 1.0)


def test_ties_are_flagged():
    scores, errors = np.ones(30), np.full(30, 2.0)
    found = limit(scores, errors, tolerance=1.0, miss_rate=0.1)
    assert found.outcome == "certified" and found.ratio(1.0) > 1.0


@pytest.mark.parametrize(("above", "outcome"), [(9, "certified"), (8, "uncertified"), (0, "uncertified")])
def test_nothing_is_promised_of_too_few_frames(above, outcome):
    errors = np.r_[np.full(above, 2.0), np.full(20, 0.5)]
    found = limit(np.linspace(3, 1, len(errors)), errors, tolerance=1.0, miss_rate=0.1)
    assert found.outcome == outcome == found.sentence.split(":")[0]
    if outcome == "uncertified":
        assert found.promise is None
        assert all(found.ratio(s) > 1 for s in (0.0, 1e-12, 0.5, 10.0))
        order = [found.ratio(s) for s in (0.1, 0.2, 5.0)]
        assert order == sorted(order) and len(set(order)) == 3
        assert f"{9 - above} more of them" in found.sentence
    empty = limit([], [], tolerance=1.0, miss_rate=0.1)
    assert empty.outcome == "uncertified" and empty.ratio(0.3) > 1 and math.isnan(empty.ratio(math.nan))


def test_a_potential_without_large_errors_is_left_alone_within_what_was_seen():
    scores = np.linspace(0.1, 2.0, 29)
    found = limit(scores, np.full(29, 0.5), tolerance=1.0, miss_rate=0.1)
    assert found.outcome == "accurate" and found.false_alarms == 0
    assert found.ratio(2.0) == 1.0 and found.ratio(2.0001) > 1.0
    assert limit(scores[:28], np.full(28, 0.5), tolerance=1.0, miss_rate=0.1).outcome == "uncertified"
    # two frames above the tolerance among many: too few to certify, few enough to call it accurate
    rare = limit(np.arange(200.0), np.r_[2.0, 2.0, np.zeros(198)], tolerance=1.0, miss_rate=0.1)
    assert rare.outcome == "accurate" and rare.share_upper < 0.1


def test_sentences_say_how_many_frames_are_missing():
    for above in range(5):
        n = frames_needed(above, 0.1)
        assert outcome_of(above, n, 0.1) == "accurate" and outcome_of(above, n - 1, 0.1) == "uncertified"


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (17, 400)])
def test_intervals_are_clopper_and_pearsons(count, n):
    expected = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    assert interval(count, n) == pytest.approx((expected.low, expected.high))
    one_sided = stats.binomtest(count, n, alternative="less").proportion_ci(0.95, method="exact")
    assert upper_bound(count, n) == pytest.approx(one_sided.high)
    assert interval(0, 0) == (0.0, 1.0)


def test_element_sets_have_limits_of_their_own_where_they_can():
    """A score that reads twice as high for one set: the pooled limit breaks the promise there, its own keeps it."""
    rng = np.random.default_rng(3)
    missed = {"own": [], "pooled": []}
    for _ in range(200):
        s1, e1 = drawn(150, rng, 0.3)
        s2, e2 = drawn(150, rng, 0.3)
        sets = ["Fe"] * 150 + ["Cu-Fe"] * 150 + ["Cu"]
        scores, errors = np.r_[s1, s2 / 4, 0.1], np.r_[e1, e2, 0.1]
        pooled, own, notes = limits_by_set(scores, errors, sets, tolerance=1.0, miss_rate=0.1)
        assert set(own) == {"Fe", "Cu-Fe"} and len(notes) == 1 and notes[0].startswith("Cu:")
        s, e = drawn(100, rng, 0.3)
        bad = (s / 4)[e > 1.0]
        missed["own"].append(np.mean([own["Cu-Fe"].ratio(x) <= 1 for x in bad]))
        missed["pooled"].append(np.mean([pooled.ratio(x) <= 1 for x in bad]))
    assert np.mean(missed["own"]) < 0.11 and np.mean(missed["pooled"]) > 0.15
    one, own, notes = limits_by_set(s1, e1, ["Fe"] * 150, tolerance=1.0, miss_rate=0.1)
    assert own == {"Fe": one} and not notes


def test_scores_and_errors_that_are_not_numbers():
    rng = np.random.default_rng(4)
    scores, errors = drawn(100, rng)
    whole = limit(scores, errors, tolerance=1.0, miss_rate=0.1)
    assert limit(np.r_[scores, np.nan], np.r_[errors, 5.0], tolerance=1.0, miss_rate=0.1) == whole
    assert limit(np.r_[scores, 9.0], np.r_[errors, np.inf], tolerance=1.0, miss_rate=0.1).above == whole.above + 1
    for s, e in ((np.inf, 1.0), (1.0, np.nan)):
        with pytest.raises(InputError):
            limit(np.r_[scores, s], np.r_[errors, e], tolerance=1.0, miss_rate=0.1)
    with pytest.raises(InputError, match="100 scores for 99 errors"):
        limit(scores, errors[1:], tolerance=1.0, miss_rate=0.1)
