"""The training loop all families share: Huber loss, replay, clipping, moving average, schedules, exact resume.

It owns the steps, what is kept and what is reported. What a model computes is its adapter's business; whether the
result is better than what came in is decided in ``train/__init__.py``.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aldriver.core.recipe_train import Train
from aldriver.core.records import dumps, jsonable
from aldriver.core.store import atomic_write, disk_errors
from aldriver.train.base import TrainAdapter
from aldriver.train.checkpoint import load_checkpoint, save_checkpoint
from aldriver.train.checks import check_terms
from aldriver.train.ema import MovingAverage
from aldriver.train.ewc import Consolidation
from aldriver.train.loss import TERMS, Example, counts_of, loss_sums, total_loss
from aldriver.train.memory import fitting_batch
from aldriver.train.metrics import Metrics, measure
from aldriver.train.schedule import Schedule

HISTORY = "history.jsonl"
MAX_SKIPPED = 0.2
"""A training ends when more than this share of an epoch's steps had no finite gradient."""


@dataclass(kw_only=True)
class LoopState:
    """Where a training stands; everything here but `history` is in the checkpoint."""

    epoch: int = 0
    micro_batch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[str, Any] = field(default_factory=dict)


class TrainingLoop:
    """One training: `adapter.module` ends with the weights that were best on the validation frames.

    The loss of a step is that of its batch, plus ``replay.weight`` times that of ``replay.per_step`` replayed frames
    (each divided by its own counts), plus the consolidation's penalty.

    Parameters
    ----------
    train, valid
        Examples, each side not empty.
    out
        Where checkpoint and history are kept; a training that was cut short goes on from there.
    key
        Of the training as a whole; see ``checkpoint.py``.
    replay
        General examples; none = no replay.
    consolidation
        Of ``ewc.py``, or None.
    drift
        Called each epoch with the averaged weights in place; its numbers go into the history.
    on_epoch
        Called with each line of the history.
    """

    def __init__(
        self,
        adapter: TrainAdapter,
        train: Sequence[Example],
        valid: Sequence[Example],
        settings: Train,
        out: Path,
        *,
        seed: int,
        key: str,
        replay: Sequence[Example] = (),
        consolidation: Consolidation | None = None,
        drift: Callable[[], dict[str, Any]] | None = None,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.adapter, self.train, self.valid, self.settings = adapter, list(train), list(valid), settings
        self.out, self.seed, self.key, self.on_epoch = Path(out), seed, key, on_epoch
        self.replay, self.consolidation, self.drift = list(replay), consolidation, drift
        self.named = {name: p for name, p in adapter.module.named_parameters() if p.requires_grad}
        self.ema = MovingAverage(self.named, decay=settings.ema_decay)
        self.optimizer = torch.optim.Adam(self.named.values(), lr=settings.learning_rate)
        self.steps_per_epoch = -(-len(self.train) // settings.batch_size)
        total = settings.epochs * self.steps_per_epoch
        self.schedule = Schedule(self.optimizer, settings.schedule, settings.learning_rate, total)
        self.state = LoopState()

    def run(self) -> LoopState:
        """Train from the start, or from the last checkpoint in `out`.

        Raises
        ------
        AldriverError
            When a loss term moves no weight, or not even one frame fits into memory.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        if not self._resume():
            self.state.checks = self.check_terms()
            self.state.micro_batch, peak = self._fit_memory()
            self.state.checks["memory_GB"] = round(peak, 3)
        while self.state.epoch < self.settings.epochs and not self.state.stopped:
            self._epoch()
        if self.state.best:
            copy_into(self.named, self.state.best)
        return self.state

    def check_terms(self) -> dict[str, Any]:
        """Value and gradient norm of each term of the loss; raises when a term moves nothing."""
        return check_terms(self.adapter, self.named, self.train, self.replay, self.consolidation, self.settings)

    # ---- one epoch -------------------------------------------------------------------------------------------------

    def _epoch(self) -> None:
        started, cpu = time.perf_counter(), time.process_time()
        state, settings = self.state, self.settings
        lr = self.schedule.learning_rate
        order = epoch_order(self.seed, state.epoch, len(self.train))
        replayed = self._replay_order()
        self.adapter.module.train()
        sums, replay, penalty, skipped = dict.fromkeys(TERMS, 0.0), 0.0, 0.0, 0
        for step, start in enumerate(range(0, len(order), settings.batch_size)):
            batch = [self.train[i] for i in order[start : start + settings.batch_size]]
            values = self._step(batch, [self.replay[i] for i in replayed[step]])
            for name in TERMS:
                sums[name] += values[name]
            replay += values["replay"]
            penalty += values["ewc"]
            skipped += not self._update()
        self.adapter.module.eval()
        with self.ema.applied(self.named):
            valid = measure(self.adapter, self.valid, settings)
            drift = self.drift() if self.drift is not None else {}
        state.epoch += 1
        improved = self._keep_best(valid)
        self.schedule.epoch(valid["loss"])
        state.stopped = self._why_to_stop(skipped)
        counts = counts_of(self.train)
        terms = {name: sums[name] / counts[name] for name in TERMS}
        self._record(
            {
                "epoch": state.epoch,
                "epochs": settings.epochs,
                "strategy": settings.strategy,
                "lr": lr,
                "train_loss": sum(getattr(settings.weights, name) * terms[name] for name in TERMS),
                "terms": terms,
                "replay_loss": replay / self.steps_per_epoch if self.replay else None,
                "ewc_penalty": penalty / self.steps_per_epoch if self.consolidation else None,
                "valid": valid,
                "drift": drift,
                "best": improved,
                "skipped_steps": skipped,
                "batch_size": settings.batch_size,
                "micro_batch": state.micro_batch,
                "seconds": time.perf_counter() - started,
                "cpu_s": time.process_time() - cpu,
            }
        )

    def _replay_order(self) -> list[list[int]]:
        """Indices of the replayed frames of each step of this epoch; no frame twice before each had its turn."""
        n, each = len(self.replay), self.settings.replay.per_step
        if n == 0:
            return [[] for _ in range(self.steps_per_epoch)]
        rng = np.random.default_rng([self.seed, self.state.epoch, 1])
        rounds = -(-each * self.steps_per_epoch // n)
        order = [int(i) for _ in range(rounds) for i in rng.permutation(n)]
        return [order[k * each : (k + 1) * each] for k in range(self.steps_per_epoch)]

    def _step(self, batch: Sequence[Example], replay: Sequence[Example] = ()) -> dict[str, float]:
        """Gradients of one step; the sums of the batch's terms, the replay loss and the penalty."""
        self.optimizer.zero_grad(set_to_none=True)
        values = self._add_gradients(batch, 1.0)
        again = self._add_gradients(replay, self.settings.replay.weight)
        counts = counts_of(replay)
        weights = self.settings.weights
        values["replay"] = sum(getattr(weights, k) * again[k] / counts[k] for k in TERMS) if replay else 0.0
        values["ewc"] = self.consolidation.add_gradients(self.named) if self.consolidation is not None else 0.0
        return values

    def _add_gradients(self, batch: Sequence[Example], weight: float) -> dict[str, float]:
        """Walk back through a batch in parts that fit into memory; they add up to the whole batch's gradient."""
        values = dict.fromkeys(TERMS, 0.0)
        counts = counts_of(batch)
        for start in range(0, len(batch), max(1, self.state.micro_batch)):
            part = batch[start : start + max(1, self.state.micro_batch)]
            prediction = self.adapter.predict([x.graph for x in part], training=True)
            sums = loss_sums(prediction, part, delta=self.settings.huber_delta)
            (weight * total_loss(sums, counts, self.settings.weights)).backward()
            for name, value in sums.items():
                values[name] += float(value.detach())
        return values

    def _update(self) -> bool:
        """Step with the clipped gradients; False (and no step) when they are not finite."""
        norm = torch.nn.utils.clip_grad_norm_(self.named.values(), self.settings.clip_norm)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.ema.update(self.named)
        else:
            self.optimizer.zero_grad(set_to_none=True)
            self.optimizer.step()  # without gradients: moves nothing, keeps optimizer and schedule in step
        self.schedule.step()
        return finite

    def _keep_best(self, valid: Metrics) -> bool:
        loss = valid["loss"]
        if loss is None or not math.isfinite(loss) or loss >= self.state.best_loss:
            return False
        self.state.best_loss, self.state.best_epoch = loss, self.state.epoch
        self.state.best = self.ema.snapshot()
        return True

    def _why_to_stop(self, skipped: int) -> str:
        """Why the training ends with this epoch; empty when it goes on."""
        state, patience = self.state, self.settings.patience
        if skipped > MAX_SKIPPED * self.steps_per_epoch:
            return f"diverged in epoch {state.epoch}: {skipped} steps without a finite gradient"
        waited = state.epoch - state.best_epoch
        if patience is not None and waited >= patience and state.epoch < self.settings.epochs:
            return f"ended after epoch {state.epoch}: no better validation loss in {waited} epochs"
        return ""

    # ---- what is kept ----------------------------------------------------------------------------------------------

    def _record(self, line: dict[str, Any]) -> None:
        """History first, then the checkpoint: a line too many is dropped on resume, a line too few could not be."""
        line = jsonable(line)
        self.state.history.append(line)
        with disk_errors(self.out / HISTORY), (self.out / HISTORY).open("a") as handle:
            handle.write(dumps(line, indent=None) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        state = self.state
        save_checkpoint(
            self.out,
            {
                "model": {name: p.detach() for name, p in self.named.items()},
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "ema": self.ema.state_dict(),
                "epoch": state.epoch,
                "micro_batch": state.micro_batch,
                "best": state.best,
                "best_epoch": state.best_epoch,
                "best_loss": state.best_loss,
                "stopped": state.stopped,
                "checks": json.dumps(jsonable(state.checks)),
                "history_length": len(state.history),
            },
            key=self.key,
        )
        if self.on_epoch is not None:
            self.on_epoch(line)

    def _resume(self) -> bool:
        saved = load_checkpoint(self.out, key=self.key)
        if saved is None:
            (self.out / HISTORY).unlink(missing_ok=True)
            return False
        copy_into(self.named, saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.ema.load_state_dict(saved["ema"])
        path = self.out / HISTORY
        lines = path.read_text().splitlines()[: saved["history_length"]] if path.exists() else []
        atomic_write(path, "".join(line + "\n" for line in lines))
        self.state = LoopState(
            epoch=saved["epoch"],
            micro_batch=saved["micro_batch"],
            best={name: t.to(self.named[name].device) for name, t in saved["best"].items()},
            best_epoch=saved["best_epoch"],
            best_loss=saved["best_loss"],
            stopped=saved["stopped"],
            checks=json.loads(saved["checks"]),
            history=[json.loads(line) for line in lines],
        )
        return True

    def _fit_memory(self) -> tuple[int, float]:
        pool = [*self.train, *self.replay]

        def run(indices: list[int]) -> None:
            self.state.micro_batch = len(indices)
            self._add_gradients([pool[i] for i in indices], 1.0)
            self.optimizer.zero_grad(set_to_none=True)

        sizes = [self.adapter.size(x.graph) for x in pool]
        return fitting_batch(run, sizes, self.settings.batch_size, self.settings.memory_limit_GB)


def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The n frames in the order in which an epoch (from 0) takes them."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def copy_into(parameters: dict[str, torch.nn.Parameter], values: dict[str, Tensor]) -> None:
    """Set parameters by name."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
