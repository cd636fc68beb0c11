from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from aldriver.core.errors import AldriverError
from aldriver.train.memory import fitting_batch, process_peak_GB


class Machine:
    """Memory that grows with the frames in a step: 1 GB at rest and `per_size` GB per unit of size."""

    def __init__(self, sizes: list[int], per_size: float, *, fixed: float = 0.0) -> None:
        self.sizes, self.per_size, self.fixed = sizes, per_size, fixed
        self.now: list[int] = []
        self.largest_step = 0

    def run(self, indices: list[int]) -> None:
        self.now = indices
        self.largest_step = max(self.largest_step, len(indices))

    def peak(self, call: Callable[[], None]) -> tuple[float, float]:
        call()
        extra = self.fixed if len(self.now) > 2 else 0.0
        return 1.0, 1.0 + extra + self.per_size * sum(self.sizes[i] for i in self.now)

    def fit(self, wanted: int, limit: float) -> tuple[int, float]:
        return fitting_batch(self.run, self.sizes, wanted, limit, peak_GB=self.peak)


def test_the_whole_batch_where_it_fits():
    assert Machine([1] * 20, 0.1).fit(8, 4.0) == (8, pytest.approx(1.8))


def test_never_more_than_there_are_frames():
    assert Machine([1] * 3, 0.1).fit(8, 4.0)[0] == 3


def test_halved_until_it_fits_without_ever_trying_what_does_not():
    machine = Machine([1] * 20, 0.5)
    assert machine.fit(16, 4.0) == (4, pytest.approx(3.0))
    assert machine.largest_step == 4


def test_the_largest_frames_decide():
    assert Machine([1, 1, 1, 1, 10, 10], 0.1).fit(4, 3.5)[0] == 2


def test_a_bound_that_was_too_hopeful_is_corrected_by_measuring():
    assert Machine([1] * 20, 0.1, fixed=3.0).fit(8, 4.0)[0] == 2


def test_a_single_frame_that_does_not_fit_is_an_error():
    with pytest.raises(AldriverError, match=r"6\.00 GB, above train\.memory_limit_GB = 4"):
        Machine([10, 50], 0.1).fit(2, 4.0)


def test_the_peak_of_this_process_is_seen():
    def allocate() -> None:
        np.ones(40_000_000)  # 0.30 GB, gone when the call returns

    before, peak = process_peak_GB(allocate)
    assert peak - before == pytest.approx(40_000_000 * 8 / 1024**3, abs=0.06)
