"""Selection from a stream: chunks, groups, costs, quotas, silence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from aldriver.core.errors import InputError
from aldriver.detect.select import Selector

RATIO = st.one_of(st.floats(0, 3), st.sampled_from([0.0, 0.999, 1.0, 1.001, 2.0, 2.0, math.inf, math.nan]))
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
GROUPS = {"walker": ["w0", "w1", "w2"], "elements": ["Cu", "Cu-Fe"]}


@st.composite
def streams(draw):
    """A small crowded stream, and a pool that is often too small for it."""
    n = draw(st.integers(1, 16))
    coordinate = st.integers(0, 6).map(float)
    column = {
        "ids": [f"frame-{i:02d}" for i in range(n)],
        "ratios": np.array(draw(st.lists(RATIO, min_size=n, max_size=n))),
        "vectors": np.array(draw(st.lists(st.tuples(coordinate, coordinate), min_size=n, max_size=n))).reshape(n, 2),
        "costs": np.array(draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=n, max_size=n))),
        "refused": draw(st.lists(st.sampled_from(["", "", "", "unphysical"]), min_size=n, max_size=n)),
        "groups": {k: draw(st.lists(st.sampled_from(v), min_size=n, max_size=n)) for k, v in GROUPS.items()},
    }
    budget = draw(st.integers(0, 8))
    audit, seed = draw(st.integers(0, budget)), draw(st.integers(0, 3))
    how = {
        "budget": budget,
        "core_hours": draw(st.sampled_from([None, 0.0, 0.5, 2.0, 5.0])),
        "known": np.array(draw(st.lists(st.tuples(coordinate, coordinate), max_size=3))).reshape(-1, 2),
        "quotas": draw(st.sampled_from([{}, {"walker": 1}, {"elements": 2, "walker": 2}, {"elements": 0}])),
        "heard": draw(st.sampled_from([None, {"walker": ["w0"]}, {"walker": [], "elements": ["Cu"]}])),
        "fill": draw(st.booleans()),
        "separation": draw(st.sampled_from([None, 0.0, 0.5, 1.0, 2.5])),
    }
    return column, {"audit": audit, "seed": seed, "pool": draw(st.sampled_from([2, 4, 7, 50]))}, how


def picked(column, made, how, *, order=None, cuts=()):
    """Selection of a stream in some order and in some chunks, with names instead of positions."""
    n = len(column["ids"])
    order = list(range(n)) if order is None else order
    selector = Selector(**made)
    for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), n], strict=True):
        index = order[low:high]
        selector.add(
            [column["ids"][i] for i in index],
            column["ratios"][index],
            column["vectors"][index],
            groups={k: [names[i] for i in index] for k, names in column["groups"].items()},
            costs=column["costs"][index],
            refused=[column["refused"][i] for i in index],
        )
    s = selector.select(**how)
    return s, {k: [order[p] for p in getattr(s, k)] for k in ("chosen", "forced", "audit", "filled")}


@settings(QUICK, max_examples=80)
@given(streams(), st.randoms(use_true_random=False), st.data())
def test_neither_order_nor_chunks_matter(stream, random, data):
    n = len(stream[0]["ids"])
    order = list(range(n))
    random.shuffle(order)
    cuts = data.draw(st.lists(st.integers(0, n), max_size=4))
    s, one = picked(*stream)
    t, two = picked(*stream, order=order, cuts=cuts)
    assert one == two
    assert (s.reasons, s.quarantine, s.separation, s.core_hours, s.message) == (
        t.reasons, t.quarantine, t.separation, t.core_hours, t.message
    )  # fmt: skip


@settings(QUICK, max_examples=80)
@given(streams())
def test_no_limit_is_ever_passed(stream):
    column, made, how = stream
    s, _ = picked(*stream)
    every = s.indices
    assert len(set(every)) == len(every) <= how["budget"] and len(s.audit) <= made["audit"]
    spent = sum(column["costs"][every])
    assert s.core_hours == pytest.approx(spent)
    assert how["core_hours"] is None or s.core_hours <= how["core_hours"]
    for kind, most in how["quotas"].items():
        by_score = [column["groups"][kind][i] for i in s.chosen + s.forced + s.filled]
        assert all(by_score.count(name) <= most for name in by_score)
    assert not any(column["refused"][i] or math.isnan(column["ratios"][i]) for i in every)
    assert s.reasons.get("unphysical", 0) == sum(map(bool, column["refused"]))
    assert sum(s.reasons.values()) == len(column["ids"]) and min(s.reasons.values()) >= 0
    assert all(column["ratios"][i] > 1 for i in s.chosen)
    assert all(column["ratios"][i] <= 1 for i in s.audit + s.filled)


@settings(QUICK, max_examples=120)
@given(streams(), st.data())
def test_a_larger_ratio_never_loses_a_place(stream, data):
    column, made, how = stream
    s, _ = picked(*stream)
    won = s.chosen + s.forced + s.filled
    if not won:
        return
    i = data.draw(st.sampled_from(won))
    old = column["ratios"][i]
    higher = st.one_of(st.floats(old, 5.0), st.just(math.inf)) if old < 5 else st.just(math.inf)
    raised = column | {"ratios": column["ratios"].copy()}
    raised["ratios"][i] = data.draw(higher)
    t, _ = picked(raised, made, how)
    assert i in t.chosen + t.forced + t.filled


def a_stream(n: int, d: int = 6, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return [f"{k:05x}" for k in range(n)], rng.gamma(2.0, 0.4, n), rng.normal(size=(n, d))


def test_the_worst_frame_and_far_clusters_survive_a_small_pool():
    """20 000 frames, 64 places in the pool: the worst is kept, and so is each of ten far groups of a few frames."""
    ids, ratios, x = a_stream(20_000)
    rare = np.arange(0, 20_000, 2000)
    x[rare] += 100.0 * np.random.default_rng(1).normal(size=(10, 6))
    ratios[rare] = 1.5
    selector = Selector(seed=0, pool=64)
    for i in range(0, len(ids), 300):
        selector.add(ids[i : i + 300], ratios[i : i + 300], x[i : i + 300])
    s = selector.select(budget=30)
    assert int(np.argmax(ratios)) == s.chosen[0] and set(rare) <= set(s.chosen) and len(s.chosen) == 30
    assert s.reasons["thinned"] >= (ratios > 1).sum() - 64


def test_what_is_kept_never_exceeds_the_pool_or_the_groups():
    ids, ratios, x = a_stream(3000)
    walkers = [str(k % 50) for k in range(3000)]
    for pool, most in ((200, 200), (10, 50)):
        selector = Selector(seed=0, pool=pool)
        for i in range(0, 3000, 100):
            selector.add(ids[i : i + 100], ratios[i : i + 100], x[i : i + 100], groups={"walker": walkers[i : i + 100]})
        kept = selector._cells.rows
        assert kept is not None and len(kept) <= most and len(set(kept.groups)) == 50
        worst = [max(ratios[k::50]) for k in range(50)]
        best = [kept.ratios[[g == (str(k),) for g in kept.groups]].max() for k in range(50)]
        assert best == worst


def test_the_audit_of_a_long_stream_is_uniform_below_the_threshold():
    """The pool is far smaller than the stream and has no say: scores of the audit follow those of all frames below."""
    ids, ratios, x = a_stream(4000)
    drawn = []
    for seed in range(20):
        selector = Selector(seed=seed, audit=20, pool=30)
        selector.add(ids, ratios, x)
        s = selector.select(budget=30)
        assert len(s.audit) == 20
        drawn += list(ratios[s.audit])
    assert max(drawn) <= 1 and stats.ks_2samp(drawn, ratios[ratios <= 1]).pvalue > 1e-3


def test_a_label_is_forced_where_none_was_for_long():
    ids, ratios, x = names_of(8), np.array([9.0, 8, 7, 6, 0.5, 0.7, 0.2, 0.1]), np.eye(8)
    walkers = ["w0"] * 4 + ["w1"] * 2 + ["w2"] * 2
    selector = Selector(seed=0)
    selector.add(ids, ratios, x, groups={"walker": walkers})
    s = selector.select(budget=4, heard={"walker": ["w0"]})
    assert s.forced == [5, 6] and s.chosen == [0, 1] and "2 after a long silence" in s.message
    assert selector.select(budget=4, heard={"walker": ["w0", "w1", "w2"]}).forced == []
    assert selector.select(budget=4).forced == []
    # a walker whose frames all have a label already is owed nothing
    assert selector.select(budget=4, heard={"walker": ["w0"]}, known=x[6:]).forced == [5]


def test_one_label_can_end_two_silences():
    selector = Selector(seed=0)
    groups = {"walker": ["w0", "w1", "w1"], "elements": ["Cu", "Cu", "Fe"]}
    selector.add(names_of(3), [0.5, 0.4, 0.6], np.eye(3), groups=groups)
    assert selector.select(budget=3, heard={"walker": [], "elements": []}).forced == [2, 0]


def test_quotas_share_the_budget_between_walkers():
    selector = Selector(seed=0)
    selector.add(names_of(6), [9.0, 8, 7, 6, 2, 1.5], np.eye(6), groups={"walker": ["hot"] * 4 + ["a", "b"]})
    s = selector.select(budget=4, quotas={"walker": 2})
    assert s.chosen == [0, 1, 4, 5] and s.reasons["over_quota"] == 2


def test_core_hours_bound_the_labels():
    selector = Selector(seed=0)
    selector.add(names_of(4), [9.0, 8, 7, 6], np.eye(4), costs=[5.0, 6.0, 1.0, 2.0])
    s = selector.select(budget=4, core_hours=8.0)
    assert s.chosen == [0, 2, 3] and s.core_hours == 8.0 and s.reasons["over_budget"] == 1
    assert "8 of 8 core-hours" in s.message


def test_frames_that_must_not_be_labelled_are_counted_under_their_reason():
    selector = Selector(seed=0)
    x = np.eye(4)
    x[1, 0] = math.inf
    selector.add(names_of(4), [2.0, 2.0, math.nan, 50.0], x, refused=["", "", "", "unphysical"])
    s = selector.select(budget=4)
    assert s.chosen == [0] and s.reasons["unphysical"] == 1 and "1 unphysical" in s.message
    assert s.quarantine == {"the score is not a number": 1, "the vector is not finite": 1}


def test_an_empty_stream_gives_an_empty_selection():
    s = Selector(seed=0, audit=1).select(budget=3, known=np.eye(3), quotas={"walker": 1}, heard={"walker": []})
    assert s.indices == [] and "0 of 0 candidates" in s.message
    one = Selector(seed=0)
    one.add(["a"], [2.0], [[0.0, 0.0]])
    one.add([], [], np.zeros((0, 0)))
    assert one.select(budget=3).chosen == [0]


@pytest.mark.parametrize(
    "change",
    [
        {"costs": [1.0, -1.0]},
        {"costs": [1.0, math.nan]},
        {"groups": {"walker": ["a"]}},
        {"groups": {"system": ["a", "b"]}},
        {"refused": [""]},
        {"vectors": np.zeros((2, 5))},
    ],
)
def test_candidates_that_do_not_fit_are_refused(change):
    selector = Selector(seed=0)
    good = {"groups": {"walker": ["a", "b"]}}
    selector.add(names_of(2), [1.0, 2.0], np.eye(2), **good)
    with pytest.raises(InputError):
        entries = {"ratios": [1.0, 2.0], "vectors": np.eye(2)} | good | change
        selector.add(names_of(2), entries.pop("ratios"), entries.pop("vectors"), **entries)
    with pytest.raises(InputError, match="kind of group"):
        selector.select(budget=1, quotas={"system": 1})


def names_of(n: int) -> list[str]:
    return [f"{k:04x}" for k in range(n)]
