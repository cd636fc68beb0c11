"""Elastic weight consolidation: weights that general knowledge hangs on move less (Kirkpatrick et al. 2017, eq. 3).

    penalty = λ/2 Σ_i F_i (θ_i − θ*_i)²

with θ* the weights the training starts from (PNAS 114, 3521). For labels with Gaussian noise the Fisher information is
the mean square of the derivatives of the outputs, which needs no labels. Over B general frames of N_b atoms, with the
loss weights w:

    F_i ∝ 1/B Σ_b [ w_energy (∂(E_b/N_b)/∂θ_i)² + w_forces 1/(3 N_b) Σ_jα (∂F_jα/∂θ_i)² ],      mean_i F_i = 1

The inner sum over forces is estimated from random signs r, as the mean of (∂(Σ_jα r_jα F_jα)/∂θ_i)² over a few draws
(Hutchinson 1990). The mean of 1 gives λ one meaning for every network and any number of frames: averaged over the
trained weights it is the stiffness of the spring that holds a weight, λ/2 (θ − θ*)²; the Fisher information only says
which springs are stiffer. Useful values lie between 0.01 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aldriver.core.errors import AldriverError

if TYPE_CHECKING:
    from aldriver.core.recipe_train import Train
    from aldriver.train.base import TrainAdapter

PROJECTIONS = 2
"""Draws of random signs per frame."""


class Consolidation:
    """The penalty of one training.

    Parameters
    ----------
    fisher, anchor
        F and θ* by name.
    strength
        λ.
    """

    def __init__(self, fisher: Mapping[str, Tensor], anchor: Mapping[str, Tensor], strength: float) -> None:
        self.fisher, self.anchor, self.strength = dict(fisher), dict(anchor), strength

    @torch.no_grad()
    def add_gradients(self, named: Mapping[str, torch.nn.Parameter]) -> float:
        """Add the penalty's gradient λ F (θ − θ*) to the parameters' gradients; the penalty."""
        penalty = 0.0
        for name, parameter in named.items():
            moved = parameter - self.anchor[name]
            gradient = self.strength * self.fisher[name] * moved
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            penalty += 0.5 * float((gradient * moved).sum())
        return penalty


def consolidate(adapter: TrainAdapter, graphs: Sequence[Any], settings: Train, *, seed: int) -> Consolidation:
    """Fisher information of the trained weights as they are now, from general frames.

    Raises
    ------
    AldriverError
        When no weight matters to any of the frames.
    """
    named = {name: p for name, p in adapter.module.named_parameters() if p.requires_grad}
    fisher = {name: torch.zeros_like(p) for name, p in named.items()}
    generator = torch.Generator().manual_seed(seed)
    weights = settings.weights

    def add(value: Tensor, factor: float, *, keep: bool) -> None:
        gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True, retain_graph=keep)
        for total, g in zip(fisher.values(), gradients, strict=True):
            if g is not None:
                total.add_(g.square(), alpha=factor / len(graphs))

    for graph in graphs:
        p = adapter.predict([graph], training=True)
        for _ in range(PROJECTIONS):
            signs = torch.randint(0, 2, p.forces.shape, generator=generator).to(p.forces) * 2 - 1
            add((signs * p.forces).sum(), weights.forces / (p.forces.numel() * PROJECTIONS), keep=True)
        add(p.energy.sum(), weights.energy, keep=False)
    trace, count = sum(float(f.sum()) for f in fisher.values()), sum(f.numel() for f in fisher.values())
    if not trace > 0:
        raise AldriverError(
            "train.ewc: no trained weight matters to the general frames, so that none would be protected; "
            "give train.replay.elements, or set train.ewc to 0"
        )
    return Consolidation(
        {name: f * (count / trace) for name, f in fisher.items()},
        {name: p.detach().clone() for name, p in named.items()},
        settings.ewc,
    )
