"""Low-rank updates on each kind of layer, and on whole networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from aldriver.core.recipe_train import Lora, Train
from aldriver.potentials.chgnet import CHGNetPotential
from aldriver.testing.contracts import check_symmetries
from aldriver.testing.small_mace import small_mace
from aldriver.train import train
from aldriver.train.base import TrainAdapter, make_adapter
from aldriver.train.lora import add_lora, matrices_of

SETTINGS = Train(strategy="lora", lora=Lora(rank=2, alpha=3.0))


@pytest.fixture(params=["chgnet", "mace"])
def start(request, chgnet020_double):
    return chgnet020_double if request.param == "chgnet" else small_mace(dtype="float64")


def randomise(adapter: TrainAdapter, size: float = 0.05) -> None:
    """Any values in the factors that start at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in adapter.module.named_parameters():
            if ".lora_B" in name:
                p.copy_(size * torch.randn(p.shape, generator=generator, dtype=p.dtype))


def outputs(adapter: TrainAdapter, frames: list[Atoms]) -> list[torch.Tensor]:
    p = adapter.predict([adapter.graph(a) for a in frames], training=False)
    return [p.energy, p.forces, p.stress]


def test_it_starts_as_exactly_the_foundation(start, fe_frames):
    adapter = make_adapter(start)
    before = outputs(adapter, fe_frames[:2])
    adapter.set_trainable(SETTINGS)
    for a, b in zip(before, outputs(adapter, fe_frames[:2]), strict=True):
        assert torch.equal(a, b)
    assert adapter.potential("same").fingerprint == start.fingerprint


def test_only_the_factors_are_trained(start):
    adapter = make_adapter(start)
    names = adapter.set_trainable(SETTINGS)
    assert names
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    assert not any(name.startswith(("composition_model", "site_wise")) for name in names)
    assert names == [name for name, p in adapter.module.named_parameters() if p.requires_grad]
    few = sum(p.numel() for p in adapter.module.parameters() if p.requires_grad)
    assert few < 0.5 * sum(p.numel() for p in start.module.parameters())
    assert adapter.set_trainable(SETTINGS) == names, "asking twice adds nothing"


def test_merged_weights_predict_the_same(start, fe_frames):
    adapter = make_adapter(start)
    before = outputs(adapter, fe_frames)
    adapter.set_trainable(SETTINGS)
    randomise(adapter)
    merged = adapter.potential("merged")
    assert not any(".lora_" in name for name in merged.module.state_dict())
    assert list(merged.module.state_dict()) == list(start.module.state_dict())
    unmerged = outputs(adapter, fe_frames)
    assert float((unmerged[1] - before[1]).abs().max()) > 1e-3, "the factors must matter for this test"
    for k, (atoms, p) in enumerate(zip(fe_frames, merged.evaluate(fe_frames), strict=True)):
        assert p.energy / len(atoms) == pytest.approx(float(unmerged[0][k]), abs=1e-12)
    forces = np.concatenate([p.forces for p in merged.evaluate(fe_frames)])
    np.testing.assert_allclose(forces, unmerged[1].numpy(), atol=1e-10)


def test_the_network_stays_equivariant(start, fe_frames):
    adapter = make_adapter(start)
    adapter.set_trainable(SETTINGS)
    randomise(adapter)
    potential = adapter.potential("updated")
    check_symmetries(potential, fe_frames[1], potential.evaluate([fe_frames[1]])[0], 1e-9)


def test_e3nn_layers_get_a_block_for_each_pair_of_irreps():
    from aldriver.potentials.mace_library import mace_library

    with mace_library():
        from e3nn import o3
        from e3nn.nn import FullyConnectedNet

        linear = o3.Linear("8x0e + 4x1o", "6x0e + 4x1o + 3x0e", biases=True)
        dense = FullyConnectedNet([3, 5, 7], torch.nn.functional.silu)
        rotation = o3.rand_matrix()
        into, out = (irreps.D_from_matrix(rotation) for irreps in (linear.irreps_in, linear.irreps_out))
    assert sorted(block[1:] for block in matrices_of(linear)) == [(4, 4), (8, 3), (8, 6)]
    assert sum(r * c for _, r, c in matrices_of(linear)) == linear.weight_numel
    assert [matrices_of(layer) for layer in dense.children()] == [[(0, 3, 5)], [(0, 5, 7)]]
    before = linear.weight.detach().clone()
    add_lora(torch.nn.ModuleDict({"a": linear}), Lora(rank=2))
    assert torch.equal(linear.weight, before)
    low = linear.parametrizations.weight[0]
    with torch.no_grad():
        for b in low.lora_B:
            b.normal_()
    update = (linear.weight - before).detach()
    for offset, rows, columns in low.blocks:
        singular = torch.linalg.svdvals(update[offset : offset + rows * columns].reshape(rows, columns))
        assert int((singular > 1e-5 * singular[0]).sum()) == 2, "each block has the rank asked for"
    x = torch.randn(5, linear.irreps_in.dim)
    assert torch.allclose(linear(x @ into.T), linear(x) @ out.T, atol=1e-4)


def test_the_update_is_alpha_over_rank_b_a():
    layer = torch.nn.Linear(6, 5, bias=False)
    before = layer.weight.detach().clone()
    assert add_lora(torch.nn.ModuleDict({"a": layer}), Lora(rank=2, alpha=3.0)) == ["a.weight"]
    low = layer.parametrizations.weight[0]
    with torch.no_grad():
        low.lora_B[0].normal_()
    expected = before + 1.5 * low.lora_B[0] @ low.lora_A[0]
    assert torch.allclose(layer.weight, expected, atol=1e-6)


def test_a_training_keeps_all_but_low_rank(iron, settings, tmp_path):
    start, frames = CHGNetPotential.foundation("0.2.0"), iron(4)
    s = settings(strategy="lora", epochs=5, learning_rate=3e-3, lora={"rank": 2})
    result = train(start, frames, frames, s, tmp_path, seed=0)
    assert result.accepted, result.reason
    assert result.potential.evaluate(frames[:1])[0].energy != start.evaluate(frames[:1])[0].energy
    before, after = start.module.state_dict(), result.potential.module.state_dict()
    assert list(before) == list(after)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    for name in changed:
        assert before[name].ndim == 2, f"{name} is no matrix"
        singular = torch.linalg.svdvals((after[name] - before[name]).double())
        assert float(singular[2:].sum()) < 1e-4 * float(singular.sum()), f"{name} moved by more than rank 2"
