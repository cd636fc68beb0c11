"""Exponential moving average of weights: what is validated and kept. When to update is ``loop.py``'s business."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class MovingAverage:
    """Average of named parameters over the steps (Polyak & Juditsky 1992, in its exponential form).

    The decay grows as (1 + n)/(10 + n) up to `decay`, so that a short training is not held back by its first weights.
    """

    def __init__(self, parameters: Mapping[str, Tensor], *, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Move the average towards the parameters."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.decay > 0 else 0.0
        for name, average in self.average.items():
            average.lerp_(parameters[name].detach(), 1.0 - keep)

    @contextmanager
    def applied(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """The parameters hold the average inside."""
        own = {name: p.detach().clone() for name, p in parameters.items()}
        self._copy(self.average, parameters)
        try:
            yield
        finally:
            self._copy(own, parameters)

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the average."""
        return {name: average.clone() for name, average in self.average.items()}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"updates": self.updates, "average": self.average}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.updates = int(state["updates"])
        self._copy(state["average"], self.average)

    @staticmethod
    @torch.no_grad()
    def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])
