"""SevenNet keeps the contract, and says what sevenn itself says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase import Atoms

from aldriver import load
from aldriver.core.errors import InputError
from aldriver.potentials import sevennet as module
from aldriver.potentials.bundle import load_bundle, save_bundle
from aldriver.potentials.sevennet import SevenNetPotential
from aldriver.testing.contracts import check_potential

SINGLE = 1e-6


def assert_like(prediction, atoms, calculator, *, atol):
    atoms = atoms.copy()
    atoms.calc = calculator
    assert prediction.energy == pytest.approx(atoms.get_potential_energy(), abs=atol * len(atoms))
    np.testing.assert_allclose(prediction.forces, atoms.get_forces(), atol=5 * atol)
    np.testing.assert_allclose(prediction.stress, atoms.get_stress(), atol=atol)


def test_contract_in_single_precision(sevennet, fe_frames):
    check_potential(sevennet, fe_frames[:2], noise=SINGLE, unknown="Cm", finite_differences=False)


def test_contract_in_double_precision_against_finite_differences(sevennet_double, fe_frames):
    check_potential(sevennet_double, fe_frames[1:2], unknown="Cm")


def test_says_what_sevenn_says(sevennet, theirs, fe_frames, alloy):
    frames = [*fe_frames, alloy]
    for atoms, prediction in zip(frames, sevennet.evaluate(frames), strict=True):
        assert_like(prediction, atoms, theirs, atol=2e-6)


def test_pieces_give_what_a_single_pass_gives(sevennet_double, alloy, monkeypatch):
    seen = []
    convolution = sevennet_double.module.get_submodule("1_convolution.convolution")
    hook = convolution.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    (whole,) = sevennet_double.evaluate([alloy], features=True)
    monkeypatch.setattr(module, "MANY", 100)
    monkeypatch.setattr(module, "PAIRS", 60)
    (pieces,) = sevennet_double.evaluate([alloy], features=True)
    hook.remove()
    assert seen[0] > 100 and max(seen[1:]) == 60 and sum(seen[1:]) == 2 * seen[0]  # there, and on the way back
    assert pieces.energy == pytest.approx(whole.energy, abs=1e-10)
    for name in ("forces", "stress", "features"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), atol=1e-11)


def test_isolated_atoms_and_molecules(sevennet, theirs):
    frames = [Atoms("Fe", cell=[20, 20, 20], pbc=True), Atoms("Fe2", [[0, 0, 0], [0, 0, 2.2]])]
    for atoms, prediction in zip(frames, sevennet.evaluate(frames), strict=True):
        atoms.calc = theirs
        assert prediction.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        assert np.isfinite(prediction.forces).all()
    assert sevennet.evaluate(frames)[1].stress is None


def test_the_last_layer_is_linear_in_its_features(sevennet_double, alloy):
    network = sevennet_double.module
    weights = network.get_parameter("reduce_hidden_to_energy.linear.weight").detach().numpy()
    shift = network.get_buffer("rescale_atomic_energy.shift").numpy()
    types = sevennet_double.graph(alloy).types.numpy()
    (phi,) = sevennet_double.last_layer_features([alloy])
    energy = sevennet_double.evaluate([alloy])[0].energy
    assert phi.shape == (len(alloy), len(weights))
    assert (phi @ weights + shift[types]).sum() == pytest.approx(energy, abs=1e-9)


def test_features_are_what_the_readout_reads(sevennet, alloy):
    (rows,) = sevennet.features([alloy])
    assert rows.shape == (len(alloy), 128)


def test_the_architecture_is_json_and_builds_the_same_network(sevennet, alloy):
    arch = json.loads(json.dumps(sevennet.arch))
    again = SevenNetPotential.from_state(arch, sevennet.module.state_dict(), name="again")
    assert again.fingerprint == sevennet.fingerprint and again.elements == sevennet.elements
    a, b = sevennet.evaluate([alloy])[0], again.evaluate([alloy])[0]
    assert a.energy == b.energy and np.array_equal(a.forces, b.forces)


def test_weights_in_an_old_order_are_not_mistaken_for_todays(sevennet, alloy, theirs):
    from sevenn._const import SEVENNET_0_11Jul2024
    from sevenn.checkpoint import SevenNetCheckpoint

    raw = SevenNetCheckpoint(SEVENNET_0_11Jul2024).model_state_dict
    with pytest.raises(InputError, match="convention|not of this SevenNet architecture"):
        SevenNetPotential.from_state(sevennet.arch, raw, name="raw")


def test_weights_of_another_architecture_are_refused(sevennet):
    state = dict(sevennet.module.state_dict())
    state.pop("onehot_to_feature_x.linear.weight")
    with pytest.raises(InputError, match="onehot_to_feature_x"):
        SevenNetPotential.from_state(sevennet.arch, state, name="incomplete")


def test_copies_are_equal_independent_and_trainable(sevennet):
    copy = sevennet.copy()
    assert copy.fingerprint == sevennet.fingerprint
    trainable = {name for name, p in copy.module.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in copy.module.parameters()) == 842440  # what sevenn itself trains
    assert not any("denominator" in name or "rescale" in name for name in trainable)
    with torch.no_grad():
        copy.module.get_parameter("reduce_hidden_to_energy.linear.weight").mul_(1.1)
    assert copy.fingerprint != sevennet.fingerprint


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_potential(dtype, sevennet, sevennet_double, fe_frames, tmp_path):
    original = sevennet if dtype == "float32" else sevennet_double
    loaded = load_bundle(save_bundle(original, tmp_path / "saved"))
    assert loaded.fingerprint == original.fingerprint and loaded.precision == dtype
    for a, b in zip(original.evaluate(fe_frames), loaded.evaluate(fe_frames), strict=True):
        assert a.energy == b.energy and np.array_equal(a.forces, b.forces)


def test_unknown_versions_are_refused_and_never_fetched(monkeypatch):
    with pytest.raises(InputError, match="no such version; there is 7net-0"):
        load("sevennet:7net-omni")
    with pytest.raises(InputError, match="no such version"):
        SevenNetPotential.foundation("7net-omni")
    import sevenn._const

    monkeypatch.setattr(sevenn._const, "SEVENNET_0_11Jul2024", "/nowhere/checkpoint.pth")
    with pytest.raises(InputError, match="missing from the installed sevenn package"):
        SevenNetPotential.foundation("7net-0")
