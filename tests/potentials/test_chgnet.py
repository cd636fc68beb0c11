"""CHGNet: against chgnet itself, and what aldriver adds to it."""

from __future__ import annotations

import contextlib
import io
import statistics

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from aldriver import load
from aldriver.core.errors import AldriverError, InputError
from aldriver.potentials.chgnet import CHGNetPotential
from aldriver.potentials.chgnet_forward import site_outputs
from aldriver.potentials.network import module_fingerprint
from aldriver.testing import bench


def chgnet_calculator(version):
    with contextlib.redirect_stdout(io.StringIO()):
        from chgnet.model import CHGNet
        from chgnet.model.dynamics import CHGNetCalculator

        return CHGNetCalculator(CHGNet.load(model_name=version, use_device="cpu", verbose=False), use_device="cpu")


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0"])
def test_equals_chgnet_itself(version, fe_frames):
    calculator = chgnet_calculator(version)
    potential = load(f"chgnet:{version}")
    salt = bulk("NaCl", "rocksalt", a=5.6)
    salt.rattle(0.1, seed=2)
    loose = bulk("Na", "bcc", a=4.3, cubic=True)  # no bond below 3 Å: a graph without angles
    loose.rattle(0.05, seed=1)
    for atoms in [*fe_frames, salt, loose, bench.rattled_copper(2)]:
        expected = atoms.copy()
        expected.calc = calculator
        p = potential.evaluate([atoms])[0]
        assert p.energy == pytest.approx(expected.get_potential_energy(), abs=1e-5 * len(atoms))
        # both are in single precision: in such distorted cells each is up to 2e-5 from the double-precision forces
        np.testing.assert_allclose(p.forces, expected.get_forces(), atol=3e-5)
        np.testing.assert_allclose(p.stress, expected.get_stress(), atol=5e-6)
        np.testing.assert_allclose(p.magmoms, expected.get_magnetic_moments(), atol=1e-5)


def test_forward_pass_is_chgnets_to_rounding(chgnet020_double, fe_frames):
    """The forward pass is our own: in double precision it must be chgnet's ``_compute`` to the last digits."""
    from chgnet.model.model import BatchedGraph

    frames = [*fe_frames, bench.rattled_copper(1)]
    for potential in (chgnet020_double, CHGNetPotential.foundation("0.3.0", dtype="float64")):
        model = potential.module
        batch = BatchedGraph.from_graphs(
            [potential.graph(a) for a in frames],
            bond_basis_expansion=model.bond_basis_expansion,
            angle_basis_expansion=model.angle_basis_expansion,
            compute_stress=True,
        )
        theirs = model._compute(batch, compute_force=True, compute_stress=True, compute_magmom=True)
        composition = model.composition_model.fc.weight[0].detach().numpy()
        for k, (p, atoms) in enumerate(zip(potential.evaluate(frames, batch_atoms=1000), frames, strict=True)):
            energy = float(theirs["e"][k]) * len(atoms) + composition[atoms.numbers - 1].sum()
            assert p.energy == pytest.approx(energy, abs=1e-9 * len(atoms))
            np.testing.assert_allclose(p.forces, theirs["f"][k].detach().numpy(), atol=1e-9)
            np.testing.assert_allclose(p.magmoms, theirs["m"][k].detach().numpy(), atol=1e-9)
            stress = theirs["s"][k].detach().numpy() / 160.21766208
            stress = 0.5 * (stress + stress.T)  # chgnet computes volumes in single precision: 1e-7 relative
            np.testing.assert_allclose(p.stress, stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], rtol=1e-6, atol=1e-9)


def test_forward_pass_gives_chgnets_gradients_for_training(fe_frames):
    """A loss on energies and forces moves each weight as chgnet's own forward does (second derivatives)."""
    from chgnet.model.model import BatchedGraph

    potential = CHGNetPotential.foundation("0.2.0", dtype="float64").copy()
    model = potential.module
    weights = [p for p in model.parameters() if p.requires_grad]
    graph = potential.graph(fe_frames[1])

    def gradients(own):
        batch = BatchedGraph.from_graphs(
            [graph], bond_basis_expansion=model.bond_basis_expansion, angle_basis_expansion=model.angle_basis_expansion
        )
        if own:
            energy = site_outputs(model, batch).energies.sum()
            forces = -torch.autograd.grad(energy, batch.atom_positions[0], create_graph=True)[0]
        else:
            output = model._compute(batch, compute_force=True)
            energy, forces = output["e"].sum() * len(fe_frames[1]), output["f"][0]
        return torch.autograd.grad(energy**2 + (forces**2).sum(), weights, allow_unused=True)

    pairs = list(zip(gradients(own=True), gradients(own=False), strict=True))
    assert sum(a is not None for a, _ in pairs) > 50
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None:
            assert torch.allclose(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()) + 1e-12)


def test_features_are_the_input_of_the_readout_and_its_hidden_units(chgnet030, fe_frames):
    seen: list[np.ndarray] = []
    readout = chgnet030.module.mlp
    hooks = [
        part.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach().numpy().copy()))
        for part in (readout, readout.layers[-1])
    ]
    try:
        chgnet030.module.predict_graph(chgnet030.graph(fe_frames[2]), task="e")
    finally:
        for hook in hooks:
            hook.remove()
    got = chgnet030.features([fe_frames[2]])[0]
    assert got.shape == (len(fe_frames[2]), 128)
    np.testing.assert_allclose(got, np.hstack(seen), atol=1e-4)


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0"])
def test_last_layer_features_give_the_energy(version, fe_frames):
    potential = CHGNetPotential.foundation(version, dtype="float64")
    last = potential.module.mlp.layers[-1]
    weights, bias = last.weight.detach().numpy()[0], float(last.bias)
    reference = float(potential.module.composition_model.fc.weight[0, 25])
    rows = potential.last_layer_features(fe_frames)
    for atoms, phi, p in zip(fe_frames, rows, potential.evaluate(fe_frames), strict=True):
        assert phi.shape == (len(atoms), len(weights))
        assert (phi @ weights + bias + reference).sum() == pytest.approx(p.energy, abs=1e-9)


def test_a_potential_without_a_last_layer_says_so(eam_fe, fe_frames):
    with pytest.raises(InputError, match="no linear last layer"):
        eam_fe.last_layer_features(fe_frames)


def test_another_precision_is_the_same_network(chgnet020, fe_frames):
    double = chgnet020.astype("float64")
    assert (double.precision, chgnet020.precision) == ("float64", "float32")
    assert double.fingerprint == chgnet020.fingerprint
    for p, q in zip(double.evaluate(fe_frames), chgnet020.evaluate(fe_frames), strict=True):
        np.testing.assert_allclose(p.forces, q.forces, atol=5e-5)


def test_frames_without_angles_may_share_a_call(chgnet020, fe_frames):
    loose = bulk("Na", "bcc", a=4.3, cubic=True)
    frames = [fe_frames[1], loose, fe_frames[2], loose]
    together = chgnet020.evaluate(frames)
    for atoms, p in zip(frames, together, strict=True):
        alone = chgnet020.evaluate([atoms])[0]
        assert p.energy == pytest.approx(alone.energy, abs=1e-5)


@pytest.mark.parametrize(("component", "pair"), [(3, (1, 2)), (4, (0, 2)), (5, (0, 1))])
def test_shear_order_on_a_strained_cube(chgnet020, component, pair):
    """A cube sheared in one plane has stress in that shear component only, by symmetry."""
    atoms = bulk("Fe", "bcc", a=2.84, cubic=True)
    strain = np.eye(3)
    strain[pair] = strain[pair[::-1]] = 0.02
    atoms.set_cell(np.asarray(atoms.cell) @ strain, scale_atoms=True)
    stress = chgnet020.evaluate([atoms])[0].stress
    others = [k for k in (3, 4, 5) if k != component]
    assert stress[component] > 1e-3, "a positive shear is resisted by a positive stress"
    assert np.abs(stress[others]).max() < 1e-5


def test_isolated_atoms_are_refused_with_a_name(chgnet020):
    atoms = Atoms("Fe2Cu", positions=[[0, 0, 0], [2.5, 0, 0], [10, 10, 10]], cell=[20, 20, 20], pbc=True)
    with pytest.raises(AldriverError, match=r"frame 0 .*atom 2 \(Cu\) has no neighbour within 5 Å"):
        chgnet020.evaluate([atoms])
    with pytest.raises(AldriverError, match="flown off"):
        chgnet020.stepper(atoms)(atoms.positions, np.asarray(atoms.cell))


def test_positions_that_are_not_numbers_are_refused(chgnet020, fe_cell):
    fe_cell.positions[0, 0] = np.nan
    with pytest.raises(AldriverError, match="not finite"):
        chgnet020.evaluate([fe_cell])


def test_a_cluster_without_a_cell(chgnet020):
    """No cell: no stress, and the same energy as in a large box."""
    cluster = Atoms("Fe3", positions=[[0, 0, 0], [2.4, 0, 0], [0.3, 2.3, 0.2]])
    p = chgnet020.evaluate([cluster])[0]
    boxed = Atoms(cluster.symbols, positions=cluster.positions, cell=np.eye(3) * 25, pbc=True)
    q = chgnet020.evaluate([boxed])[0]
    assert p.stress is None
    assert p.energy == pytest.approx(q.energy, abs=1e-5)
    np.testing.assert_allclose(p.forces, q.forces, atol=1e-5)


def test_unknown_version_and_device():
    with pytest.raises(InputError, match=r"0\.2\.0, 0\.3\.0"):
        load("chgnet:9")
    with pytest.raises(InputError, match="not understood"):
        CHGNetPotential.foundation("0.2.0", device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA GPU"):
            load("chgnet:0.2.0", device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_equals_cpu(chgnet020, fe_frames):
    gpu = load("chgnet:0.2.0", device="cuda")
    assert gpu.fingerprint == chgnet020.fingerprint
    for p, q in zip(gpu.evaluate(fe_frames), chgnet020.evaluate(fe_frames), strict=True):
        np.testing.assert_allclose(p.forces, q.forces, atol=1e-4)
        np.testing.assert_allclose(p.stress, q.stress, atol=1e-5)


def test_loading_prints_nothing(capsys):
    load("chgnet:0.2.0")
    assert capsys.readouterr() == ("", "")


def test_copy_is_trainable_and_independent(chgnet020, fe_frames):
    before = chgnet020.fingerprint
    copy = chgnet020.copy()
    assert copy.fingerprint == before
    trainable = {n.split(".")[0] for n, p in copy.module.named_parameters() if p.requires_grad}
    assert "atom_conv_layers" in trainable
    assert "composition_model" not in trainable
    assert not any(p.requires_grad for p in chgnet020.module.parameters())
    with torch.no_grad():
        next(iter(copy.module.atom_conv_layers.parameters())).add_(0.01)
    assert copy.fingerprint != before, "a copy whose weights changed has another fingerprint"
    assert chgnet020.fingerprint == before
    assert copy.evaluate(fe_frames[:2])[0].energy != chgnet020.evaluate(fe_frames[:2])[0].energy
    assert all(p.requires_grad for p in copy.module.mlp.parameters()), "evaluating leaves training switched on"
    refined = copy.with_module(copy.module, name="refined")
    assert (refined.name, refined.fingerprint) == ("refined", module_fingerprint(copy.arch, copy.module))


def test_graphs_are_cached_by_structure_and_bounded(chgnet020, fe_cell, monkeypatch):
    monkeypatch.setattr("aldriver.potentials.network.CACHED_GRAPHS", 3)
    first = chgnet020.graph(fe_cell)
    assert chgnet020.graph(fe_cell.copy()) is first
    moved = fe_cell.copy()
    for _ in range(4):
        moved.positions[0, 0] += 1e-9
        assert chgnet020.graph(moved) is not first
    assert len(chgnet020._graphs) <= 3
    assert chgnet020.graph(fe_cell) is not first, "the oldest graph was dropped"


def test_stepper_keeps_its_list_and_equals_fresh_graphs(chgnet020, fe_vacancy):
    rng = np.random.default_rng(1)
    stepper = chgnet020.stepper(fe_vacancy)
    for _ in range(12):
        fe_vacancy.positions += rng.normal(0, 0.01, fe_vacancy.positions.shape)
        p = stepper(fe_vacancy.positions, np.asarray(fe_vacancy.cell), features=True)
        q = chgnet020.evaluate([fe_vacancy], features=True)[0]
        assert p.energy == q.energy
        for name in ("forces", "stress", "magmoms", "features"):
            assert np.array_equal(getattr(p, name), getattr(q, name)), name
    assert stepper.neighbours.searches == 1


def test_faster_than_chgnets_calculator():
    """The bench promises 1.6; asserted with room for a busy machine."""
    result = bench.chgnet_joint_backward(3)
    assert statistics.median(result.ratios) > 1.3
    assert result.notes["max_force_difference_eV_A"] <= 1e-5


def test_energy_is_continuous_where_pairs_leave_the_cutoff(chgnet020_double):
    """A dimer in a box moved through the cutoffs of both graphs: no jump beyond what the slope explains."""
    for r0 in (chgnet020_double.bond_cutoff, 4.9):
        energies = [
            chgnet020_double.evaluate(
                [Atoms("Fe3", positions=[[0, 0, 0], [r, 0, 0], [2.4, 1.5, 0]], cell=np.eye(3) * 16, pbc=True)]
            )[0].energy
            for r in (r0 - 1e-4, r0 + 1e-4)
        ]
        assert abs(energies[1] - energies[0]) < 1e-2 * 2e-4 + 1e-3
