"""A signal in the middle of a label: it waits until the launchpad knows what is left to do, then it is obeyed.

A queue ends its jobs with SIGTERM at the time limit and at preemption; what is done about it is in ``packs.py``.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OBEY_S = 20.0
"""When a signal is obeyed at the latest, in a process that does not call :func:`obey` itself (plain ``rlaunch``)."""

_pending: list[int] = []


class Interrupted(Exception):
    """A stage was left because of a signal: nothing failed."""


def pending() -> bool:
    """Whether a signal waits to be obeyed: finish quickly, begin nothing."""
    return bool(_pending)


def obey() -> None:
    """Deliver the signal that waits, if any, with the handlers of before."""
    if _pending:
        signum = _pending[0]
        _pending.clear()
        os.kill(os.getpid(), signum)


@contextmanager
def holding() -> Iterator[None]:
    """Hold SIGTERM, SIGINT and SIGHUP back within the block (main thread only; elsewhere it does nothing)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(signum: int, _frame: FrameType | None) -> None:
        _pending.append(signum)

    previous = {s: signal.signal(s, note) for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if _pending:
            last_resort = threading.Timer(OBEY_S, obey)
            last_resort.daemon = True
            last_resort.start()
