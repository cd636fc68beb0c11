"""Follows the trajectory of somebody else's run: polls, judges, commits; goes on where it left off after any death.

Reading is ``sources.py``'s, judging and writing ``record.py``'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aldriver.monitor.record import Recorder
from aldriver.monitor.sources import Found, Source

POLL_S = 1.0
DRAW_S = 60.0
"""Least time between two drawings of the figure."""


def follow(
    source: Source,
    recorder: Recorder,
    *,
    every: int = 1,
    once: bool = False,
    idle_s: float | None = None,
    poll_s: float = POLL_S,
    on_note: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Judge what is there and what comes, until interrupted.

    Every judged frame is committed with the position after it, also when what comes next cannot be read.

    Parameters
    ----------
    every
        Judge each so many-th frame.
    once
        End when nothing new is complete.
    idle_s
        End when nothing came for so long; None to wait for ever.
    on_note
        Called with remarks, for display.

    Raises
    ------
    InputError
        When the source cannot be read, or does not say what its atoms are.
    """
    reader = _Reader(recorder, every, on_note)
    last, drawn = clock(), clock()
    try:
        while True:
            batch = source.poll()
            if batch:
                for found in batch:
                    reader.take(found)
                last = clock()
                if last - drawn > DRAW_S:
                    recorder.draw()
                    drawn = clock()
            elif once or (idle_s is not None and clock() - last >= idle_s):
                break
            else:
                sleep(poll_s)
        rest = source.rest()
        if rest:
            reader.note(rest)
    finally:
        source.close()


class _Reader:
    """Takes what a source found; every frame is committed with its position."""

    def __init__(self, recorder: Recorder, every: int, on_note: Callable[[str], None] | None) -> None:
        self._recorder, self._every, self._on_note = recorder, every, on_note
        state = recorder.journal.state
        self._seen, self._step = int(state.get("seen", 0)), state.get("step")
        self._position = state.get("position")

    def take(self, found: Found) -> None:
        self._position = found.position
        if found.atoms is None:
            self.note(found.note)
            return
        if self._step is not None and found.step < self._step:
            self.note(f"the step goes back from {self._step} to {found.step}: the run was restarted")
        judged = self._seen % self._every == 0
        self._step, self._seen = found.step, self._seen + 1
        if judged:
            self._recorder.take(found.step, found.atoms)
            self._commit()

    def note(self, text: str) -> None:
        self._recorder.journal.note(text)
        if self._on_note is not None:
            self._on_note(text)
        self._commit()

    def _commit(self) -> None:
        self._recorder.journal.commit(
            position=self._position, seen=self._seen, step=self._step, **self._recorder.state()
        )
