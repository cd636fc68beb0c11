"""How many frames fit into memory at once, measured. What a step computes is ``loop.py``'s business."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from aldriver.core.errors import AldriverError
from aldriver.potentials.allocator import give_back_freed_memory

GB = 1024.0**3


def fitting_batch(
    run: Callable[[list[int]], None],
    sizes: Sequence[int],
    wanted: int,
    limit_GB: float,
    *,
    peak_GB: Callable[[Callable[[], None]], tuple[float, float]] | None = None,
) -> tuple[int, float]:
    """Largest batch (halving from `wanted`) whose step stays within the limit.

    One step on the largest frame alone bounds the others (memory grows linearly with the batch); the batch found is
    then run with the largest frames and measured, and halved again if the bound was too hopeful.

    Parameters
    ----------
    run
        Does one training step's work on the frames of these indices, and forgets it.
    sizes
        Relative size of each frame (edges and angles).
    peak_GB
        Measures a call: memory before it and its peak, in GB of the whole process.

    Returns
    -------
    tuple
        Frames at once, and the peak measured in GB.

    Raises
    ------
    AldriverError
        When a single frame does not fit.
    """
    measure = peak_GB or process_peak_GB
    largest = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    batch = min(wanted, len(sizes))
    before, peak = measure(lambda: run(largest[:1]))
    if peak > limit_GB:
        raise AldriverError(
            f"one training frame alone takes the process to {peak:.2f} GB, above train.memory_limit_GB = {limit_GB:g}; "
            "raise the limit or train on smaller cells"
        )
    while batch > 1 and before + batch * (peak - before) > limit_GB:
        batch = (batch + 1) // 2
    while batch > 1:
        chosen = largest[:batch]
        _, measured = measure(lambda chosen=chosen: run(chosen))  # type: ignore[misc]
        if measured <= limit_GB:
            return batch, measured
        batch = (batch + 1) // 2
    return batch, peak


def process_peak_GB(call: Callable[[], None]) -> tuple[float, float]:
    """Memory of this process before a call and its peak during it, GB (GPU memory where CUDA is in use)."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        before = torch.cuda.memory_allocated() / GB
        torch.cuda.reset_peak_memory_stats()
        call()
        return before, torch.cuda.max_memory_allocated() / GB
    give_back_freed_memory()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: restart the high-water mark VmHWM at today's memory
    before = _status_GB("VmRSS")
    call()
    return before, _status_GB("VmHWM")


def _status_GB(key: str) -> float:
    """A memory figure of ``/proc/self/status`` in GB; elsewhere the lifetime peak that POSIX gives."""
    try:
        match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        match = None
    if match:
        return int(match[1]) * 1024.0 / GB
    import resource

    scale = 1.0 if os.uname().sysname == "Darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / GB
