"""The guard inside a running MD: looks every k steps, k chosen so that looking costs a small share of the run.

Whoever integrates calls it with a step's frame and prediction; what it answers may end the run.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Literal

from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.monitor.judge import Look
from aldriver.monitor.record import Recorder
from aldriver.potentials.base import Prediction

Action = Literal["log", "slow", "stop"]
SHARE = 0.05
"""Most of the run's time that looking may take."""
CLOSE_STEPS = 50
"""``slow``: steps that are run slowly and looked at closely after the last frame outside."""
MEMORY = 9
"""Looks whose times are remembered: the median of so many follows a run that changes, and forgets hiccups."""


class Pace:
    """Steps between looks, from the times that steps and looks took.

    Each look is timed, and the steps before it. k at most doubles from one look to the next, so that a hiccup does not
    blind the guard; a run much cheaper than a look is looked at after 1, 3, 7, 15, … steps until k is what it must be.

    Parameters
    ----------
    share
        Most of the run's time that looks may take: with c seconds a look and s seconds a step (without looks), every
        k-th step costs c/(k·s) of the run, so k = ⌈c/(share·s)⌉, and never below 1.
    """

    def __init__(self, *, share: float = SHARE, clock: Callable[[], float] = time.perf_counter) -> None:
        if not 0 < share < 1:
            raise InputError(f"the share of the time for looks must lie between 0 and 1 (got {share})")
        self._share, self._clock = share, clock
        self._looks: deque[float] = deque(maxlen=MEMORY)
        self._steps: deque[float] = deque(maxlen=MEMORY)
        self._left: tuple[int, float] | None = None
        self._began = math.nan
        self.every = 1
        self.looking_s = self.running_s = 0.0

    def begin(self, step: int) -> None:
        """A look begins."""
        self._began = self._clock()
        if self._left is not None and step > self._left[0]:
            seconds = self._began - self._left[1]
            self.running_s += seconds
            self._steps.append(seconds / (step - self._left[0]))

    def end(self, step: int) -> int:
        """The look is over; steps until the next."""
        now = self._clock()
        if self._left is not None:  # the first look pays for what is made once, and is not counted
            self._looks.append(now - self._began)
            self.looking_s += now - self._began
        self._left = (step, now)
        if self._looks and self._steps:
            wanted = median(self._looks) / (self._share * max(median(self._steps), 1e-9))
            self.every = min(max(1, math.ceil(wanted)), 2 * self.every)
        return self.every

    @property
    def measured(self) -> float | None:
        """Time of all looks but the first over the time of the steps between them; None before the second look."""
        return self.looking_s / self.running_s if self.running_s > 0 else None


class LiveGuard:
    """Guard of a running MD, for any engine that calls it every :attr:`every` steps.

    Parameters
    ----------
    recorder
        Judges, writes down, tells.
    share
        See :class:`Pace`.
    action
        When an alarm begins: ``log`` goes on; ``slow`` looks at every step until :data:`CLOSE_STEPS` steps after the
        last frame outside (an engine that can also halves its time step while :meth:`slowed`); ``stop`` ends the run.

    Attributes
    ----------
    every
        Steps until the next look; changes.
    features
        Whether predictions should carry features.
    stopped
        Why the run must end, None while it need not.
    """

    def __init__(
        self, recorder: Recorder, *, share: float = SHARE, action: Action = "log", pace: Pace | None = None
    ) -> None:
        self.recorder, self.action = recorder, action
        self.pace = pace or Pace(share=share)
        self.every, self.features = 1, recorder.judge.features
        self.stopped: str | None = None
        self._slow_until = -1

    def __call__(self, step: int, atoms: Atoms, prediction: Prediction) -> str | None:
        """Look at the frame after `step` steps; None to go on, else the sentence why the run must stop."""
        return self.look(step, atoms, prediction.features)

    def look(self, step: int, atoms: Atoms, features: NDArray | None = None) -> str | None:
        """As :meth:`__call__`, where there may be no prediction of this potential."""
        self.pace.begin(step)
        look, begins = self.recorder.take(step, atoms, features, every=self.every)
        self.recorder.journal.commit(lasting=False)
        if begins and self.action == "stop":
            self.stopped = sentence(look)
        if self.action == "slow" and self.recorder.watch.alarmed:
            self._slow_until = step + CLOSE_STEPS
        self.every = self.pace.end(step)
        if self.slowed(step):
            self.every = 1
        return self.stopped

    def slowed(self, step: int) -> bool:
        """Whether the run is to be slow at `step`."""
        return step < self._slow_until


def sentence(look: Look) -> str:
    """Why a look ends a run."""
    named = f"; least known: {look.named}" if look.suspects else ""
    return f"step {look.step}: the frame is {look.verdict}: {look.reason}{named}"
