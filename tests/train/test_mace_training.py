"""MACE in the training loop: gradients, batches, resume, heads, proxies, scratch, freezing, low-rank updates."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch

from aldriver.benchmark.evaluate import evaluate
from aldriver.core.errors import InputError
from aldriver.core.frames import read_frames, with_labels, write_frames
from aldriver.potentials.mace import largest_differences
from aldriver.potentials.mace_library import mace_library
from aldriver.potentials.mace_surgery import with_heads
from aldriver.testing.small_mace import small_mace, taught_mace
from aldriver.train import train
from aldriver.train.base import make_adapter
from aldriver.train.loss import counts_of, loss_sums
from aldriver.train.mace import LAYERS, MACEAdapter

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mace") is None, reason="mace is not installed here")
E0 = {"Fe": -3.75}


@pytest.fixture(scope="module")
def double():
    return small_mace(("Fe",), atomic_energies=E0, dtype="float64", seed=1)


@pytest.fixture(scope="module")
def single():
    return small_mace(("Fe",), atomic_energies=E0, seed=1)


def loss_of(adapter, examples, term):
    p = adapter.predict([x.graph for x in examples], training=True)
    return loss_sums(p, examples, delta=0.1)[term] / counts_of(examples)[term]


@pytest.mark.parametrize("term", ["energy", "forces", "stress"])
def test_gradients_of_each_term_are_the_finite_differences_of_the_loss(term, double, iron, examples):
    adapter, batch = examples(double, iron(3), None)
    named = dict(adapter.module.named_parameters())
    loss = loss_of(adapter, batch, term)
    assert loss > 1e-4
    gradients = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    rng, step = np.random.default_rng(0), 1e-5
    for layer in LAYERS:
        mine = [n for n in named if n.startswith(layer) and gradients[n].abs().max() > 1e-6 * loss.detach()]
        assert mine, f"{term} does not act on {layer}"
        for name in rng.choice(mine, size=min(2, len(mine)), replace=False):
            index = int(gradients[name].abs().argmax())
            flat, values = named[name].data.view(-1), []
            for h in (step, -step):
                flat[index] += h
                values.append(float(loss_of(adapter, batch, term).detach()))
                flat[index] -= h
            slope = (values[0] - values[1]) / (2 * step)
            assert slope == pytest.approx(float(gradients[name].view(-1)[index]), rel=1e-4, abs=1e-8), name


def test_the_adapter_says_what_the_potential_says(double, iron, examples):
    frames = iron(3)
    adapter, batch = examples(double, frames, None)
    for training in (False, True):
        p = adapter.predict([x.graph for x in batch], training=training)
        forces = torch.split(p.forces.detach(), [len(x) for x in batch])
        for k, q in enumerate(double.evaluate(frames)):
            assert abs(float(p.energy[k]) * 2 - q.energy) < 1e-10
            np.testing.assert_allclose(forces[k].numpy(), q.forces, atol=1e-12)
            s = p.stress[k].detach().numpy()
            voigt = s[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / 160.21766208
            np.testing.assert_allclose(voigt, q.stress, atol=1e-9)


def test_a_batch_gives_what_single_frames_give(double, iron):
    adapter = make_adapter(double)
    graphs = [adapter.graph(atoms) for atoms in [*iron(2), iron(3)[2] * (2, 1, 1), iron(1)[0] * (1, 2, 3)]]
    together = adapter.predict(graphs, training=True)
    alone = [adapter.predict([g], training=True) for g in graphs]
    torch.testing.assert_close(together.energy, torch.cat([p.energy for p in alone]), rtol=0, atol=1e-12)
    torch.testing.assert_close(together.forces, torch.cat([p.forces for p in alone]), rtol=0, atol=1e-12)
    torch.testing.assert_close(together.stress, torch.cat([p.stress for p in alone]), rtol=0, atol=1e-10)


def test_training_reduces_all_errors_and_leaves_the_start_alone(single, iron, settings, tmp_path):
    frames, fingerprint = iron(16), single.fingerprint
    s = settings(epochs=12, learning_rate=1e-2, ema_decay=0.9, weights={"energy": 1, "forces": 1, "stress": 0.01})
    result = train(single, frames[:12], frames[12:], s, tmp_path, seed=0)
    assert result.accepted, result.reason
    for key in ("energy_rmse_meV_atom", "forces_rmse_meV_A", "stress_rmse_GPa"):
        assert result.after[key] < 0.6 * result.before[key], (key, result.before, result.after)
    assert single.fingerprint == fingerprint != result.potential.fingerprint
    assert all(result.checks[term]["gradient_norm"] > 0 for term in ("energy", "forces", "stress"))
    assert result.potential.arch == single.arch


def test_a_small_network_can_be_taught(iron):
    frames, unseen = iron(16), iron(4, seed=5)
    taught = taught_mace(frames, epochs=25)
    off = [p.forces - a.get_forces() for a, p in zip(unseen, taught.evaluate(unseen), strict=True)]
    size = [a.get_forces() for a in unseen]
    assert np.sqrt(np.mean(np.square(off))) < 0.3 * np.sqrt(np.mean(np.square(size)))


class Stop(Exception):
    pass


def test_interrupted_and_resumed_gives_the_same_bits(double, iron, settings, tmp_path):
    frames, s = iron(8), settings(epochs=4, dtype="float64", e0_shift="never")

    def stop(line):
        if line["epoch"] == 2:
            raise Stop

    straight = train(double, frames[:6], frames[6:], s, tmp_path / "a", seed=5)
    with pytest.raises(Stop):
        train(double, frames[:6], frames[6:], s, tmp_path / "b", seed=5, on_epoch=stop)
    resumed = train(double, frames[:6], frames[6:], s, tmp_path / "b", seed=5)
    assert [line["epoch"] for line in resumed.history] == [1, 2, 3, 4]
    saved = [torch.load(tmp_path / f / "checkpoint.pt", weights_only=True)["state"] for f in ("a", "b")]
    assert all(torch.equal(saved[0]["model"][k], saved[1]["model"][k]) for k in saved[0]["model"])
    assert straight.after == resumed.after


@pytest.mark.parametrize(
    ("strategy", "layers"),
    [
        ("f0", ["node_embedding", "interactions", "products", "readouts"]),
        ("f4", ["interactions", "products", "readouts"]),
        ("f5", ["products", "readouts"]),
        ("f6", ["readouts"]),
    ],
)
def test_freezing_leaves_the_layers_of_the_paper(strategy, layers, double, iron, settings, tmp_path):
    adapter = make_adapter(double)
    named = adapter.set_trainable(settings(strategy=strategy))
    assert {name.split(".")[0] for name in named} == set(layers) <= set(LAYERS)
    frames = iron(4)
    s = settings(strategy=strategy, epochs=1, dtype="float64")
    result = train(double, frames[:2], frames[2:], s, tmp_path, seed=0)
    assert result.trained is not None  # one epoch on two frames need not be better: what counts is what moved
    before, after = double.module.state_dict(), result.trained.module.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(layers)


def test_weights_of_paths_that_are_zero_by_symmetry_do_no_harm(iron, settings, tmp_path):
    both = small_mace(("Fe",), atomic_energies=E0, hidden_irreps="8x0e+8x0o+8x1o+8x1e", dtype="float64")
    frames = iron(6)
    result = train(both, frames[:4], frames[4:], settings(dtype="float64", epochs=4), tmp_path, seed=0)
    assert result.accepted, result.reason
    two = with_heads(result.potential)
    assert largest_differences(two, result.potential, frames)["energy_meV_atom"] < 1e-9


def test_scratch_draws_all_weights_and_keeps_the_references(single, iron, settings, tmp_path):
    adapter = make_adapter(single)
    adapter.reset(3)
    drawn = adapter.potential("x")
    before, after = single.module.state_dict(), drawn.module.state_dict()
    weights = {name for name, _ in single.module.named_parameters()}
    assert {n for n in before if not torch.equal(before[n], after[n])} == weights
    assert drawn.atomic_energies == single.atomic_energies
    adapter.reset(3)
    assert adapter.potential("x").fingerprint == drawn.fingerprint
    adapter.reset(4)
    assert adapter.potential("x").fingerprint != drawn.fingerprint
    frames = iron(6)
    result = train(single, frames[:4], frames[4:], settings(strategy="scratch"), tmp_path, seed=0)
    assert result.after["loss"] < result.history[0]["valid"]["loss"]


def test_low_rank_updates_keep_energies_first_and_symmetry_always(double, iron, settings, tmp_path):
    frames = iron(6)
    adapter = make_adapter(double)
    s = settings(strategy="lora", epochs=3, dtype="float64", learning_rate=5e-3)
    named = adapter.set_trainable(s)
    assert named and all(".lora_" in n for n in named)
    p = adapter.predict([adapter.graph(frames[0])], training=False)
    assert float(p.energy[0]) * 2 == pytest.approx(double.evaluate(frames[:1])[0].energy, abs=1e-12)
    result = train(double, frames[:4], frames[4:], s, tmp_path, seed=0)
    assert result.accepted, result.reason
    turned = frames[5].copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    a, b = result.potential.evaluate([frames[5], turned])
    assert abs(a.energy - b.energy) < 1e-10
    assert abs(a.energy - double.evaluate([frames[5]])[0].energy) > 1e-4


# ---- heads ------------------------------------------------------------------------------------------------------------


def general(foundation, frames):
    """Frames labelled by the foundation itself."""
    labelled = []
    for atoms, p in zip(frames, foundation.evaluate(frames), strict=True):
        labelled.append(with_labels(atoms, energy=p.energy, forces=p.forces, stress=p.stress))
    return labelled


def test_two_heads_start_as_the_foundation_and_train_apart(double, iron, settings, tmp_path):
    frames = iron(6)
    two = with_heads(double)
    for head in ("pt_head", "Default"):
        off = largest_differences(two.with_head(head), double, frames)
        assert off["energy_meV_atom"] < 1e-9 and off["forces_meV_A"] < 1e-9 and off["stress_GPa"] < 1e-12, off
    s = settings(strategy="f6", dtype="float64", learning_rate=1e-2)
    result = train(two, frames[:4], frames[4:], s, tmp_path, seed=0)
    assert result.accepted, result.reason
    assert set(
        largest_differences(result.potential.with_head("pt_head"), two.with_head("pt_head"), frames).values()
    ) == {0.0}
    assert largest_differences(result.potential, two, frames)["energy_meV_atom"] > 1


def test_a_frame_trains_its_own_head(double, iron, settings, examples):
    frames = iron(2)
    frames[0].info["head"] = "pt_head"
    adapter, (ours, theirs) = examples(with_heads(double), [frames[1], frames[0]], None)
    layer = adapter.module.readouts[1].linear_1.weight
    units = layer.numel() // 16 // 2
    for example, mine in ((theirs, 0), (ours, 1)):
        loss = loss_of(adapter, [example], "forces") + loss_of(adapter, [example], "energy")
        (gradient,) = torch.autograd.grad(loss, [layer])
        by_head = gradient.view(16, 2, units).abs().sum(dim=(0, 2))
        assert by_head[mine] > 0 and by_head[1 - mine] == 0
    both = adapter.predict([ours.graph, theirs.graph], training=False)  # one batch of two heads
    alone = [adapter.predict([x.graph], training=False) for x in (ours, theirs)]
    torch.testing.assert_close(both.forces, torch.cat([p.forces for p in alone]), rtol=0, atol=1e-12)


def test_multihead_replay_holds_the_foundations_head(double, iron, settings, tmp_path):
    """The backbone is trained for the new frames; replay lets the old head follow."""
    frames, far = iron(8), iron(8, seed=9)
    for atoms in far:
        atoms.set_cell(1.15 * np.asarray(atoms.cell), scale_atoms=True)
    write_frames(tmp_path / "general.extxyz", general(double, far))
    drifts = {}
    for weight in (0.0, 3.0):
        replay = {"source": str(tmp_path / "general.extxyz"), "heads": "separate", "weight": weight, "per_step": 2}
        s = settings(dtype="float64", learning_rate=5e-3, epochs=6, ema_decay=0.5, replay=replay, e0_shift="never")
        result = train(double, frames[:6], frames[6:], s, tmp_path / str(weight), seed=0)
        assert result.accepted, result.reason
        assert result.potential.heads == ("pt_head", "Default") and result.potential.head == "Default"
        old = result.potential.with_head("pt_head")
        drifts[weight] = largest_differences(old, double, far)["energy_meV_atom"]
    assert drifts[3.0] < 0.5 * drifts[0.0], drifts


def test_self_replay_keeps_the_foundations_head(iron, settings, tmp_path):
    """Cells that the foundation makes and labels itself, rehearsed in a head of its own."""
    start, frames, drifts = small_mace(("Fe",), atomic_energies=E0, dtype="float64", seed=3), iron(6), {}
    for weight in (3.0, 0.0):
        replay = {"source": "self", "heads": "separate", "weight": weight, "per_step": 3}
        s = settings(dtype="float64", learning_rate=5e-3, epochs=4, ema_decay=0.5, replay=replay, e0_shift="never")
        result = train(start, frames[:4], frames[4:], s, tmp_path / str(weight), seed=0)
        assert result.accepted, result.reason
        assert result.potential.heads == ("pt_head", "Default") and result.potential.head == "Default"
        rehearsed = read_frames(tmp_path / "3.0" / "replay.extxyz")
        old = result.potential.with_head("pt_head")
        drifts[weight] = largest_differences(old, start, rehearsed)["energy_meV_atom"]
        if weight:
            assert {atoms.info["head"] for atoms in rehearsed} == {"pt_head"}
            assert result.checks["replay"]["value"] == pytest.approx(0.0, abs=1e-10), "it labels them itself"
            assert result.history[-1]["replay_loss"] > 0
    assert drifts[3.0] < 0.5 * drifts[0.0], drifts


def test_heads_that_are_not_there_are_refused(double, iron, chgnet020, settings, tmp_path):
    frames = iron(1)
    adapter = make_adapter(double)
    frames[0].info["head"] = "Default"
    assert adapter.graph(frames[0]).head == 0  # mace's name for the only head
    frames[0].info["head"] = "pt_head"
    with pytest.raises(InputError, match=r"is for head 'pt_head', but mace:small has Default"):
        adapter.graph(frames[0])
    with pytest.raises(InputError, match="networks have but one head"):
        make_adapter(chgnet020).separate_heads()
    with pytest.raises(InputError, match="not a MACE potential"):
        MACEAdapter(chgnet020)
    adapter.separate_heads()
    adapter.separate_heads()  # those of an earlier generation stay
    assert adapter.potential("x").heads == ("pt_head", "Default")


def test_two_levels_of_theory_each_in_a_head_of_its_own(double, iron, settings, tmp_path):
    """The second level has another zero of energy and 10 % stiffer forces; each head learns its own."""
    frames = iron(16)
    for k, atoms in enumerate(frames):
        labels = atoms.calc.results
        atoms.info["level"] = "r2SCAN" if k % 2 else "PBE"
        if k % 2:
            labels["energy"] = 1.1 * (labels["energy"] + 8.0) - 30.0
            labels["forces"], labels["stress"] = 1.1 * labels["forces"], 1.1 * labels["stress"]
    s = settings(dtype="float64", learning_rate=5e-3, epochs=6, ema_decay=0.5)
    with pytest.raises(InputError, match="2 levels of theory"):
        train(double, frames[:12], frames[12:], s, tmp_path / "mixed", seed=0)
    for atoms in frames:
        atoms.info["head"] = atoms.info["level"]
    result = train(double, frames[:12], frames[12:], s, tmp_path / "heads", seed=0)
    assert result.accepted, result.reason
    assert set(result.potential.heads) == {"PBE", "r2SCAN"}
    assert result.after["energy_mae_meV_atom"] < 300  # although the zeros are 11 eV/atom apart
    shifts = result.checks["e0_shift_by_head"]
    assert abs(shifts["r2SCAN"]["Fe"] - shifts["PBE"]["Fe"]) > 5
    for level in ("PBE", "r2SCAN"):
        held = [a for a in frames[12:] if a.info["level"] == level]
        rmse = [
            evaluate(potential, held)["forces_rmse_meV_A"] for potential in (double, result.potential.with_head(level))
        ]
        assert rmse[1] < rmse[0], (level, rmse)


# ---- elements ---------------------------------------------------------------------------------------------------------


def test_an_unseen_element_is_trained_from_its_proxy(single, iron, settings, tmp_path):
    frames = iron(8)
    for atoms in frames[::2]:  # bcc pairs are symmetric: frames with both elements alone would move both alike
        atoms.symbols[1] = "Mn"
    with pytest.raises(InputError, match="Mn"):
        train(single, frames[:6], frames[6:], settings(), tmp_path / "no", seed=0)
    s = settings(proxies={"Mn": "Fe"}, epochs=4, learning_rate=5e-3, e0_shift="never")
    result = train(single, frames[:6], frames[6:], s, tmp_path / "yes", seed=0)
    assert result.accepted, result.reason
    assert result.potential.elements == {"Fe", "Mn"}
    p = single.evaluate(iron(8)[:1])[0]
    adapter = make_adapter(single)
    adapter.proxy({"Mn": "Fe"})
    start = adapter.potential("x").evaluate(frames[:1])[0]
    assert abs(start.energy - p.energy) < 1e-5
    pure = [frames[0].copy(), frames[0].copy()]
    pure[0].symbols[:], pure[1].symbols[:] = ["Fe", "Fe"], ["Mn", "Mn"]
    a, b = result.potential.evaluate(pure)
    assert abs(a.energy - b.energy) > 1e-4  # trained, the two elements differ


# ---- mace's own losses ------------------------------------------------------------------------------------------------


def test_forces_and_stress_in_training_are_those_of_maces_training_pass(double, iron, examples):
    """Also their derivatives by the weights: the same gradient as through mace's own forward."""
    frames = iron(2)
    adapter, batch = examples(double, frames, None)
    named = dict(adapter.module.named_parameters())
    p = adapter.predict([x.graph for x in batch], training=True)
    ours = p.energy.square().sum() + p.forces.square().sum() + p.stress.square().sum()
    with mace_library(dtype=torch.float64):
        from mace import data
        from mace.tools import torch_geometric, utils

        table = utils.AtomicNumberTable([26])
        configs = [data.config_from_atoms(a) for a in frames]
        loader = torch_geometric.dataloader.DataLoader(
            [data.AtomicData.from_config(c, z_table=table, cutoff=double.cutoff) for c in configs], batch_size=2
        )
        out = adapter.module(next(iter(loader)).to_dict(), training=True, compute_stress=True)
    theirs = (out["energy"] / 2).square().sum() + out["forces"].square().sum()
    theirs = theirs + (160.21766208 * out["stress"]).square().sum()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-7)
    a, b = (torch.autograd.grad(loss, list(named.values()), retain_graph=True) for loss in (ours, theirs))
    for name, x, y in zip(named, a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8 * math.sqrt(float(ours.detach())), msg=name)
