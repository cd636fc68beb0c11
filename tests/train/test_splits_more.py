"""Random splits, leave-one-dopant-out and learning-curve subsets: properties, and the two rules on named frames."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash, read_frames
from aldriver.train.splits import iid_split, leave_one_dopant_out, nested_subsets

DOPANTS = ("Nb", "W", "Re")
compositions = st.lists(
    st.tuples(st.sampled_from([None, *DOPANTS]), st.sampled_from([None, *DOPANTS]), st.integers(0, 5)),
    min_size=6,
    max_size=30,
)
grouped = st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 12)), min_size=3, max_size=40)


def alloys(rows: list[tuple]) -> list[Atoms]:
    """Six Mo atoms, up to two of them exchanged."""
    frames = []
    for k, (first, second, trajectory) in enumerate(rows):
        atoms = Atoms("Mo6", positions=[[3 * i, 0.01 * k, 0] for i in range(6)], info={"group": f"t{trajectory}"})
        for site, dopant in ((0, first), (3, second)):
            if dopant:
                atoms.symbols[site] = dopant
        frames.append(atoms)
    return frames


def snapshots(rows: list[tuple[str, int]]) -> list[Atoms]:
    return [Atoms("Fe", positions=[[x, 0, 0]], info={"group": g}) for g, x in rows]


def dopants(atoms: Atoms) -> set[str]:
    return set(atoms.get_chemical_symbols()) - {"Mo"}


# ---- at random -------------------------------------------------------------------------------------------------------


@given(rows=grouped, valid=st.floats(0.02, 0.4), test=st.floats(0.02, 0.4), seed=st.integers(0, 99))
def test_three_sides_are_a_partition_without_twins_across(rows, valid: float, test: float, seed: int):
    frames = snapshots(rows)
    if len({frame_hash(a) for a in frames}) < 3:
        return
    split = iid_split(frames, valid=valid, test=test, seed=seed)
    assert sorted(split.train + split.valid + split.test) == list(range(len(frames)))
    sides = [{frame_hash(frames[i]) for i in side} for side in (split.train, split.valid, split.test)]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


@given(seed=st.integers(0, 99), order=st.permutations(range(20)))
def test_the_order_of_the_frames_does_not_matter(seed: int, order):
    frames = snapshots([("a", k) for k in range(20)])
    one, two = iid_split(frames, seed=seed), iid_split([frames[i] for i in order], seed=seed)
    assert {order[i] for i in two.test} == set(one.test)
    assert {order[i] for i in two.valid} == set(one.valid)


def test_shares_are_those_of_the_paper():
    split = iid_split(snapshots([("a", k) for k in range(420)]), seed=0)
    assert (len(split.train), len(split.valid), len(split.test)) == (340, 38, 42)


# ---- leave one dopant out --------------------------------------------------------------------------------------------


def test_the_two_rules_on_every_kind_of_frame():
    rows = [(None, None, 0), ("Nb", None, 1), ("W", None, 2), ("Nb", "Nb", 3), ("Nb", "W", 4), ("W", "Re", 5)]
    frames = alloys(rows)
    strict = leave_one_dopant_out(frames, "Mo", "Nb", rule="strict", seed=0)
    relaxed = leave_one_dopant_out(frames, "Mo", "Nb", rule="relaxed", seed=0)
    assert strict.test == [1, 3, 4]
    assert relaxed.test == [1, 3]
    assert 4 in relaxed.train + relaxed.valid


@given(rows=compositions, x=st.sampled_from(DOPANTS), seed=st.integers(0, 20))
def test_rules_partition_and_strict_never_leaks(rows, x: str, seed: int):
    frames = alloys(rows)
    for rule in ("strict", "relaxed"):
        try:
            split = leave_one_dopant_out(frames, "Mo", x, rule=rule, seed=seed)
        except InputError:
            continue
        assert sorted(split.train + split.valid + split.test) == list(range(len(frames)))
        assert split.train and split.valid and split.test
        seen = [i for i in split.train + split.valid if x in dopants(frames[i])]
        assert not seen if rule == "strict" else all(len(dopants(frames[i])) > 1 for i in seen)


@given(rows=compositions, x=st.sampled_from(DOPANTS))
def test_what_is_tested_relaxed_is_tested_strictly(rows, x: str):
    frames = alloys(rows)
    try:
        strict, relaxed = (leave_one_dopant_out(frames, "Mo", x, rule=rule, seed=0) for rule in ("strict", "relaxed"))
    except InputError:
        return
    assert set(relaxed.test) <= set(strict.test)


def test_nothing_to_test_or_to_train_on_is_an_error():
    frames = alloys([("Nb", None, 0), ("Nb", None, 1), ("W", None, 2)])
    with pytest.raises(InputError, match="0 frames to test.*dopants are Nb, W"):
        leave_one_dopant_out(frames, "Mo", "Re", rule="strict", seed=0)
    with pytest.raises(InputError, match="1 to train on"):
        leave_one_dopant_out(frames, "Mo", "Nb", rule="strict", seed=0)
    with pytest.raises(InputError, match="host"):
        leave_one_dopant_out(frames, "Mo", "Mo", rule="strict", seed=0)


def test_on_real_binaries(shared_data):
    folder = shared_data / "monbtaw"
    frames = [a for name in ("Mo_Elastic", "MoW_SS", "NbMo_SS") for a in read_frames(folder / f"{name}.extxyz")]
    split = leave_one_dopant_out(frames, "Mo", "W", rule="strict", seed=0)
    assert all("W" in frames[i].get_chemical_symbols() for i in split.test)
    assert not any("W" in frames[i].get_chemical_symbols() for i in split.train + split.valid)


# ---- learning curves -------------------------------------------------------------------------------------------------


@given(rows=grouped, seed=st.integers(0, 99), by=st.sampled_from(["group", "frame"]))
def test_smaller_subsets_lie_in_larger_ones_and_reach_their_share(rows, seed: int, by):
    frames = snapshots(rows)
    fractions = [0.02, 0.1, 0.3, 0.7, 1.0]
    subsets = nested_subsets(frames, fractions, seed=seed, by=by)
    for small, large in pairwise(subsets):
        assert set(small) <= set(large)
    for fraction, subset in zip(fractions, subsets, strict=True):
        assert subset and len(subset) >= fraction * len(frames) - 1e-9
    assert subsets[-1] == list(range(len(frames)))
    if by == "group":
        for subset in subsets:
            inside = {frames[i].info["group"] for i in subset}
            assert subset == [i for i, a in enumerate(frames) if a.info["group"] in inside]


@given(seed=st.integers(0, 99), order=st.permutations(range(15)))
def test_subsets_do_not_depend_on_the_order_of_the_frames(seed: int, order):
    frames = snapshots([("a", k) for k in range(15)])
    one = nested_subsets(frames, [0.2, 0.5], seed=seed, by="frame")
    two = nested_subsets([frames[i] for i in order], [0.2, 0.5], seed=seed, by="frame")
    assert [set(s) for s in one] == [{order[i] for i in s} for s in two]


@given(st.permutations([0.02, 0.25, 1.0]))
def test_fractions_come_back_in_the_order_asked_for(fractions):
    sizes = [len(s) for s in nested_subsets(snapshots([("a", k) for k in range(50)]), fractions, seed=0, by="frame")]
    assert sizes == [int(np.ceil(f * 50)) for f in fractions]


@pytest.mark.parametrize("fractions", [[0.0], [1.2], [-0.1, 0.5]])
def test_fractions_that_make_no_sense(fractions):
    with pytest.raises(InputError, match="shares in"):
        nested_subsets(snapshots([("a", 1)]), fractions, seed=0)
