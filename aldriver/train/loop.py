"""The training loop all families share: Huber loss, clipping, moving average, cosine schedule, exact resume.

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
from torch import Tensor

from aldriver.core.errors import AldriverError
from aldriver.core.recipe_train import Train
from aldriver.core.records import dumps, jsonable
from aldriver.core.store import atomic_write, disk_errors
from aldriver.train.base import TrainAdapter
from aldriver.train.checkpoint import load_checkpoint, save_checkpoint
from aldriver.train.ema import MovingAverage
from aldriver.train.loss import TERMS, Example, counts_of, loss_sums, total_loss
from aldriver.train.memory import fitting_batch
from aldriver.train.metrics import Metrics, measure

HISTORY = "history.jsonl"
FINAL_LR = 0.01
"""The cosine ends at this fraction of the learning rate."""
WARM_UP = 0.05
"""Share of the steps over which the learning rate rises linearly: Adam's first steps are otherwise all full-sized."""
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

    Parameters
    ----------
    train, valid
        Examples, each side not empty.
    out
        Where checkpoint and history are kept; a training that was cut short goes on from there.
    key
        Of the training as a whole; see ``checkpoint.py``.
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
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.adapter, self.train, self.valid, self.settings = adapter, list(train), list(valid), settings
        self.out, self.seed, self.key, self.on_epoch = Path(out), seed, key, on_epoch
        self.named = {name: p for name, p in adapter.module.named_parameters() if p.requires_grad}
        self.ema = MovingAverage(self.named, decay=settings.ema_decay)
        self.optimizer = torch.optim.Adam(self.named.values(), lr=settings.learning_rate)
        self.steps_per_epoch = -(-len(self.train) // settings.batch_size)
        total = settings.epochs * self.steps_per_epoch
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, total)
        )
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

    # ---- one epoch -------------------------------------------------------------------------------------------------

    def _epoch(self) -> None:
        started, cpu = time.perf_counter(), time.process_time()
        state, settings = self.state, self.settings
        lr = self.scheduler.get_last_lr()[0]
        order = np.random.default_rng([self.seed, state.epoch]).permutation(len(self.train))
        self.adapter.module.train()
        sums = dict.fromkeys(TERMS, 0.0)
        skipped = 0
        for start in range(0, len(order), settings.batch_size):
            batch = [self.train[i] for i in order[start : start + settings.batch_size]]
            for name, value in self._step(batch).items():
                sums[name] += value
            skipped += not self._update()
        self.adapter.module.eval()
        with self.ema.applied(self.named):
            valid = measure(self.adapter, self.valid, settings)
        state.epoch += 1
        improved = self._keep_best(valid)
        if skipped > MAX_SKIPPED * self.steps_per_epoch:
            state.stopped = f"diverged in epoch {state.epoch}: {skipped} steps without a finite gradient"
        counts = counts_of(self.train)
        terms = {name: sums[name] / counts[name] for name in TERMS}
        self._record(
            {
                "epoch": state.epoch,
                "epochs": settings.epochs,
                "lr": lr,
                "train_loss": sum(getattr(settings.weights, name) * terms[name] for name in TERMS),
                "terms": terms,
                "valid": valid,
                "best": improved,
                "skipped_steps": skipped,
                "batch_size": settings.batch_size,
                "micro_batch": state.micro_batch,
                "seconds": time.perf_counter() - started,
                "cpu_s": time.process_time() - cpu,
            }
        )

    def _step(self, batch: Sequence[Example]) -> dict[str, float]:
        """Gradients of one batch, in parts that fit into memory; the parts add up to the whole batch's gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        counts = counts_of(batch)
        values = dict.fromkeys(TERMS, 0.0)
        for start in range(0, len(batch), self.state.micro_batch):
            part = batch[start : start + self.state.micro_batch]
            prediction = self.adapter.predict([x.graph for x in part], training=True)
            sums = loss_sums(prediction, part, delta=self.settings.huber_delta)
            total_loss(sums, counts, self.settings.weights).backward()
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
        self.scheduler.step()
        return finite

    def _keep_best(self, valid: Metrics) -> bool:
        loss = valid["loss"]
        if loss is None or not math.isfinite(loss) or loss >= self.state.best_loss:
            return False
        self.state.best_loss, self.state.best_epoch = loss, self.state.epoch
        self.state.best = self.ema.snapshot()
        return True

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
                "scheduler": self.scheduler.state_dict(),
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
        self.scheduler.load_state_dict(saved["scheduler"])
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

    # ---- before the first step -------------------------------------------------------------------------------------

    def check_terms(self) -> dict[str, Any]:
        """Value and gradient norm of each term on the first frames that have it; raises when a term moves nothing.

        A term whose weight is 0, or that no frame has a label for, is reported as off. Trainings that silently ignored
        the stress, or a whole data set, are known from other codes.
        """
        report: dict[str, Any] = {}
        for name in TERMS:
            weight = getattr(self.settings.weights, name)
            having = [x for x in self.train if x.weight > 0 and (name != "stress" or x.stress is not None)]
            if weight == 0 or not having:
                report[name] = {"active": False, "reason": "its weight is 0" if weight == 0 else "no frame has a label"}
                continue
            value, norm = self._term_gradient(name, having)
            if value > 0 and not norm > 0:
                raise AldriverError(
                    f"the {name} term of the loss ({value:.3g}) moves none of the trainable weights "
                    f"(gradient norm {norm}); choose another train.strategy"
                )
            report[name] = {"active": True, "value": value, "gradient_norm": norm, "frames": len(having)}
        if not any(entry["active"] for entry in report.values()):
            raise AldriverError("no term of the loss is active: train.weights are 0 or no frame has labels")
        return report

    def _term_gradient(self, name: str, examples: Sequence[Example]) -> tuple[float, float]:
        value = norm = 0.0
        for example in examples:  # the first one that is not fitted exactly, as a rule the very first
            prediction = self.adapter.predict([example.graph], training=True)
            term = loss_sums(prediction, [example], delta=self.settings.huber_delta)[name]
            value = float(term.detach()) / counts_of([example])[name]
            gradients = torch.autograd.grad(term, list(self.named.values()), allow_unused=True)
            norm = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
            if value > 0:
                break
        return value, norm

    def _fit_memory(self) -> tuple[int, float]:
        def run(indices: list[int]) -> None:
            self.state.micro_batch = len(indices)
            self._step([self.train[i] for i in indices])
            self.optimizer.zero_grad(set_to_none=True)

        sizes = [self.adapter.size(x.graph) for x in self.train]
        return fitting_batch(run, sizes, self.settings.batch_size, self.settings.memory_limit_GB)


def learning_rate_factor(step: int, total: int) -> float:
    """Linear rise over the first :data:`WARM_UP`, then a half cosine down to :data:`FINAL_LR`.

    The cosine without restarts of Loshchilov & Hutter (2017), eq. 5.
    """
    rise = min(1.0, (step + 1) / max(1.0, WARM_UP * total))
    return rise * (FINAL_LR + (1.0 - FINAL_LR) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, total)))))


def copy_into(parameters: dict[str, torch.nn.Parameter], values: dict[str, Tensor]) -> None:
    """Set parameters by name."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
