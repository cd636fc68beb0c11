"""SevenNet in the training loop: derivatives, what is trained, new elements, exact resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from aldriver import load
from aldriver.core.errors import InputError
from aldriver.core.frames import with_labels
from aldriver.core.recipe_train import Train
from aldriver.core.units import EV_A3_TO_GPA, voigt_to_matrix
from aldriver.potentials.bundle import save_bundle
from aldriver.train import train
from aldriver.train.base import make_adapter
from aldriver.train.loop import TrainingLoop
from aldriver.train.lora import matrices_of
from aldriver.train.loss import counts_of, loss_sums, make_example, total_loss
from aldriver.train.metrics import measure


def cells(n: int, *, seed: int = 0, elements=("Fe",)) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        atoms = bulk("Fe", "bcc", a=2.86, cubic=True)
        atoms.symbols[0] = elements[k % len(elements)]
        atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.06, atoms.positions.shape)
        atoms.info["group"] = f"walker-{k // 2}"
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def iron(eam_fe):
    def make(n, **options):
        frames = cells(n, **options)
        predictions = eam_fe.evaluate(frames)
        return [
            with_labels(a, energy=p.energy, forces=p.forces, stress=p.stress, group=a.info["group"])
            for a, p in zip(frames, predictions, strict=True)
        ]

    return make


OFF = {"ewc": 0, "replay": {"source": "none"}}


def settings(**changes) -> Train:
    return Train.model_validate({"epochs": 2, "batch_size": 2, "learning_rate": 1e-3} | OFF | changes)


def test_the_adapter_says_what_the_potential_says(sevennet, alloy):
    adapter = make_adapter(sevennet)
    frames = [alloy, *cells(2)]
    graphs = [adapter.graph(a) for a in frames]
    for training in (True, False):
        batch = adapter.predict(graphs, training=training)
        expected = sevennet.evaluate(frames)
        for k, (atoms, p) in enumerate(zip(frames, expected, strict=True)):
            assert float(batch.energy[k]) == pytest.approx(p.energy / len(atoms), abs=2e-6)
            stress = voigt_to_matrix(p.stress) * EV_A3_TO_GPA
            np.testing.assert_allclose(batch.stress[k].detach().numpy(), stress, atol=2e-4)
        forces = np.concatenate([p.forces for p in expected])
        np.testing.assert_allclose(batch.forces.detach().numpy(), forces, atol=1e-5)
        assert batch.forces.requires_grad is training


@pytest.mark.parametrize("term", ["energy", "forces", "stress"])
def test_gradients_of_the_loss_are_its_differences(sevennet_double, iron, term):
    adapter = make_adapter(sevennet_double)
    adapter.set_trainable(settings())
    examples = [make_example(adapter, a, None) for a in iron(2)]
    weights = settings(weights={k: float(k == term) for k in ("energy", "forces", "stress")}).weights
    name = "2_convolution.weight_nn.layer1.weight"
    parameter = adapter.module.get_parameter(name)
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss():
        sums = loss_sums(adapter.predict([x.graph for x in examples], training=True), examples, delta=0.1)
        return total_loss(sums, counts_of(examples), weights)

    (gradient,) = torch.autograd.grad(loss(), [parameter])
    step, values = 1e-4, []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(sign * step * direction)
        values.append(float(loss()))
        with torch.no_grad():
            parameter.sub_(sign * step * direction)
    slope = (values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


@pytest.mark.parametrize(
    ("strategy", "count"),
    [("naive", 842440), ("f0", 842440), ("f4", 842440 - 8 - 11392), ("f6", 8192 + 64)],
)
def test_what_a_strategy_trains(sevennet, strategy, count):
    adapter = make_adapter(sevennet)
    trained = set(adapter.set_trainable(settings(strategy=strategy)))
    assert sum(p.numel() for n, p in adapter.module.named_parameters() if n in trained) == count
    assert all(p.requires_grad is (n in trained) for n, p in adapter.module.named_parameters())


def test_lora_starts_as_what_it_was_and_is_merged(sevennet, alloy, iron, tmp_path):
    adapter = make_adapter(sevennet)
    adapter.set_trainable(settings(strategy="lora"))
    before = sevennet.evaluate([alloy])[0].energy
    assert adapter.potential("x").evaluate([alloy])[0].energy == before
    graph = adapter.graph(alloy)
    with torch.no_grad():
        for name, parameter in adapter.module.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(0))
    merged = adapter.potential("x")
    energy = merged.evaluate([alloy])[0].energy
    assert abs(energy - before) > 1e-3
    assert energy / len(alloy) == pytest.approx(float(adapter.predict([graph], training=False).energy), abs=1e-5)
    assert set(merged.module.state_dict()) == set(sevennet.module.state_dict())


def test_low_rank_from_end_to_end(sevennet, iron, tmp_path):
    known, unseen = iron(2), iron(2, seed=9)
    chosen = settings(strategy="lora", lora={"rank": 2}, learning_rate=5e-3, epochs=1)
    result = train(sevennet, known, unseen, chosen, tmp_path / "out", seed=1)
    assert result.accepted, result.reason
    before, after = sevennet.module.state_dict(), result.potential.module.state_dict()
    assert list(before) == list(after)
    blocks = {f"{name}.weight": matrices_of(layer) for name, layer in sevennet.module.named_modules()}
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed and set(changed) <= {key for key, found in blocks.items() if found}
    for key in changed:
        update = (after[key] - before[key]).double().flatten()
        for offset, rows, columns in blocks[key]:
            singular = torch.linalg.svdvals(update[offset : offset + rows * columns].reshape(rows, columns))
            assert float(singular[2:].sum()) < 1e-3 * float(singular.sum()) + 1e-6, f"{key} moved by more than rank 2"
    assert load(save_bundle(result.potential, tmp_path / "saved")).fingerprint == result.potential.fingerprint


def test_the_loop_does_what_sevenns_trainer_does(sevennet, iron, tmp_path):
    """Same start, order, loss and rate: the same network after an epoch.

    Without stress, whose Huber term is narrower in sevenn (the same number in kbar).
    """
    from aldriver.testing.bench_sevennet import BATCH, DELTA, RATE, Theirs

    known, unseen = iron(6), iron(2, seed=9)
    same = {"batch_size": BATCH, "huber_delta": DELTA, "learning_rate": RATE, "schedule": "constant", "epochs": 1}
    weights = {"energy": 1.0, "forces": 1.0, "stress": 0.0}
    chosen = settings(**same, weights=weights, ema_decay=0.0, clip_norm=1e9)
    adapter = make_adapter(sevennet)
    adapter.set_trainable(chosen)
    sides = [[make_example(adapter, a, None) for a in side] for side in (known, unseen)]
    before = measure(adapter, sides[1], chosen)
    loop = TrainingLoop(adapter, *sides, chosen, tmp_path / "ours", seed=5, key="test")
    (line,) = loop.run().history

    theirs = Theirs(known, unseen, tmp_path, seed=5, stress=False)
    theirs.epoch()
    other = make_adapter(sevennet)
    other.module.load_state_dict(theirs.trainer.model.state_dict())
    expected = measure(other, sides[1], chosen)
    assert expected["loss"] < 0.95 * before["loss"], "both have learnt something"
    assert line["valid"]["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_from_scratch_with_the_references_kept(sevennet, alloy):
    drawn = []
    for seed in (1, 1, 2):
        adapter = make_adapter(sevennet)
        state = torch.get_rng_state()
        adapter.reset(seed)
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(adapter.potential("scratch"))
    assert drawn[0].fingerprint == drawn[1].fingerprint != drawn[2].fingerprint
    own, old = drawn[0].module.state_dict(), sevennet.module.state_dict()
    for key, value in own.items():
        kept = "rescale" in key or "denominator" in key
        assert not kept or torch.equal(value, old[key])
    assert np.isfinite(drawn[0].evaluate([alloy])[0].energy)


def test_a_new_element_starts_as_its_proxy(sevennet_double, alloy):
    adapter = make_adapter(sevennet_double)
    adapter.proxy({"Po": "Nb", "At": "Mo"})
    grown = adapter.potential("grown")
    assert grown.elements == sevennet_double.elements | {"Po", "At"}
    assert all(p.requires_grad for p in adapter.module.parameters())
    expected = sevennet_double.evaluate([alloy])[0]
    for replaced in ({}, {"Nb": "Po"}, {"Nb": "Po", "Mo": "At"}):
        atoms = alloy.copy()
        atoms.symbols = [replaced.get(s, s) for s in atoms.get_chemical_symbols()]
        found = grown.evaluate([atoms])[0]
        assert found.energy == pytest.approx(expected.energy, abs=1e-9)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-9)


def test_a_known_element_takes_the_embedding_of_its_proxy_and_keeps_its_reference(sevennet_double, alloy):
    adapter = make_adapter(sevennet_double)
    adapter.proxy({"Nb": "Mo"})
    shift = sevennet_double.module.get_buffer("rescale_atomic_energy.shift")
    place = sevennet_double.arch["species"].index
    pure = alloy.copy()
    pure.symbols = ["Mo"] * len(pure)
    change = sum(float(shift[place(41)] - shift[place(42)]) for s in alloy.get_chemical_symbols() if s == "Nb")
    energy = adapter.potential("x").evaluate([alloy])[0].energy
    assert energy == pytest.approx(sevennet_double.evaluate([pure])[0].energy + change, abs=1e-8)


def test_impossible_proxies_are_refused(sevennet):
    with pytest.raises(InputError, match="Cm is not an element this SevenNet model knows"):
        make_adapter(sevennet).proxy({"Po": "Cm"})


def test_training_lowers_the_loss_and_resumes_exactly(sevennet_double, iron, tmp_path):
    """Bit for bit, in double precision on one thread."""
    known, unseen = iron(4), iron(2, seed=9)
    chosen = settings(epochs=2, dtype="float64")
    whole = train(sevennet_double, known, unseen, chosen, tmp_path / "whole", seed=5)
    assert whole.after["loss"] < whole.before["loss"] and whole.trainable == 842440

    class Killed(Exception):
        pass

    def kill(line):
        raise Killed

    with pytest.raises(Killed):
        train(sevennet_double, known, unseen, chosen, tmp_path / "cut", seed=5, on_epoch=kill)
    resumed = train(sevennet_double, known, unseen, chosen, tmp_path / "cut", seed=5)
    own, other = (r.potential.module.state_dict() for r in (whole, resumed))
    assert all(torch.equal(own[key], other[key]) for key in own)
    assert [line["train_loss"] for line in whole.history] == [line["train_loss"] for line in resumed.history]
