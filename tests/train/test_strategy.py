from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aldriver.core.errors import InputError
from aldriver.core.recipe_train import Train
from aldriver.testing.small_mace import small_mace
from aldriver.train import train
from aldriver.train.base import make_adapter
from aldriver.train.strategy import LAYERS, TABLE_3, select_parameters

PAPER = Path(__file__).resolve().parents[2].parent / "shared" / "papers" / "mohandas2026_steels.txt"
SIZES_020 = {
    "atom embedding": 6016,
    "atom convolution": 148_736,
    "bond embedding": 576 + 576 + 576,
    "bond convolution": 136_128,
    "bond basis": 18,
    "angle embedding": 576,
    "angle layers": 98_688,
    "angle basis expansion": 4,
}
"""Weights of CHGNet 0.2.0 by row of Table 3."""


def children(names: list[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.skipif(not PAPER.exists(), reason="the paper is not here")
def test_the_table_is_the_papers():
    lines = PAPER.read_text().splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("\tModel 1"))
    printed = {}
    for line in lines[start + 1 : start + 9]:
        name, *cells = line.strip().split("\t")
        printed[name.lower()] = "".join(cells)
    assert printed == {row: cells for row, (_, cells) in TABLE_3.items()}


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("readout", ["frozen", "trainable"])
def test_models_of_table_3(chgnet020, number, readout):
    adapter = make_adapter(chgnet020)
    names = adapter.set_trainable(Train(strategy=f"model-{number}", readout=readout))
    sizes = {name: p.numel() for name, p in adapter.module.named_parameters()}
    expected = sum(SIZES_020[row] for row, (_, cells) in TABLE_3.items() if cells[number - 1] == "T")
    expected += 8385 if readout == "trainable" else 0
    assert sum(sizes[name] for name in names) == expected
    assert {name for name, p in adapter.module.named_parameters() if p.requires_grad} == set(names)


def test_model_5_is_conv_only_and_model_6_is_naive(chgnet020):
    adapter = make_adapter(chgnet020)
    for one, other in (("model-5", "conv-only"), ("model-6", "naive")):
        assert adapter.set_trainable(Train(strategy=one)) == adapter.set_trainable(Train(strategy=other))
    assert children(adapter.set_trainable(Train(strategy="conv-only"))) == {"atom_conv_layers", "bond_conv_layers"}


def test_the_readout_of_030_has_a_norm(chgnet030):
    names = make_adapter(chgnet030).set_trainable(Train(strategy="model-5", readout="trainable"))
    assert children(names) == {"atom_conv_layers", "bond_conv_layers", "mlp", "readout_norm"}


def test_naive_trains_all_but_the_reference_and_the_moments(chgnet020):
    adapter = make_adapter(chgnet020)
    everything = [name for name, _ in adapter.module.named_parameters()]
    frozen = children(list(set(everything) - set(adapter.set_trainable(Train()))))
    assert frozen == {"composition_model", "site_wise"}
    moments = adapter.set_trainable(Train.model_validate({"weights": {"magmoms": 0.1}}))
    assert children(list(set(everything) - set(moments))) == {"composition_model"}


@pytest.mark.parametrize(
    ("strategy", "layers"),
    [
        ("f0", {"node_embedding", "interactions", "products", "readouts"}),
        ("f4", {"interactions", "products", "readouts"}),
        ("f5", {"products", "readouts"}),
        ("f6", {"readouts"}),
    ],
)
def test_levels_of_mace(strategy, layers):
    adapter = make_adapter(small_mace())
    assert children(adapter.set_trainable(Train(strategy=strategy))) == layers


def test_layers_of_sevennet():
    names = [
        "onehot_to_feature_x",
        "edge_embedding",
        "0_self_connection_intro",
        "4_convolution",
        "4_self_interaction_2",
        "reduce_input_to_hidden",
        "reduce_hidden_to_energy",
        "rescale_atomic_energy",
    ]
    module = torch.nn.ModuleDict({name: torch.nn.Linear(1, 1) for name in names})
    trained = {s: children(select_parameters(module, "sevennet", Train(strategy=s))) for s in LAYERS["sevennet"]}
    assert trained["naive"] == trained["f0"] == set(names) - {"rescale_atomic_energy"}
    assert trained["f4"] == trained["f0"] - {"onehot_to_feature_x", "edge_embedding"}
    assert trained["f6"] == {"reduce_input_to_hidden", "reduce_hidden_to_energy"}


def test_only_the_convolutions_change(chgnet020, iron, settings, tmp_path):
    frames = iron(3)
    before = {k: v.clone() for k, v in chgnet020.module.state_dict().items()}
    result = train(chgnet020, frames, frames, settings(strategy="conv-only", epochs=5), tmp_path, seed=0)
    assert result.accepted
    after = result.potential.module.state_dict()
    assert children([name for name in before if not torch.equal(before[name], after[name])]) == {
        "atom_conv_layers",
        "bond_conv_layers",
    }
    assert result.trainable == 284_864
    assert result.strategy == result.history[0]["strategy"] == "conv-only"


def test_a_strategy_that_trains_nothing_is_refused():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="leaves no trainable parameter"):
        select_parameters(module, "chgnet", Train(strategy="conv-only"))


@pytest.mark.parametrize(("family", "strategy"), [("chgnet", "f4"), ("mace", "model-5"), ("sevennet", "f5")])
def test_another_familys_strategy_is_refused_with_what_there_is(family, strategy):
    with pytest.raises(InputError, match=rf"'{strategy}' is not one of {family}'s; there is naive, .*lora"):
        select_parameters(torch.nn.Linear(2, 2), family, Train(strategy=strategy))


def test_zero_shot_reports_and_trains_nothing(chgnet020, iron, settings, tmp_path):
    frames = iron(4)
    result = train(chgnet020, frames[:2], frames[2:], settings(strategy="zero-shot"), tmp_path, seed=0)
    assert result.potential is chgnet020
    assert not result.accepted
    assert "nothing is trained" in result.reason
    assert result.before == result.after
    assert result.after["forces_rmse_meV_A"] > 0
    assert result.trainable == 0
    assert result.history == []


@pytest.mark.parametrize("family", ["chgnet", "mace"])
def test_scratch_starts_from_other_weights_and_keeps_the_references(chgnet020, family):
    start = chgnet020 if family == "chgnet" else small_mace()
    before = {k: v.clone() for k, v in start.module.state_dict().items()}
    states = []
    for seed in (1, 1, 2):
        adapter = make_adapter(start)
        adapter.reset(seed)
        states.append({k: v.clone() for k, v in adapter.module.state_dict().items()})
    assert all(torch.equal(states[0][k], states[1][k]) for k in before)
    for kept in ("composition_model.fc.weight", "atomic_energies_fn.atomic_energies"):
        assert kept not in before or torch.equal(states[0][kept], before[kept])
    matrices = [k for k, p in start.module.named_parameters() if p.ndim == 2 and "composition" not in k]
    for other in (states[2], before):
        assert not any(torch.equal(states[0][k], other[k]) for k in matrices)


def test_a_proxy_gives_an_element_the_embedding_of_another(chgnet020, fe_cell):
    adapter = make_adapter(chgnet020)
    adapter.proxy({"Pu": "Fe"})
    as_plutonium = fe_cell.copy()
    as_plutonium.symbols[:] = "Pu"
    references = chgnet020.module.composition_model.fc.weight[0]
    energies = [float(adapter.predict([adapter.graph(a)], training=False).energy) for a in (fe_cell, as_plutonium)]
    # the sites are the same; the energies per element stay each element's own
    assert energies[1] - energies[0] == pytest.approx(float(references[93] - references[25]), abs=1e-5)
    with pytest.raises(InputError, match="CHGNet has no Am"):
        adapter.proxy({"Am": "Fe"})


def test_a_classical_potential_cannot_be_trained(eam_fe):
    with pytest.raises(InputError, match="'eam' cannot be trained"):
        make_adapter(eam_fe)


def test_weights_on_another_device_are_refused(chgnet020, iron, settings, tmp_path):
    start, frames = chgnet020.copy(), iron(2)
    start.module.mlp.to("meta")
    with pytest.raises(InputError, match="computes on cpu, but its weights 'mlp.*' lie on meta"):
        train(start, frames[:1], frames[1:], settings(), tmp_path, seed=0)
    elsewhere = chgnet020.copy()
    elsewhere.module.to("meta")
    elsewhere.device = torch.device("meta")
    with pytest.raises(InputError, match="computes on cpu, the foundation .* on meta"):
        train(chgnet020, frames[:1], frames[1:], settings(), tmp_path, seed=0, foundation=elsewhere)
