"""Committees: several potentials refined from one start. What their spread means is ``detect/``'s business.

Members differ by seed (order of the frames, replay) or by the groups they leave out. A single bad member poisons a
committee: members with a validation loss beyond :data:`WORST` times the best are refused, and so are members that are
no better than what came in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import frame_hash
from aldriver.train import TrainResult, train

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Train
    from aldriver.potentials.base import Potential

WORST = 1.2
"""Largest validation loss of a member, in units of the best member's."""
SHARE = 0.9
"""Share of the training frames that each member of a committee of subsets sees."""


@dataclass(frozen=True, kw_only=True)
class Committee:
    """Refined potentials and what became of the others.

    Attributes
    ----------
    members
        Results of the accepted members, best validation loss first.
    refused
        Name of a refused member → why.
    """

    members: list[TrainResult]
    refused: dict[str, str]


def train_committee(
    start: Potential,
    train_frames: Sequence[Atoms],
    valid_frames: Sequence[Atoms],
    settings: Train,
    out: Path,
    *,
    size: int,
    seed: int,
    by: Literal["seeds", "subsets"] = "seeds",
    foundation: Potential | None = None,
    allow_fewer: bool = False,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Committee:
    """Refine `size` members, each in ``out/member-k``; an interrupted call goes on where it was.

    Parameters
    ----------
    by
        ``seeds``: all members see all frames. ``subsets``: each sees about :data:`SHARE` of them, by group.
    allow_fewer
        Accept a committee of fewer members than asked for (at least two).
    on_epoch
        Called with each line of the history, ``member`` added.

    Raises
    ------
    InputError
        When fewer than two members are asked for, or there are too few groups for subsets.
    AldriverError
        When members are refused, naming them, unless `allow_fewer`.
    """
    if size < 2:
        raise InputError(f"a committee of {size} has no spread: ask for at least 2 members")
    results: dict[str, TrainResult] = {}
    for k in range(size):
        name = f"member-{k}"

        def tell(line: dict[str, Any], name: str = name) -> None:
            if on_epoch is not None:
                on_epoch(line | {"member": name})

        results[name] = train(
            start,
            train_frames if by == "seeds" else subset(train_frames, seed=seed, member=k, size=size),
            valid_frames,
            settings,
            Path(out) / name,
            seed=seed + k,
            foundation=foundation,
            on_epoch=tell,
            name=f"{start.name} {name}",
        )
    committee = choose(results)
    if len(committee.members) < (2 if allow_fewer else size):
        reasons = "; ".join(f"{name}: {why}" for name, why in committee.refused.items())
        raise AldriverError(
            f"{len(committee.members)} of {size} members are fit for a committee ({reasons}). Train longer, with a "
            "lower learning rate or with more frames" + ("" if allow_fewer else ", or allow fewer members")
        )
    return committee


def choose(results: dict[str, TrainResult]) -> Committee:
    """Members near the best; the others with the reason."""
    losses = {name: r.after["loss"] for name, r in results.items() if r.accepted and r.after["loss"] is not None}
    best = min((loss for loss in losses.values() if loss is not None), default=0.0)
    refused = {name: r.reason for name, r in results.items() if name not in losses}
    good: list[tuple[float, str]] = []
    for name, loss in losses.items():
        assert loss is not None
        if loss > WORST * best:
            refused[name] = f"validation loss {loss:.4g}, more than {WORST} times the best member's {best:.4g}"
        else:
            good.append((loss, name))
    return Committee(members=[results[name] for _, name in sorted(good)], refused=refused)


def subset(frames: Sequence[Atoms], *, seed: int, member: int, size: int) -> list[Atoms]:
    """About :data:`SHARE` of the frames: whole groups are left out, different ones for each member as far as they go.

    Raises
    ------
    InputError
        With fewer groups than members: two members would see the same frames.
    """
    groups: dict[str, list[int]] = {}
    for i, atoms in enumerate(frames):
        groups.setdefault(str(atoms.info.get("group") or frame_hash(atoms)), []).append(i)
    if len(groups) < size:
        raise InputError(
            f"{size} different subsets need at least {size} groups of training frames, there are {len(groups)}; "
            "use a committee of seeds, or label frames of more trajectories"
        )
    names = sorted(groups)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    order = order[member * len(order) // size :] + order[: member * len(order) // size]
    left_out: set[int] = set(groups[order[0]])
    for name in order[1:-1]:
        if len(left_out) + len(groups[name]) > round((1.0 - SHARE) * len(frames)):
            break
        left_out |= set(groups[name])
    return [atoms for i, atoms in enumerate(frames) if i not in left_out]
