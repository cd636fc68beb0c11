"""What the comparisons with the vendors' own trainers share: frames, their order, and when a loss is as good.

The comparisons themselves are ``bench_train.py`` (CHGNet), ``bench_mace.py`` and ``bench_sevennet.py``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from ase import Atoms

from aldriver.core.errors import AldriverError
from aldriver.core.frames import read_frames
from aldriver.testing.bench import Skipped
from aldriver.train.loop import epoch_order

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mlearn"
"""Published labelled frames."""

NO_WORSE = 1 / 1.1
"""Of the ratio theirs to ours in time and memory: up to 1.1 times as much."""
WIDEST = 0.05
"""Largest standard error of a mean ratio of losses that still says something."""


def published(name: str) -> list[Atoms]:
    """Labelled frames of one of the published sets.

    Raises
    ------
    Skipped
        Where they are not.
    """
    if not DATA.is_dir():
        raise Skipped(f"the published frames of {name} are not here")
    return read_frames(DATA / f"{name}.extxyz", labelled=True)


class LoopOrder:
    """The order in which the training loop takes its frames, as the ``sampler`` of a vendor's loader.

    Each iteration is an epoch. Without it, one side may put two large cells into one batch where the other does not:
    time and memory then tell the luck of the draw.
    """

    def __init__(self, n: int, *, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        order = epoch_order(self.seed, self.epoch, self.n)
        self.epoch += 1
        return iter([int(i) for i in order])


def as_good(ratios: Sequence[float]) -> float:
    """What the mean ratio of losses, theirs to ours, must reach: 1 less its standard error over the seeds.

    Raises
    ------
    AldriverError
        When the losses scatter so much that nothing can be told.
    """
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    if error > WIDEST:
        raise AldriverError(f"the ratios of the losses scatter too much to be compared: {list(ratios)}")
    return 1.0 - error
