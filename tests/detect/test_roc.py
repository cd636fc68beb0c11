from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from aldriver.core.errors import InputError
from aldriver.detect.roc import auroc, auroc_interval, compare, frame_value, spearman, worst


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=30))
def test_it_is_the_weighted_mann_whitney_statistic(items):
    """Against scikit-learn, with ties, and with each item repeated as often as its weight says."""
    positive, scores, weights = (np.array(column) for column in zip(*items, strict=True))
    both = weights[positive].sum() > 0 and weights[~positive].sum() > 0
    got = auroc(positive, scores, weights)[0]
    if not both:
        assert math.isnan(got)
        return
    repeated = np.repeat(np.arange(len(items)), weights)
    assert got == pytest.approx(roc_auc_score(positive[repeated], scores[repeated]), abs=1e-12)
    assert got == pytest.approx(1.0 - auroc(positive, -scores.astype(float), weights)[0], abs=1e-12)


def test_perfect_useless_and_inverted_scores():
    errors = np.arange(20.0)
    bad = worst(errors)
    assert bad.sum() == 2 and bad[-2:].all()
    assert auroc(bad, errors)[0] == 1.0 and auroc(bad, -errors)[0] == 0.0 and auroc(bad, np.ones(20))[0] == 0.5
    assert auroc(bad, np.where(bad, np.inf, 0.0))[0] == 1.0


def test_the_worst_share_is_rounded_up_and_keeps_ties_together():
    assert worst(np.arange(100.0)).sum() == 10 and worst(np.arange(101.0)).sum() == 11
    assert worst([1.0]).all() and worst([]).size == 0
    assert worst([0.0, 2.0, 2.0, 2.0]).sum() == 3


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Normal scores shifted by δ: the true AUROC is Φ(δ/√2)."""
    from scipy.stats import norm

    delta, truth, hits, trials = 1.0, norm.cdf(1.0 / math.sqrt(2)), 0, 150
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        positive = np.arange(120) < 40
        one = auroc_interval(positive, rng.normal(size=120) + delta * positive, level=0.9, resamples=200, seed=seed)
        hits += one.low <= truth <= one.high
    assert abs(hits / trials - 0.9) < 0.08


def test_items_of_a_group_are_drawn_together():
    """Copies of the same items add no knowledge: with the copies as a group the interval stays as it was."""
    rng = np.random.default_rng(0)
    positive = np.arange(60) < 20
    scores = rng.normal(size=60) + positive
    one = auroc_interval(positive, scores)
    copies = auroc_interval(np.tile(positive, 5), np.tile(scores, 5), list(range(60)) * 5)
    alone = auroc_interval(np.tile(positive, 5), np.tile(scores, 5))
    assert copies.value == pytest.approx(one.value) == alone.value
    assert copies.high - copies.low == pytest.approx(one.high - one.low, rel=0.1)
    assert alone.high - alone.low < 0.6 * (one.high - one.low)


def frames(n: int = 30, seed: int = 0) -> tuple[list[np.ndarray], dict[str, list[np.ndarray]]]:
    rng = np.random.default_rng(seed)
    errors = [rng.gamma(2.0, 0.01 * (1 + k), size=rng.integers(4, 12)) for k in range(n)]
    signals = {
        "right": [3.0 * e for e in errors],
        "of the frame": [np.full(len(e), e.mean()) for e in errors],
        "noise": [rng.normal(size=len(e)) for e in errors],
    }
    return errors, signals


def test_signals_are_compared_on_the_same_atoms_and_frames():
    errors, signals = frames()
    found = compare(errors, signals, resamples=100)
    assert found["right"].atoms.value == 1.0 and found["right"].within == pytest.approx(1.0)
    assert found["right"].rank_atoms == pytest.approx(1.0)
    # it knows the frame and nothing about its atoms
    assert found["of the frame"].frames.value > 0.95 and math.isnan(found["of the frame"].within)
    assert abs(found["noise"].rank_atoms) < 0.2 and found["noise"].atoms.high < 0.9
    assert {r.atoms.positives for r in found.values()} == {math.ceil(0.1 * sum(map(len, errors)))}
    assert {r.frames.positives for r in found.values()} == {3}


def test_a_frames_own_score_can_stand_in_for_its_atoms():
    errors, signals = frames()
    truth = [frame_value(e, "rms") for e in errors]
    found = compare(errors, signals, frame_scores={"noise": truth}, resamples=20)
    assert found["noise"].frames.value == 1.0 and found["noise"].atoms.value < 0.9


def test_scores_that_are_not_numbers_are_left_out_and_counted():
    one = auroc_interval([True, False, True, False], [1.0, 0.0, math.nan, 0.5])
    assert (one.value, one.left_out, one.positives, one.negatives) == (1.0, 1, 1, 2)
    nothing = auroc_interval([True, False], [math.nan, math.nan])
    assert math.isnan(nothing.value) and nothing.left_out == 2


def test_frame_values_and_rank_correlation():
    assert frame_value([3.0, 4.0], "rms") == pytest.approx(math.sqrt(12.5))
    assert frame_value([3.0, 4.0], "mean") == 3.5 and frame_value([3.0, 4.0], "max") == 4.0
    assert math.isnan(frame_value([], "max"))
    assert spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1.0) and math.isnan(spearman([1, 1], [0, 1]))


@pytest.mark.parametrize(
    ("errors", "signals"),
    [
        ([np.ones(2)], {"a": [np.ones(2)]}),
        ([np.ones(2), np.ones(3)], {"a": [np.ones(2), np.ones(2)]}),
        ([np.ones(2), np.array([1.0, np.nan])], {"a": [np.ones(2), np.ones(2)]}),
    ],
)
def test_what_cannot_be_ranked_is_refused(errors, signals):
    with pytest.raises(InputError):
        compare(errors, signals)
