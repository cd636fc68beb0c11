"""Splitting frames into training and validation sets by group. Where groups come from is ``explore/``'s business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices of the frames on each side, ascending, and one line on how they were chosen.

    Attributes
    ----------
    by_group
        False when a single group had to be cut in two: its validation error is then optimistic.
    """

    train: list[int]
    valid: list[int]
    message: str
    by_group: bool = True


def group_split(frames: Sequence[Atoms], fraction: float, seed: int, *, cut_single_group: bool = False) -> Split:
    """Split so that no group (``info['group']``: a trajectory) is on both sides.

    Neighbouring MD snapshots are nearly the same frame: a split by frame would make the validation error a training
    error. A frame without a group is one of its own; equal frames stay together.

    Parameters
    ----------
    fraction
        Share of the frames meant for validation; whole groups come as near to it as they can, and at least one.
    seed
        Which groups; the result does not depend on the order of the groups in `frames`.
    cut_single_group
        With a single group, validate on the end of it instead of raising; the message says so.

    Raises
    ------
    InputError
        With fewer than two frames, or a single group.
    """
    if len(frames) < 2:
        raise InputError(f"{len(frames)} labelled frame(s): training and validation need at least 2; label more frames")
    if not 0.0 < fraction < 1.0:
        raise InputError(f"valid_fraction is {fraction}: give a number between 0 and 1")
    groups: dict[str, list[int]] = {}
    for i, atoms in enumerate(frames):
        groups.setdefault(str(atoms.info.get("group") or frame_hash(atoms)), []).append(i)
    if len(groups) == 1:
        return _cut(next(iter(groups)), len(frames), fraction, cut_single_group)
    chosen = _choose(groups, fraction * len(frames), seed)
    valid = sorted(i for name in chosen for i in groups[name])
    train = sorted(set(range(len(frames))) - set(valid))
    message = (
        f"{len(train)} training frames of {len(groups) - len(chosen)} groups, "
        f"{len(valid)} validation frames of {len(chosen)} other groups"
    )
    return Split(train=train, valid=valid, message=message)


def _choose(groups: dict[str, list[int]], target: float, seed: int) -> list[str]:
    """Groups whose sizes add up to about `target`; never none, never all."""
    names = sorted(groups)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    chosen: list[str] = []
    size = 0
    for name in order:
        if len(chosen) == len(order) - 1:
            break
        if abs(size + len(groups[name]) - target) < abs(size - target):
            chosen.append(name)
            size += len(groups[name])
    return chosen or [min(order, key=lambda name: len(groups[name]))]


def _cut(name: str, n_frames: int, fraction: float, allowed: bool) -> Split:
    if not allowed:
        raise InputError(
            f"all {n_frames} frames belong to one group ('{name}'), so none can be kept for validation without "
            "leaking: neighbouring frames of one trajectory are nearly equal. Run at least two walkers (temperatures, "
            "strains or systems), or give the frames their own `group`"
        )
    n_valid = min(max(1, round(fraction * n_frames)), n_frames - 1)
    cut = n_frames - n_valid
    message = (
        f"{cut} training frames and the last {n_valid} for validation, all of the one group '{name}': "
        "the validation error is optimistic"
    )
    return Split(train=list(range(cut)), valid=list(range(cut, n_frames)), message=message, by_group=False)
