"""How many threads an evaluation gets, measured. How many there may be is the caller's business."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

CHEAP_S = 0.02
"""Steps shorter than this are not worth a measurement."""
WORTH = 1.1
"""More threads must be faster by this factor: the cores they leave idle can do something else."""


def settle_threads(
    step: Callable[[], Any],
    *,
    most: int | None = None,
    repeats: int = 3,
    set_threads: Callable[[int], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Time `step` on one thread and on all that are allowed, in turn, and leave torch with the faster number.

    Threads can make it slower: where cores are shared with other programs, and for small cells.

    Parameters
    ----------
    most
        Threads that are allowed; default: what torch has been given (``OMP_NUM_THREADS``, the recipe).
    repeats
        The best of so many counts, as other programs can only slow a call down.

    Returns
    -------
    int
        The number that is set.
    """
    import torch

    set_threads = set_threads or torch.set_num_threads
    most = most or torch.get_num_threads()
    if most == 1:
        set_threads(1)
        return 1
    best = {1: math.inf, most: math.inf}
    set_threads(most)
    step()  # the first call allocates
    for _ in range(repeats):
        for number in best:
            set_threads(number)
            began = clock()
            step()
            best[number] = min(best[number], clock() - began)
        if min(best.values()) < CHEAP_S:
            break
    chosen = most if best[1] > WORTH * best[most] else 1
    set_threads(chosen)
    return chosen
