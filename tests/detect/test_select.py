from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from aldriver.core.errors import InputError
from aldriver.detect.select import select, typical_separation

RATIO = st.one_of(st.floats(0, 3), st.sampled_from([0.0, 0.5, 0.999, 1.0, 1.001, 2.0, 2.0, math.inf, math.nan]))


@st.composite
def cases(draw):
    """Small crowded candidate sets: coarse coordinates make duplicates and ties common."""
    n = draw(st.integers(0, 14))
    coordinate = st.integers(0, 6).map(float)
    vectors = np.array(draw(st.lists(st.tuples(coordinate, coordinate), min_size=n, max_size=n))).reshape(n, 2)
    ratios = np.array(draw(st.lists(RATIO, min_size=n, max_size=n)))
    if n and draw(st.booleans()):
        vectors[draw(st.integers(0, n - 1))] = np.nan
    known = np.array(draw(st.lists(st.tuples(coordinate, coordinate), max_size=3))).reshape(-1, 2)
    budget = draw(st.integers(0, 8))
    options = {
        "budget": budget,
        "audit": draw(st.integers(0, budget)),
        "fill": draw(st.booleans()),
        "known": known,
        "seed": draw(st.integers(0, 3)),
        "separation": draw(st.sampled_from([None, 0.0, 0.5, 1.0, 2.5])),
    }
    ids = [f"frame-{i:02d}" for i in draw(st.permutations(range(n)))]
    return vectors, ratios, ids, options


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_what_always_holds(case):
    vectors, ratios, ids, options = case
    s = select(vectors, ratios, ids=ids, **options)
    picked = s.indices
    assert len(picked) == len(set(picked)) <= options["budget"]
    assert len(s.audit) <= options["audit"]
    assert all(ratios[i] > 1 for i in s.chosen)
    assert all(ratios[i] <= 1 for i in s.audit + s.filled)
    assert list(ratios[s.chosen]) == sorted(ratios[s.chosen], reverse=True)
    assert sum(s.reasons.values()) == len(ratios) and min(s.reasons.values()) >= 0
    assert {kind: len(getattr(s, kind)) for kind in ("chosen", "audit", "filled")}.items() <= s.reasons.items()
    quarantined = np.isnan(ratios) | np.isnan(vectors).any(axis=1)
    assert s.reasons["quarantined"] == quarantined.sum() == sum(s.quarantine.values())
    assert not quarantined[picked].any()
    if not options["fill"]:
        assert not s.filled
    # the audit is uniform and may lie anywhere; all others keep their distance
    apart = s.audit + s.chosen + s.filled
    taken = np.concatenate([vectors[apart], options["known"]])
    for k in range(len(s.audit), len(apart)):
        others = np.delete(taken, k, axis=0)
        assert (np.linalg.norm(others - taken[k], axis=1) > s.separation).all()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(case, random):
    vectors, ratios, ids, options = case
    s = select(vectors, ratios, ids=ids, **options)
    order = list(range(len(ids)))
    random.shuffle(order)
    options = {**options, "known": options["known"][::-1]}
    t = select(vectors[order], ratios[order], ids=[ids[i] for i in order], **options)
    assert s.separation == t.separation and s.reasons == t.reasons and s.message == t.message
    for kind in ("chosen", "audit", "filled"):
        assert [ids[i] for i in getattr(s, kind)] == [ids[order[i]] for i in getattr(t, kind)]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.data())
def test_a_larger_ratio_never_loses_a_place(case, data):
    """A frame taken for its novelty (or to fill) is still taken when its ratio rises."""
    vectors, ratios, ids, options = case
    s = select(vectors, ratios, ids=ids, **options)
    novel = s.chosen + s.filled
    if not novel:
        return
    i = data.draw(st.sampled_from(novel))
    raised = ratios.copy()
    raised[i] = data.draw(
        st.one_of(st.floats(ratios[i], 5.0), st.just(math.inf)) if ratios[i] < 5 else st.just(math.inf)
    )
    t = select(vectors, raised, ids=ids, **options)
    assert i in t.chosen + t.filled


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_nothing_is_left_out_without_a_reason(case):
    """With places left, each flagged frame that was not taken is alike a taken or labelled one."""
    vectors, ratios, ids, options = case
    s = select(vectors, ratios, ids=ids, **options)
    if len(s.indices) == options["budget"]:
        return
    assert not s.reasons["over_budget"] and not s.reasons["over_quota"] and not s.reasons["thinned"]
    taken = np.concatenate([vectors[s.indices], options["known"]])
    for i in set(np.flatnonzero(ratios > 1)) - set(s.indices):
        if np.isfinite(vectors[i]).all():
            assert np.linalg.norm(taken - vectors[i], axis=1).min() <= s.separation + 1e-12


def spread(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 20))


def names(n: int) -> list[str]:
    return [f"{k:04x}" for k in range(n)]


def test_the_worst_of_equally_different_ones_come_first():
    ratios = np.array([0.2, 1.5, 3.0, 1.2, 0.9, 2.0])
    s = select(np.eye(6), ratios, budget=3, ids=names(6), seed=0)
    assert s.chosen == [2, 5, 1]
    assert s.reasons["over_budget"] == 1 and s.reasons["below_threshold"] == 2


def test_the_most_different_of_equally_bad_ones_come_first():
    """Farthest-point sampling from the labelled frames: on a line each pick halves the largest gap."""
    x = np.linspace(0, 1, 17)[:, None]
    s = select(x, np.full(17, 2.0), budget=4, ids=names(17), seed=0, known=[[0.0], [1.0]], separation=0.0)
    others = set(s.indices) - {8}
    assert 8 in s.indices and {4, 12} < others and all(x[i] in (0.125, 0.375, 0.625, 0.875) for i in others - {4, 12})


def test_the_worst_is_taken_even_where_much_is_labelled():
    x = np.array([[0.1], [5.0], [9.0]])
    s = select(x, [4.0, 2.0, 1.5], budget=1, ids=names(3), seed=0, known=[[0.0]], separation=0.01)
    assert s.chosen == [0]


def test_a_new_element_comes_first_and_nan_never():
    s = select(spread(4), [1.5, math.inf, math.nan, 9.0], budget=4, fill=True, ids=names(4), seed=0)
    assert s.chosen == [1, 3, 0]
    assert s.quarantine == {"the score is not a number": 1} and "1 quarantined" in s.message


def test_neighbouring_snapshots_are_not_both_taken():
    """Snapshots of a slow path: a step is far smaller than the typical distance."""
    time = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    path = np.stack([np.cos(time), np.sin(time)], axis=1)
    s = select(path, 2 + np.cos(3 * time), budget=100, ids=names(400), seed=0)
    gaps = np.diff(sorted(s.chosen))
    assert gaps.min() > 1 and s.reasons["near_duplicate"] > 50


def test_labelled_frames_are_not_labelled_again():
    x = spread(5)
    s = select(x, np.full(5, 2.0), budget=5, ids=names(5), seed=0, known=x[[1, 3]] + 1e-9)
    assert sorted(s.chosen) == [0, 2, 4] and s.reasons["near_duplicate"] == 2


def test_copies_of_one_frame_count_once():
    x = np.repeat(spread(1), 7, axis=0)
    s = select(x, np.linspace(1.1, 2.0, 7), budget=5, ids=names(7), seed=0)
    assert s.chosen == [6] and "fewer than the budget of 5" in s.message


def test_the_separation_follows_the_scale_of_the_vectors():
    x = spread(50)
    assert typical_separation(1000 * x) == pytest.approx(1000 * typical_separation(x))
    two_systems = np.concatenate([x, x + 100.0])
    assert typical_separation(two_systems) < 2 * typical_separation(x)
    ratios = np.random.default_rng(1).uniform(0.5, 3, 50)
    picks = [select(scale * x, ratios, budget=9, ids=names(50), seed=0).chosen for scale in (1e-3, 1.0, 1e3)]
    assert picks[0] == picks[1] == picks[2]


def test_audit_is_uniform_below_the_threshold():
    """Over many seeds each frame below is drawn equally often, whatever its ratio."""
    n, seeds = 20, 2000
    ratios = np.linspace(0.0, 1.0, n)
    ratios[-2:] = 2.0
    counts = np.zeros(n)
    for seed in range(seeds):
        s = select(100 * np.eye(n), ratios, budget=5, audit=3, ids=names(n), seed=seed)
        assert len(s.audit) == 3
        counts[s.audit] += 1
    assert (counts[-2:] == 0).all()
    assert stats.chisquare(counts[:-2]).pvalue > 1e-3


def test_audit_takes_its_share_of_the_budget_and_gives_back_what_it_cannot_use():
    ratios = np.array([2.0] * 8 + [0.5])
    s = select(spread(9), ratios, budget=6, audit=3, ids=names(9), seed=0)
    assert len(s.audit) == 1 and len(s.chosen) == 5
    known_twin = select(spread(9), ratios, budget=6, audit=3, ids=names(9), seed=0, known=spread(9)[8:])
    assert len(known_twin.audit) == 0 and len(known_twin.chosen) == 6


def test_fill_spreads_out():
    """Farthest-point frames cover three clusters before any cluster is visited twice."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [50, 0], [0, 50]])
    x = np.concatenate([c + rng.normal(size=(10, 2)) for c in centres])
    s = select(x, np.full(30, 0.3), budget=3, fill=True, ids=names(30), seed=0)
    assert {i // 10 for i in s.filled} == {0, 1, 2} and not s.chosen
    known = select(x, np.full(30, 0.3), budget=2, fill=True, ids=names(30), seed=0, known=centres[:1])
    assert {i // 10 for i in known.filled} == {1, 2}


def test_nothing_to_choose_from_is_said_not_raised():
    s = select(np.zeros((0, 5)), [], budget=4, audit=1, fill=True, ids=[], seed=0, known=spread(3)[:, :5])
    assert s.indices == [] and "0 of 0 candidates" in s.message
    calm = select(spread(3), [0.1, 0.2, 0.3], budget=4, ids=names(3), seed=0)
    assert calm.indices == [] and calm.reasons["below_threshold"] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"ids": ["a"]},
        {"ratios": [1.0]},
        {"vectors": np.zeros(3)},
        {"audit": 5},
        {"budget": -1},
        {"known": np.zeros((2, 7))},
    ],
)
def test_impossible_requests_are_refused(change):
    request = {"vectors": spread(3), "ratios": [1.0, 2.0, 3.0], "ids": names(3), "budget": 2, "audit": 0} | change
    with pytest.raises(InputError):
        select(request.pop("vectors"), request.pop("ratios"), seed=0, **request)
