"""Freed memory stays with the process while a network is evaluated again and again. Owns the C library's settings.

glibc gives every large block back to the system as soon as it is freed. A network asks for the same blocks again at the
next layer and the next step, and each time the kernel hands out fresh pages and zeroes them: with 1000 atoms that took
two thirds of a MACE step. Kept pages cost no more than the peak, which is needed anyway.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Of ``mallopt(3)``."""
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}
RETURN = {MMAP_MAX: 65536, TRIM_THRESHOLD: 128 * 1024}
"""The C library's own."""


def keep_freed_memory() -> bool:
    """Keep what is freed from now on, in this process; whether the C library takes the setting.

    ``give_back_freed_memory`` still gives it back.
    """
    return _set(KEEP)


@contextmanager
def returning_freed_memory() -> Iterator[None]:
    """Give freed memory back within the block, for what is computed once: gaps in kept memory add to the peak."""
    _set(RETURN)
    try:
        yield
    finally:
        give_back_freed_memory()
        _set(KEEP)


def give_back_freed_memory() -> None:
    """Return to the system what was freed so far."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(values: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    taken = [mallopt(name, value) for name, value in values.items()]
    return taken == [1] * len(values)
