"""Splitting frames: by group, at random, by dopant, and nested for learning curves.

Where groups come from is ``explore/``'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

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
    groups = _groups(frames)
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
    order = _shuffled(sorted(groups), seed)
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


@dataclass(frozen=True, kw_only=True)
class ThreeSplit:
    """Indices of training, validation and test frames, ascending, and one line on how they were chosen."""

    train: list[int]
    valid: list[int]
    test: list[int]
    message: str


def iid_split(frames: Sequence[Atoms], *, valid: float = 0.09, test: float = 0.10, seed: int) -> ThreeSplit:
    """Split at random by frame, whatever its group: interpolation within one distribution.

    The default is the (81:9):10 of Materials 19, 1715 (2026), doi:10.3390/ma19091715. Equal frames stay together.

    Parameters
    ----------
    valid, test
        Shares of all frames; each side gets at least one.
    seed
        The result depends on it and on the set of frames, not on their order.

    Raises
    ------
    InputError
        With fewer than three different frames, or shares that leave nothing to train on.
    """
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise InputError(f"shares of {valid} for validation and {test} for testing leave no training frames")
    twins = _twins(frames)
    if len(twins) < 3:
        raise InputError(f"{len(twins)} different frames cannot be split into training, validation and test frames")
    order = _shuffled(sorted(twins), seed)
    n_test = min(max(1, round(test * len(order))), len(order) - 2)
    n_valid = min(max(1, round(valid * len(order))), len(order) - n_test - 1)
    return _sides(
        train=[i for name in order[n_test + n_valid :] for i in twins[name]],
        valid=[i for name in order[n_test : n_test + n_valid] for i in twins[name]],
        test=[i for name in order[:n_test] for i in twins[name]],
        how="at random",
    )


def leave_one_dopant_out(
    frames: Sequence[Atoms],
    host: str | Collection[str],
    dopant: str,
    *,
    rule: Literal["strict", "relaxed"],
    valid_fraction: float = 0.1,
    seed: int,
) -> ThreeSplit:
    """Keep one dopant for testing; the others train.

    The two rules of Materials 19, 1715 (2026), doi:10.3390/ma19091715, Methods; D(s) are the dopants of a frame s, x
    is the one held out:

    * ``strict``: s is tested where x ∈ D(s). Training never sees x.
    * ``relaxed``: s with one dopant site is tested where it is x; s with two dopant sites only where both are. Frames
      with x beside another dopant are trained on: x is partly seen. For any number of sites: D(s) = {x}.

    Validation frames are chosen among those not tested, at random, by group where the frames have groups.

    Parameters
    ----------
    host
        Element or elements that are not dopants.
    valid_fraction
        Of the frames not tested.

    Raises
    ------
    InputError
        When the rule is unknown, or leaves nothing to train on or to test.
    """
    if rule not in ("strict", "relaxed"):
        raise InputError(f"leave-one-dopant-out: rule '{rule}' is not known; there is strict and relaxed")
    hosts = {host} if isinstance(host, str) else set(host)
    if dopant in hosts:
        raise InputError(f"leave-one-dopant-out: {dopant} is a host element, not a dopant")
    dopants = [set(atoms.get_chemical_symbols()) - hosts for atoms in frames]
    test = [i for i, d in enumerate(dopants) if (dopant in d if rule == "strict" else d == {dopant})]
    rest = sorted(set(range(len(frames))) - set(test))
    if not test or len(rest) < 2:
        raise InputError(
            f"leave-one-dopant-out ({rule}) of {dopant}: {len(test)} frames to test and {len(rest)} to train on; "
            f"the dopants are {', '.join(sorted(set().union(*dopants))) or 'none'}"
        )
    inner = group_split([frames[i] for i in rest], valid_fraction, seed, cut_single_group=True)
    return _sides(
        train=[rest[i] for i in inner.train],
        valid=[rest[i] for i in inner.valid],
        test=test,
        how=f"{rule} leave-one-dopant-out of {dopant}",
    )


def nested_subsets(
    frames: Sequence[Atoms], fractions: Sequence[float], *, seed: int, by: Literal["group", "frame"] = "group"
) -> list[list[int]]:
    """Subsets for a learning curve: each holds all smaller ones.

    Parameters
    ----------
    fractions
        Of the frames, above 0 and up to 1 (e.g. 0.02 to 1); each subset is the shortest that reaches its share.
    by
        ``group`` takes whole groups, ``frame`` single frames (equal ones together); both in a random order that
        depends on the seed and the set of frames, not on their order.

    Returns
    -------
    list of list of int
        Indices, ascending, in the order of `fractions`; none is empty.

    Raises
    ------
    InputError
        When there are no frames or a fraction is not within (0, 1].
    """
    wrong = [f for f in fractions if not 0 < f <= 1]
    if wrong or not frames:
        raise InputError(f"learning curve: {len(frames)} frames, fractions {list(fractions)}; give shares in (0, 1]")
    units = _groups(frames) if by == "group" else _twins(frames)
    order = _shuffled(sorted(units), seed)
    sizes = np.cumsum([len(units[name]) for name in order])
    subsets = []
    for fraction in fractions:
        n_units = int(np.searchsorted(sizes, fraction * len(frames) - 1e-9)) + 1
        subsets.append(sorted(i for name in order[:n_units] for i in units[name]))
    return subsets


def _groups(frames: Sequence[Atoms]) -> dict[str, list[int]]:
    """Indices by group; a frame without one is a group of its own, equal frames together."""
    groups: dict[str, list[int]] = {}
    for i, atoms in enumerate(frames):
        groups.setdefault(str(atoms.info.get("group") or frame_hash(atoms)), []).append(i)
    return groups


def _twins(frames: Sequence[Atoms]) -> dict[str, list[int]]:
    twins: dict[str, list[int]] = {}
    for i, atoms in enumerate(frames):
        twins.setdefault(frame_hash(atoms), []).append(i)
    return twins


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    return [names[i] for i in np.random.default_rng(seed).permutation(len(names))]


def _sides(*, train: list[int], valid: list[int], test: list[int], how: str) -> ThreeSplit:
    message = f"{how}: {len(train)} training, {len(valid)} validation and {len(test)} test frames"
    return ThreeSplit(train=sorted(train), valid=sorted(valid), test=sorted(test), message=message)
