"""A process that ends with its parent, however that ends, so that a killed run leaves nobody at work."""

from __future__ import annotations

import os
import signal
import sys


def die_with(parent: int, *, status: int) -> None:
    """Be killed when the parent dies (Linux); when it is dead already, exit with `status` at once."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(status)
