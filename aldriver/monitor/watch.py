"""From verdicts on frames to alarms: an alarm begins with so many frames in a row outside, and ends with one inside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aldriver.core.errors import InputError
from aldriver.monitor.judge import Look


@dataclass(kw_only=True)
class Watch:
    """Counts what was seen.

    Attributes
    ----------
    patience
        Frames in a row that must be outside for an alarm.
    row
        How many were outside up to now, without one inside between them.
    alarms
        How many have begun.
    verdicts
        Frames by verdict.
    worst
        Largest finite score over limit, and its step.
    """

    patience: int = 1
    row: int = 0
    alarms: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    worst: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise InputError(f"patience must be at least 1 (got {self.patience})")

    def take(self, look: Look) -> bool:
        """Take note of a look; whether an alarm begins with it."""
        self.verdicts[look.verdict] += 1
        if self.worst[0] < look.ratio < float("inf"):
            self.worst = (look.ratio, look.step)
        self.row = self.row + 1 if look.outside else 0
        begins = self.row == self.patience
        self.alarms += begins
        return begins

    @property
    def alarmed(self) -> bool:
        """Whether the run is outside now."""
        return self.row >= self.patience

    def state(self) -> dict[str, Any]:
        """JSON; :meth:`of` reads it."""
        return {"row": self.row, "alarms": self.alarms, "verdicts": dict(self.verdicts), "worst": list(self.worst)}

    @classmethod
    def of(cls, state: dict[str, Any], *, patience: int) -> Watch:
        """As it was when :meth:`state` was called."""
        worst = (float(state["worst"][0]), int(state["worst"][1]))
        return cls(
            patience=patience,
            row=state["row"],
            alarms=state["alarms"],
            verdicts=Counter(state["verdicts"]),
            worst=worst,
        )

    def summary(self) -> dict[str, Any]:
        """Counts for people and programs."""
        frames = sum(self.verdicts.values())
        return {
            "frames": frames,
            **{name: self.verdicts[name] for name in ("known", "flagged", "unphysical", "quarantined")},
            "alarms": self.alarms,
            "inside": self.alarms == 0,
            "worst_ratio": self.worst[0] if frames else None,
            "worst_step": self.worst[1] if frames else None,
        }
