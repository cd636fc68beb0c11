from __future__ import annotations

import pytest
import torch

from aldriver.core.errors import AldriverError
from aldriver.core.recipe_train import LossWeights, Train
from aldriver.train import train
from aldriver.train.base import BatchPrediction, make_adapter
from aldriver.train.ewc import Consolidation, consolidate


class Springs:
    """Energy/atom w·x and forces that are the weights themselves: a network whose Fisher information is known."""

    def __init__(self) -> None:
        self.module = torch.nn.Module()
        self.module.w = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))

    def predict(self, graphs: list[torch.Tensor], *, training: bool) -> BatchPrediction:
        w = self.module.w
        forces = (w * torch.tensor([0.0, 1.0, 2.0], dtype=w.dtype)).repeat(4, 1)  # 4 atoms
        return BatchPrediction(energy=torch.stack([w @ x for x in graphs]), forces=forces, stress=w.new_zeros(1, 3, 3))


def test_fisher_information_by_hand():
    adapter = Springs()
    graphs = [torch.tensor(x, dtype=torch.float64) for x in ([1.0, 0.0, 0.0], [3.0, 0.0, 1.0])]
    settings = Train(ewc=2.0, weights=LossWeights(energy=2.0, forces=0.0))
    fisher = consolidate(adapter, graphs, settings, seed=0).fisher["w"]
    expected = torch.tensor([(1 + 9) / 2, 0.0, 0.5], dtype=torch.float64)
    assert torch.allclose(fisher, expected / expected.mean())
    # the force along each axis is one weight times 0, 1 or 2
    forces = Train(ewc=2.0, weights=LossWeights(energy=0.0, forces=1.0))
    fisher = consolidate(adapter, graphs * 500, forces, seed=0).fisher["w"]
    assert torch.allclose(fisher / fisher.sum(), torch.tensor([0.0, 0.2, 0.8], dtype=torch.float64), atol=0.02)


def test_number_and_repetition_of_frames_do_not_matter():
    graphs = [torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)]
    settings = Train(ewc=1.0, weights=LossWeights(forces=0.0))
    one, five = (consolidate(Springs(), graphs * n, settings, seed=0).fisher["w"] for n in (1, 5))
    assert torch.allclose(one, five)
    assert float(one.mean()) == pytest.approx(1.0)


def test_the_gradient_is_that_of_the_penalty():
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    fisher, anchor = torch.tensor([0.5, 3.0]).double(), torch.tensor([0.0, 1.0]).double()
    penalty = Consolidation({"w": fisher}, {"w": anchor}, 4.0)
    parameter.grad = torch.tensor([10.0, 10.0], dtype=torch.float64)
    value = penalty.add_gradients({"w": parameter})
    assert value == pytest.approx(4.0 / 2 * (0.5 * 1.0 + 3.0 * 9.0))
    assert torch.allclose(parameter.grad, torch.tensor([10.0 + 4 * 0.5, 10.0 + 4 * 3.0 * -3.0]).double())


def test_stronger_consolidation_moves_and_forgets_less(chgnet020, iron, settings, tmp_path):
    frames = iron(4)
    start = dict(chgnet020.module.named_parameters())
    moved, drift = [], []
    for k, strength in enumerate((0.0, 0.1, 5.0)):
        out = tmp_path / str(k)
        result = train(chgnet020, frames[:2], frames[2:], settings(epochs=6, batch_size=1, ewc=strength), out, seed=0)
        weights = torch.load(out / "checkpoint.pt", weights_only=True)["state"]["model"]
        moved.append(float(sum((weights[n] - start[n].detach()).square().sum() for n in weights)) ** 0.5)
        drift.append(result.history[-1]["drift"]["drift_meV_atom"])
        penalties = [line["ewc_penalty"] for line in result.history]
        assert penalties == [None] * 6 if strength == 0 else all(p > 0 for p in penalties)
    assert moved[0] > 1.05 * moved[1] > 1.05 * 1.05 * moved[2]
    assert drift[0] > 1.5 * drift[1] > 1.5 * 1.5 * drift[2]


def test_nothing_to_protect_is_an_error(chgnet020, iron, settings, tmp_path):
    with pytest.raises(AldriverError, match="no trained weight matters"):
        consolidate(Springs(), [torch.zeros(3).double()], Train(ewc=1.0, weights=LossWeights(forces=0)), seed=0)
    frames = iron(2)
    result = train(chgnet020, frames, frames, settings(strategy="scratch", ewc=1.0), tmp_path, seed=0)
    assert all(line["ewc_penalty"] is None for line in result.history)


def test_the_start_is_the_anchor(chgnet020, fe_frames):
    adapter = make_adapter(chgnet020)
    adapter.set_trainable(Train(strategy="conv-only"))
    graphs = [adapter.graph(a) for a in fe_frames[:2]]
    made = consolidate(adapter, graphs, Train(ewc=1.0), seed=0)
    named = {n: p for n, p in adapter.module.named_parameters() if p.requires_grad}
    assert made.add_gradients(named) == 0.0
    assert set(made.fisher) == set(named)
    assert all((f >= 0).all() for f in made.fisher.values())
