from __future__ import annotations

import numpy as np
import pytest
import torch

from aldriver.core.errors import InputError
from aldriver.core.recipe_train import LossWeights
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.train.base import BatchPrediction
from aldriver.train.loss import TERMS, Example, counts_of, loss_sums, make_example, total_loss


def huber(x: float, delta: float = 0.1) -> float:
    return 0.5 * x * x if abs(x) <= delta else delta * (abs(x) - 0.5 * delta)


def example(n: int, *, weight: float = 1.0, stress: bool = True, magmoms: bool = False) -> Example:
    return Example(
        graph=None,
        energy=torch.tensor(0.0),
        forces=torch.zeros(n, 3),
        stress=torch.zeros(3, 3) if stress else None,
        weight=weight,
        magmoms=torch.full((n,), 2.0) if magmoms else None,
    )


def prediction() -> BatchPrediction:
    forces = torch.zeros(3, 3)
    forces[0, 0], forces[1, 2], forces[2, 1] = 0.05, -0.4, 1.0
    stress = torch.zeros(2, 3, 3)
    stress[0, 0, 0], stress[1, 0, 1], stress[1, 1, 0] = 2.0, 0.06, 0.06
    magmoms = torch.tensor([2.05, 1.6, 0.3])
    return BatchPrediction(energy=torch.tensor([0.03, -0.5]), forces=forces, stress=stress, magmoms=magmoms)


def test_terms_by_hand():
    batch = [example(2, weight=1.0), example(1, weight=3.0)]
    sums, counts = loss_sums(prediction(), batch, delta=0.1), counts_of(batch)
    assert counts == {"energy": 2, "forces": 9, "stress": 18, "magmoms": 3}
    terms = {k: float(sums[k]) / counts[k] for k in TERMS}
    assert terms["energy"] == pytest.approx((huber(0.03) + 3 * huber(-0.5)) / 2)
    assert terms["forces"] == pytest.approx((huber(0.05) + huber(-0.4) + 3 * huber(1.0)) / 9)
    assert terms["stress"] == pytest.approx((huber(2.0) + 3 * 2 * huber(0.06)) / 18)
    total = total_loss(sums, counts, LossWeights(energy=2.0, forces=5.0, stress=0.1))
    assert float(total) == pytest.approx(2 * terms["energy"] + 5 * terms["forces"] + 0.1 * terms["stress"])


def test_a_frame_without_stress_adds_nothing_to_the_stress_term():
    batch = [example(2, stress=False), example(1)]
    assert float(loss_sums(prediction(), batch, delta=0.1)["stress"]) == pytest.approx(2 * huber(0.06))
    none = [example(2, stress=False), example(1, stress=False)]
    assert float(loss_sums(prediction(), none, delta=0.1)["stress"]) == 0.0


def test_only_frames_with_moments_are_in_the_moment_term():
    batch = [example(2, weight=3.0, magmoms=True), example(1)]
    sums = loss_sums(prediction(), batch, delta=0.1)
    assert float(sums["magmoms"]) == pytest.approx(3 * (huber(0.05) + huber(-0.4)))
    assert float(loss_sums(prediction(), [example(2), example(1)], delta=0.1)["magmoms"]) == 0.0


def test_a_frame_weight_scales_also_a_batch_of_one():
    p = BatchPrediction(energy=torch.tensor([0.2]), forces=torch.ones(1, 3), stress=torch.ones(1, 3, 3))
    one, ten = (loss_sums(p, [example(1, weight=w)], delta=0.1) for w in (1.0, 10.0))
    for key in TERMS:
        assert float(ten[key]) == pytest.approx(10 * float(one[key]))


def test_labels_become_ev_per_atom_and_gpa(chgnet020, iron, examples):
    atoms = iron(1)[0]
    _, (x,) = examples(chgnet020, [atoms], {"Fe": -4.0})
    assert float(x.energy) == pytest.approx(atoms.get_potential_energy() / 2 - 4.0, abs=1e-6)
    assert np.allclose(x.forces.numpy(), atoms.get_forces(), atol=1e-6)
    assert np.allclose(x.stress.numpy(), atoms.get_stress(voigt=False) * EV_A3_TO_GPA, atol=1e-4)


@pytest.mark.parametrize("key", TERMS)
def test_each_term_alone_moves_the_weights_its_own_way(chgnet020, iron, examples, key):
    frames = iron(2)
    for atoms in frames:
        atoms.calc.results["magmoms"] = np.array([2.2, -2.2])
    adapter, batch = examples(chgnet020, frames, {"Fe": -4.3})
    parameters = [p for p in adapter.module.parameters() if p.requires_grad]
    gradients = {}
    for name in TERMS:
        weights = LossWeights(**{k: float(k == name) for k in TERMS})
        p = adapter.predict([x.graph for x in batch], training=True)
        loss = total_loss(loss_sums(p, batch, delta=0.1), counts_of(batch), weights)
        g = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = [torch.zeros_like(q) if v is None else v for q, v in zip(parameters, g, strict=True)]
        gradients[name] = torch.cat([v.flatten() for v in filled])
    mine = gradients.pop(key)
    assert float(mine.norm()) > 0
    for other in gradients.values():
        cosine = float(mine @ other / (mine.norm() * other.norm()))
        assert abs(cosine) < 0.999


def test_bad_labels_are_named(chgnet020, iron, examples):
    adapter, _ = examples(chgnet020, [], None)
    atoms = iron(1)[0]
    atoms.info["weight"] = -1.0
    with pytest.raises(InputError, match=r"weight -1\.0"):
        make_example(adapter, atoms, None)
    atoms = iron(1)[0]
    atoms.calc.results["forces"][0, 0] = np.nan
    with pytest.raises(InputError, match="forces is not finite"):
        make_example(adapter, atoms, None)
    del atoms.calc.results["forces"]
    with pytest.raises(InputError, match="has no forces"):
        make_example(adapter, atoms, None)
