"""Before the first step: does each term of the loss act on the weights that are trained?

Trainings that silently ignored the stress, a data set, or the weight of replayed frames are known from other codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aldriver.core.errors import AldriverError
from aldriver.core.recipe_train import Train
from aldriver.train.base import TrainAdapter
from aldriver.train.ewc import Consolidation
from aldriver.train.loss import OPTIONAL, TERMS, Example, counts_of, loss_sums, total_loss

Named = Mapping[str, torch.nn.Parameter]


def check_terms(
    adapter: TrainAdapter,
    named: Named,
    train: Sequence[Example],
    replay: Sequence[Example],
    consolidation: Consolidation | None,
    settings: Train,
) -> dict[str, Any]:
    """Value and gradient norm of each term, on the first frames that have it.

    A term whose weight is 0, or that no frame has a label for, is reported as off.

    Raises
    ------
    AldriverError
        When a term that is not zero moves no weight, no term is active, a family lacks a term that is asked for, or the
        predictions on replayed frames do not depend on the trained weights.
    """
    report: dict[str, Any] = {}
    for name in TERMS:
        weight = getattr(settings.weights, name)
        having = [x for x in train if x.weight > 0 and (name not in OPTIONAL or x.has(name))]
        if weight == 0 or not having:
            report[name] = {"active": False, "reason": "its weight is 0" if weight == 0 else "no frame has a label"}
            continue
        value, norm = _term_gradient(adapter, named, name, having, settings)
        if value > 0 and not norm > 0:
            raise AldriverError(
                f"the {name} term of the loss ({value:.3g}) moves none of the trainable weights "
                f"(gradient norm {norm}); choose another train.strategy"
            )
        report[name] = {"active": True, "value": value, "gradient_norm": norm, "frames": len(having)}
    if not any(entry["active"] for entry in report.values()):
        raise AldriverError("no term of the loss is active: train.weights are 0 or no frame has labels")
    if replay:
        report["replay"] = _check_replay(adapter, named, replay, settings)
    if consolidation is not None:
        report["ewc"] = {"active": True, "strength": consolidation.strength}
    elif settings.ewc > 0:
        report["ewc"] = {"active": False, "reason": "there is no general knowledge to keep"}
    return report


def _term_gradient(
    adapter: TrainAdapter, named: Named, name: str, examples: Sequence[Example], settings: Train
) -> tuple[float, float]:
    value = norm = 0.0
    for example in examples:  # the first one that is not fitted exactly, as a rule the very first
        prediction = adapter.predict([example.graph], training=True)
        if name == "magmoms" and prediction.magmoms is None:
            raise AldriverError(
                f"train.weights.magmoms: {adapter.family} potentials have no magnetic moments; set it to 0"
            )
        term = loss_sums(prediction, [example], delta=settings.huber_delta)[name]
        value = float(term.detach()) / counts_of([example])[name]
        norm = gradient_norm(term, named)
        if value > 0:
            break
    return value, norm


def _check_replay(adapter: TrainAdapter, named: Named, replay: Sequence[Example], settings: Train) -> dict[str, Any]:
    """The replay loss of the first frames.

    What the foundation says of a frame is zero loss to the foundation itself; that the loss can act is then seen from
    the predictions: they must depend on the trained weights.
    """
    first = list(replay[: settings.replay.per_step])
    prediction = adapter.predict([x.graph for x in first], training=True)
    loss = total_loss(loss_sums(prediction, first, delta=settings.huber_delta), counts_of(first), settings.weights)
    value, norm = float(loss.detach()), gradient_norm(loss, named, keep=True)
    reach = gradient_norm(prediction.energy.sum() + prediction.forces.square().sum(), named)
    if not reach > 0 or (value > 0 and not norm > 0):
        raise AldriverError(
            "replayed frames do not act on the trainable weights: their predictions do not depend on them; "
            "choose another train.strategy, or set train.replay.source to none"
        )
    return {
        "active": True,
        "value": value,
        "gradient_norm": norm,
        "prediction_gradient_norm": reach,
        "weight": settings.replay.weight,
        "frames": len(replay),
    }


def gradient_norm(value: Tensor, named: Named, *, keep: bool = False) -> float:
    """Norm of the gradient with respect to the trained weights."""
    if not value.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True, retain_graph=keep)
    return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
