from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from aldriver.core.errors import InputError
from aldriver.train import group_split


def frames_of(groups: list[str]) -> list[Atoms]:
    return [Atoms("Fe", positions=[[0.1 * i, 0, 0]], info={"group": g}) for i, g in enumerate(groups)]


@given(
    groups=st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40),
    fraction=st.floats(0.05, 0.85),
    seed=st.integers(0, 1000),
)
def test_no_group_is_on_both_sides_and_neither_side_is_empty(groups: list[str], fraction: float, seed: int):
    if len(set(groups)) == 1:
        return
    split = group_split(frames_of(groups), fraction, seed)
    assert sorted(split.train + split.valid) == list(range(len(groups)))
    assert split.train
    assert split.valid
    assert not {groups[i] for i in split.train} & {groups[i] for i in split.valid}
    assert split.by_group


def test_fraction_is_met_as_groups_allow():
    split = group_split(frames_of([f"g{i // 5}" for i in range(100)]), 0.15, 3)
    assert len(split.valid) == 15


def test_seeded_and_independent_of_order():
    groups = [f"g{i % 7}" for i in range(50)]
    frames = frames_of(groups)
    order = np.random.default_rng(0).permutation(50)
    one, two = group_split(frames, 0.2, 5), group_split([frames[i] for i in order], 0.2, 5)
    assert {groups[i] for i in one.valid} == {groups[order[i]] for i in two.valid}
    assert {tuple(group_split(frames, 0.2, seed).valid) for seed in range(10)} != {tuple(one.valid)}


def test_one_large_group_and_a_small_one():
    split = group_split(frames_of(["big"] * 20 + ["small"]), 0.15, 0)
    assert split.valid == [20]


def test_frames_without_a_group_stand_for_themselves_but_twins_stay_together():
    frames = [Atoms("Fe", positions=[[x, 0, 0]]) for x in (0.0, 1.0, 0.0, 2.0, 1.0)]
    for seed in range(5):
        split = group_split(frames, 0.3, seed)
        sides = [i in split.valid for i in range(5)]
        assert sides[0] == sides[2]
        assert sides[1] == sides[4]


def test_a_single_group_is_an_error_that_says_what_to_do():
    with pytest.raises(InputError, match=r"one group \('walker-0'\).*at least two walkers"):
        group_split(frames_of(["walker-0"] * 10), 0.2, 0)


def test_a_single_group_can_be_cut_and_the_result_says_so():
    split = group_split(frames_of(["walker-0"] * 10), 0.2, 0, cut_single_group=True)
    assert split.valid == [8, 9]
    assert not split.by_group
    assert "optimistic" in split.message


@pytest.mark.parametrize("frames", [[], frames_of(["a"])])
def test_too_few_frames(frames: list[Atoms]):
    with pytest.raises(InputError, match="at least 2"):
        group_split(frames, 0.2, 0)


def test_a_fraction_outside_0_1_is_refused():
    with pytest.raises(InputError, match="valid_fraction"):
        group_split(frames_of(["a", "b"]), 1.0, 0)
