from __future__ import annotations

import pytest
import torch

from aldriver.core.errors import InputError
from aldriver.core.recipe_train import Train
from aldriver.train import train
from aldriver.train.base import make_adapter
from aldriver.train.strategy import select_parameters


def test_conv_only_trains_the_convolutions_of_table_3_model_5(chgnet020):
    adapter = make_adapter(chgnet020)
    names = adapter.set_trainable(Train(strategy="conv-only"))
    assert {name.split(".")[0] for name in names} == {"atom_conv_layers", "bond_conv_layers"}
    sizes = dict(adapter.module.named_parameters())
    # 148,736 + 136,128 weights of CHGNet 0.2.0's four atom and three bond convolutions
    assert sum(sizes[name].numel() for name in names) == 284_864


def test_naive_trains_all_but_the_reference_and_the_moments(chgnet020):
    adapter = make_adapter(chgnet020)
    names = set(adapter.set_trainable(Train()))
    frozen = {name.split(".")[0] for name, _ in adapter.module.named_parameters() if name not in names}
    assert frozen == {"composition_model", "site_wise"}


def test_only_the_convolutions_change(chgnet020, iron, settings, tmp_path):
    frames = iron(3)
    before = {k: v.clone() for k, v in chgnet020.module.state_dict().items()}
    result = train(chgnet020, frames, frames, settings(strategy="conv-only", epochs=5), tmp_path, seed=0)
    assert result.accepted
    after = result.potential.module.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"atom_conv_layers", "bond_conv_layers"}
    assert result.trainable == 284_864


def test_a_strategy_that_trains_nothing_is_refused():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="leaves no trainable parameter"):
        select_parameters(module, "conv-only", convolutions=["atom_conv_layers"])


def test_an_unknown_strategy_is_refused():
    with pytest.raises(InputError, match="naive and conv-only"):
        select_parameters(torch.nn.Linear(2, 2), "lora", convolutions=[])


def test_a_classical_potential_cannot_be_trained(eam_fe):
    with pytest.raises(InputError, match="'eam' cannot be trained"):
        make_adapter(eam_fe)
