"""Learning-rate schedules: what the optimizer is told at each step. Stopping early is ``loop.py``'s business."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

FINAL_LR = 0.01
"""The cosine ends at this fraction of the learning rate; a plateau never goes below it."""
WARM_UP = 0.05
"""Share of the steps over which the learning rate rises linearly: Adam's first steps are otherwise all full-sized."""
PLATEAU_EPOCHS = 3
"""Epochs without a better validation loss after which `plateau` lowers the learning rate."""
PLATEAU_FACTOR = 0.5


class Schedule:
    """Sets the learning rate of an optimizer, step by step.

    All kinds rise linearly over the first :data:`WARM_UP` of the steps. Then ``cosine`` falls along half a cosine to
    :data:`FINAL_LR` (without restarts; Loshchilov & Hutter 2017, eq. 5), ``constant`` stays, and ``plateau`` is
    multiplied by :data:`PLATEAU_FACTOR` whenever the validation loss has not got better for :data:`PLATEAU_EPOCHS`.

    Parameters
    ----------
    total
        Steps of the whole training.
    """

    def __init__(self, optimizer: Optimizer, kind: str, learning_rate: float, total: int) -> None:
        self.optimizer, self.kind, self.peak, self.total = optimizer, kind, learning_rate, total
        self.taken, self.scale, self.best, self.waited = 0, 1.0, math.inf, 0
        self._apply()

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.peak * self.scale * learning_rate_factor(self.taken, self.total, self.kind)

    def step(self) -> None:
        """After a step of the optimizer."""
        self.taken += 1
        self._apply()

    def epoch(self, loss: float | None) -> None:
        """After an epoch, with its validation loss."""
        if loss is not None and loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.kind == "plateau" and self.waited >= PLATEAU_EPOCHS:
            self.scale, self.waited = max(FINAL_LR, self.scale * PLATEAU_FACTOR), 0
            self._apply()

    def _apply(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"taken": self.taken, "scale": self.scale, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.taken, self.scale = int(state["taken"]), float(state["scale"])
        self.best, self.waited = float(state["best"]), int(state["waited"])
        self._apply()


def learning_rate_factor(step: int, total: int, kind: str = "cosine") -> float:
    """Share of the learning rate at a step, without what `plateau` has taken off."""
    rise = min(1.0, (step + 1) / max(1.0, WARM_UP * total))
    if kind != "cosine":
        return rise
    return rise * (FINAL_LR + (1.0 - FINAL_LR) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, total)))))
