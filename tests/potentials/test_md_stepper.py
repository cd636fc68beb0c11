"""How a network runs in MD: precision checked, symmetrix beside torch, pairs kept on the device, threads, batches."""

from __future__ import annotations

import importlib.util
import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.potentials.base import Prediction

mace = pytest.mark.skipif(importlib.util.find_spec("mace") is None, reason="mace is not installed here")
symmetrix = pytest.mark.skipif(importlib.util.find_spec("symmetrix") is None, reason="symmetrix is not installed here")

TIGHT = {"forces": 1e-10, "stress": 1e-12, "energy": 1e-9}


@pytest.fixture(scope="module")
def network():
    from aldriver.testing.small_mace import small_mace

    # E0 as of QE's iron: what single precision must not add up
    return small_mace(
        ("Cu", "Fe"), correlation=3, max_ell=3, hidden_irreps="8x0e", atomic_energies={"Cu": -3.7, "Fe": -3460.0}
    )


def alloy(n: int = 2) -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (n, n, n)
    atoms.symbols[::3] = "Fe"
    atoms.rattle(0.08, seed=3)
    return atoms


def walk(atoms: Atoms, steps: int):
    """Frames whose atoms wander off and whose cell shears and grows."""
    rng, positions, cell = np.random.default_rng(5), atoms.positions.copy(), np.asarray(atoms.cell).copy()
    for _ in range(steps):
        positions = positions + rng.normal(0, 0.12, positions.shape)
        strain = np.eye(3) + rng.normal(0, 0.004, (3, 3))
        positions, cell = positions @ strain, cell @ strain
        yield positions, cell


def same(a: Prediction, b: Prediction, *, forces: float, stress: float, energy: float) -> None:
    assert a.energy == pytest.approx(b.energy, abs=energy)
    assert np.abs(a.forces - b.forces).max() < forces
    assert np.abs(a.stress - b.stress).max() < stress


@mace
def test_without_a_precision_the_potential_is_taken_as_it_is(network):
    atoms = alloy()
    for chosen in (network, network.astype("float64")):
        p = chosen.md_stepper(atoms)(atoms.positions, np.asarray(atoms.cell))
        q = chosen.evaluate([atoms])[0]
        same(p, q, **(TIGHT if chosen.precision == "float64" else {"forces": 1e-5, "stress": 1e-7, "energy": 1e-4}))


@mace
def test_float64_is_the_network_in_double_precision(network):
    atoms = alloy()
    p = network.md_stepper(atoms, "float64")(atoms.positions, np.asarray(atoms.cell))
    q = network.astype("float64").evaluate([atoms])[0]
    same(p, q, **TIGHT)
    with pytest.raises(InputError, match="float16"):
        network.md_stepper(atoms, "float16")


@mace
def test_a_network_that_needs_double_precision_gets_it(network, monkeypatch, caplog):
    atoms, single = alloy(), type(network).predict_graphs

    def coarse(self, graphs, **options):
        found = single(self, graphs, **options)
        if self.precision == "float64":
            return found
        return [Prediction(energy=p.energy, forces=p.forces + 0.01, stress=p.stress) for p in found]

    monkeypatch.setattr(type(network), "predict_graphs", coarse)
    with caplog.at_level(logging.WARNING):
        stepper = network.md_stepper(atoms, "float32")
    assert stepper.potential.precision == "float64"
    assert "float64" in caplog.text and "10 meV/Å" in caplog.text


def test_disagreement_is_seen_in_forces_and_stress_and_nan_never_agrees():
    from aldriver.potentials.md import FORCES, STRESS, disagreement

    a = Prediction(energy=0.0, forces=np.zeros((4, 3)), stress=np.zeros(6))

    def off(force: float = 0.0, stress: float = 0.0) -> str:
        forces, tensor = np.zeros((4, 3)), np.zeros(6)
        forces[2, 1], tensor[4] = force, stress
        return disagreement(Prediction(energy=0.0, forces=forces, stress=tensor), a)

    assert off() == "" and off(force=0.9 * FORCES) == "" and off(stress=0.9 * STRESS) == ""
    assert "forces" in off(force=1.1 * FORCES) and "stress" in off(stress=1.1 * STRESS)
    assert "forces" in off(force=np.nan) and "stress" in off(stress=np.nan)


def test_precisions_are_compared_on_half_of_a_large_cell():
    from aldriver.potentials.md import PIECE, piece

    small, large = alloy(2), alloy(5)
    assert piece(small) is small
    part = piece(large)
    assert len(part) == min(len(large) // 2, PIECE[1])
    # the cluster is a piece of the crystal: the surroundings of its centre are those of the first atom
    centre = int(np.argmin(np.linalg.norm(part.positions - part.positions.mean(axis=0), axis=1)))
    there = np.sort(part.get_distances(centre, range(len(part))))[1:13]
    assert there.min() > 2.0 and there.max() < 3.1


@mace
def test_pairs_kept_on_the_device_give_the_same_graph_along_a_walk(network):
    """The path of a GPU, on the CPU's own tensors."""
    from aldriver.potentials.mace_stepper import MACEStepper

    atoms = alloy()
    for chosen in (network, network.astype("float64")):
        here, there = MACEStepper(chosen, atoms), MACEStepper(chosen, atoms, list_on_device=True)
        for positions, cell in walk(atoms, 12):
            a, b = here.graph(positions, cell), there.graph(positions, cell)
            assert np.array_equal(a.edge_index, b.edge_index) and np.allclose(a.vectors, b.vectors, atol=1e-6)
            p, q = here(positions, cell), there(positions, cell)
            same(p, q, forces=1e-5, stress=1e-7, energy=1e-4)
        assert 1 < there.neighbours.searches < 12


@mace
@symmetrix
@pytest.mark.parametrize("periodic", [(True, True, True), (True, True, False)])
def test_symmetrix_gives_what_torch_gives_along_a_walk(network, periodic):
    from aldriver.potentials.mace_symmetrix import SymmetrixStepper

    atoms = alloy()
    atoms.pbc = periodic
    if not all(periodic):
        atoms.center(vacuum=4.0, axis=2)
    stepper, torch = network.md_stepper(atoms, "float32"), network.astype("float64")
    assert isinstance(stepper, SymmetrixStepper) and stepper.native
    frame = atoms.copy()
    for positions, cell in walk(atoms, 8):
        p = stepper(positions, cell, features=True)
        frame.positions[:], frame.cell[:] = positions, cell
        q = torch.evaluate([frame], features=True)[0]
        same(p, q, forces=1e-4 * max(1.0, np.abs(q.forces).max()), stress=1e-6, energy=2e-3)
        assert np.allclose(p.features, q.features, atol=1e-4)
    assert stepper.native
    assert stepper(positions, cell, stress=False).stress is None


@mace
@symmetrix
def test_symmetrix_is_left_as_soon_as_it_disagrees(network, caplog):
    atoms = alloy()
    stepper = network.md_stepper(atoms, "float32")
    cell, inner = np.asarray(atoms.cell), stepper._native

    def wrong(frame):
        p = inner(frame)
        return Prediction(energy=p.energy, forces=1.5 * p.forces, stress=p.stress)

    stepper._native = wrong
    expected = network.evaluate([atoms])[0]
    with caplog.at_level(logging.WARNING):
        found = [stepper(atoms.positions, cell) for _ in range(11)]
    assert not stepper.native and "disagree" in caplog.text
    assert all(np.abs(p.forces - expected.forces).max() < 1e-5 for p in found[9:])  # compared at the tenth


@mace
@symmetrix
def test_what_symmetrix_cannot_compute_runs_in_torch_with_a_warning(caplog):
    from aldriver.potentials.mace_stepper import MACEStepper
    from aldriver.testing.small_mace import small_mace

    with caplog.at_level(logging.WARNING):
        stepper = small_mace(("Cu",), correlation=2).md_stepper(alloy()[[1, 2, 4, 5]], "float32")
    assert isinstance(stepper, MACEStepper)
    assert "correlation is 2" in caplog.text


@pytest.mark.parametrize(
    ("slowdown", "expected"), [(0.5, 4), (1.0, 1), (2.0, 1), (0.95, 1)], ids=["faster", "equal", "slower", "hardly"]
)
def test_threads_are_chosen_by_the_time_they_take(slowdown, expected):
    from aldriver.potentials.threads import settle_threads

    now, threads, made = [0.0], [0], []

    def step():
        now[0] += 1.0 if threads[0] == 1 else slowdown
        made.append(threads[0])

    def set_threads(n):
        threads[0] = n

    assert settle_threads(step, most=4, set_threads=set_threads, clock=lambda: now[0]) == expected == threads[0]
    assert {1, 4} == set(made)


def test_one_thread_and_cheap_steps_are_not_measured():
    from aldriver.potentials.threads import settle_threads

    made, threads = [], []
    assert settle_threads(lambda: made.append(1), most=1, set_threads=threads.append) == 1
    assert made == [] and threads == [1]
    settle_threads(lambda: made.append(1), most=2, set_threads=threads.append, clock=lambda: 0.0)
    assert len(made) == 3  # one to warm up, one on each


def test_batches_grow_to_what_the_memory_holds_and_shrink_when_it_fails():
    from aldriver.potentials.batching import BatchSize

    size = BatchSize(100, 10_000, lambda: 1_000_000)
    size.took(100, 10_000)  # 100 bytes an atom: 5000 atoms fill half of what is free
    assert size.atoms == 400
    for _ in range(5):
        size.took(size.atoms, 100 * size.atoms)
    assert size.atoms == 5000
    size.failed(5000)
    size.took(2500, 1)
    assert size.atoms == 2500  # never again as many
    fixed = BatchSize(64, 64)
    fixed.took(64, 10**12)
    assert fixed.atoms == 64


def test_a_batch_that_does_not_fit_is_split(chgnet020, monkeypatch):
    import torch

    frames = [bulk("Cu", "fcc", a=3.5 + 0.02 * k, cubic=True) for k in range(7)]
    expected, inner = chgnet020.evaluate(frames), type(chgnet020).predict_graphs

    def limited(self, graphs, **options):
        if len(graphs) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return inner(self, graphs, **options)

    monkeypatch.setattr(type(chgnet020), "predict_graphs", limited)
    for p, q in zip(chgnet020.evaluate(frames), expected, strict=True):
        same(p, q, forces=1e-5, stress=1e-6, energy=1e-4)


def test_memory_that_is_kept_is_not_asked_for_again():
    """Page faults of a large block that is made and freed over and over; then the usual way, for comparison."""
    import resource
    import sys

    from aldriver.potentials.allocator import keep_freed_memory

    if not sys.platform.startswith("linux") or not keep_freed_memory():
        pytest.skip("this C library has no such setting")
    size = 64 * 1024**2

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            np.empty(size, dtype=np.uint8).fill(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    pages = size // resource.getpagesize()
    assert faults() < pages / 10
