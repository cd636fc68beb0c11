"""One frame after the other: judged, counted, written down, told. Where frames come from is the caller's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.records import dumps
from aldriver.core.store import atomic_write
from aldriver.monitor.alarms import Alarms
from aldriver.monitor.journal import Journal
from aldriver.monitor.judge import Judge, Look
from aldriver.monitor.watch import Watch

PLOT, SUMMARY = "scores.png", "summary.json"

Feed = Callable[[Atoms], str]
"""Hands a flagged frame on; returns why it was not taken, empty when it was."""


class Recorder:
    """Judges frames and keeps all of a monitor's output up to date.

    Parameters
    ----------
    group
        Name of the trajectory, for the frames in the queue.
    feed
        Where flagged frames go beside the queue.
    on_look
        Called after each look, with whether an alarm begins; for display.
    Attributes
    ----------
    latest
        The last look, None before the first.
    """

    def __init__(
        self,
        judge: Judge,
        watch: Watch,
        journal: Journal,
        *,
        group: str,
        alarms: Alarms | None = None,
        feed: Feed | None = None,
        on_look: Callable[[Look, bool], None] | None = None,
    ) -> None:
        self.judge, self.watch, self.journal, self.group = judge, watch, journal, group
        self.alarms = alarms or Alarms()
        self.fed, self.n_atoms = int(journal.state.get("fed", 0)), journal.state.get("n_atoms")
        self.latest: Look | None = None
        self._feed, self._on_look = feed, on_look

    def take(self, step: int, atoms: Atoms, features: NDArray[Any] | None = None, **more: Any) -> tuple[Look, bool]:
        """Judge a frame and note the verdict; the look, and whether an alarm begins with it.

        Nothing is on the disk before :meth:`Journal.commit`.

        Parameters
        ----------
        more
            Noted with the look.
        """
        look = self._lost(self.judge(step, atoms, features))
        self.latest, begins = look, self.watch.take(look)
        self.journal.look(look, **more)
        if look.outside:
            queued = self.journal.queue(look, atoms, self.group)
            if queued is not None and look.verdict == "flagged" and self._feed is not None:
                refused = self._feed(queued)
                self.fed += not refused
                if refused:
                    self.journal.note(refused, step=step)
        if begins:
            self.journal.alarm(look)
            self.alarms.tell({"source": self.journal.about.get("source"), "group": self.group, **vars(look)})
        for problem in self.problems():
            self.journal.note(problem)
        if self._on_look is not None:
            self._on_look(look, begins)
        return look, begins

    def problems(self) -> list[str]:
        """What went wrong when somebody was told, once."""
        found, self.alarms.problems = self.alarms.problems, []
        return found

    def _lost(self, look: Look) -> Look:
        before, self.n_atoms = self.n_atoms, look.n_atoms
        if before is None or look.n_atoms >= before:
            return look
        return replace(
            look,
            verdict="quarantined",
            reason=f"{before - look.n_atoms} of {before} atoms are lost since the frame before; {look.reason}",
        )

    def state(self) -> dict[str, Any]:
        """What is needed to go on after an interruption, beside the position."""
        return {"watch": self.watch.state(), "n_atoms": self.n_atoms, "fed": self.fed}

    def draw(self) -> None:
        """The figure of all looks so far."""
        from aldriver.monitor.plot import draw

        pooled, formula = self.judge.calibration.pooled, self.judge.calibration.formula
        unit = " eV/Å" if formula is not None and formula.kind == "fused" else ""
        limit = (
            f"threshold: {pooled.value:.3g}{unit}" if pooled.value > 0 else "threshold: none, every frame is flagged"
        )
        draw(self.journal.out / PLOT, *self.journal.history(), title=self.group, limit=limit)

    def finish(self, **more: Any) -> dict[str, Any]:
        """Wait for alarms, draw, write ``summary.json``; the summary."""
        self.alarms.wait()
        for problem in self.problems():
            self.journal.note(problem)
        self.journal.commit(**{k: v for k, v in self.journal.state.items() if k not in ("about", "sizes")})
        self.draw()
        summary = {
            **self.journal.about,
            **self.watch.summary(),
            **self.judge.describe(),
            "fed": self.fed,
            "out": str(self.journal.out),
            **more,
        }
        atomic_write(self.journal.out / SUMMARY, dumps(summary))
        return summary
