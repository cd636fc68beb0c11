"""MACE potentials: the contract, mace's own calculator, heads, reference energies, features."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from mace_helpers import theirs

from aldriver import load
from aldriver.core.errors import InputError
from aldriver.potentials.bundle import save_bundle
from aldriver.potentials.mace import largest_differences, precision_check
from aldriver.potentials.mace_arch import arch_of
from aldriver.potentials.mace_library import UNSAFE
from aldriver.testing.contracts import check_potential
from aldriver.testing.small_mace import small_mace

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mace") is None, reason="mace is not installed here")
SINGLE = 1e-6
E0 = {"Fe": -8.3, "Cu": -3.7}
ARCHITECTURES = {
    "residual": {},
    "three layers, repulsion, transform": {
        "num_interactions": 3,
        "avg_num_neighbors": 20.0,
        "pair_repulsion": True,
        "distance_transform": "Agnesi",
        "interaction_cls_first": "RealAgnosticInteractionBlock",
    },
    "density": {
        "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
        "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
        "correlation": 3,
    },
    "non-linear, biased readout": {
        "interaction_cls": "RealAgnosticResidualNonLinearInteractionBlock",
        "interaction_cls_first": "RealAgnosticResidualNonLinearInteractionBlock",
        "readout_cls": "NonLinearBiasReadoutBlock",
        "edge_irreps": "16x0e+16x1o",
    },
    "one layer": {"num_interactions": 1, "hidden_irreps": "16x0e"},
    "last readout only": {"use_last_readout_only": True},
    "no cutoff in the basis": {"apply_cutoff": False},
    "both parities": {"hidden_irreps": "16x0e+16x0o+16x1o+16x1e"},  # some paths are zero by symmetry
}


@pytest.fixture(scope="module")
def double():
    return small_mace(("Fe", "Cu"), atomic_energies=E0, dtype="float64")


@pytest.fixture(scope="module")
def single():
    return small_mace(("Fe", "Cu"), atomic_energies=E0)


@pytest.fixture
def frames(fe_frames):
    """One, two and 15 atoms of iron and copper, sheared."""
    fe_frames[2].symbols[[3, 7, 8]] = "Cu"
    fe_frames[1].symbols[0] = "Cu"
    return fe_frames


def test_contract_in_double_precision(double, frames):
    check_potential(double, frames, unknown="Cm")


def test_contract_in_single_precision(single, frames):
    check_potential(single, frames, noise=SINGLE, unknown="Cm", finite_differences=False)


def test_contract_of_a_saved_one(single, frames, tmp_path):
    loaded = load(f"mace:{save_bundle(single, tmp_path / 'saved')}")
    check_potential(loaded, frames[1:2], noise=SINGLE, unknown="Cm", finite_differences=False)
    assert loaded.fingerprint == single.fingerprint
    assert loaded.atomic_energies == single.atomic_energies
    for a, b in zip(single.evaluate(frames), loaded.evaluate(frames), strict=True):
        assert a.energy == b.energy and (a.forces == b.forces).all()


@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_architecture_gives_what_maces_calculator_gives(changes, frames):
    potential = small_mace(("Fe", "Cu"), atomic_energies=E0, dtype="float64", **changes)
    assert np.abs(potential.evaluate(frames)[2].forces).max() > 0.05  # something to compare
    for (energy, forces, stress), p in zip(theirs(potential, frames), potential.evaluate(frames), strict=True):
        assert abs(p.energy - energy) < 1e-9
        np.testing.assert_allclose(p.forces, forces, atol=1e-10)
        np.testing.assert_allclose(p.stress, stress, atol=1e-11)


@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_an_architecture_read_from_a_network_is_the_one_it_was_built_from(changes):
    potential = small_mace(("Fe", "Cu"), heads=("a", "b"), head="b", **changes)
    again = arch_of(potential.module)
    assert again.items() >= {k: v for k, v in potential.arch.items() if k != "head"}.items()


def test_isolated_atoms_and_molecules(double):
    alone = Atoms("Fe", cell=[12.0] * 3, pbc=True)
    molecule = Atoms("FeCu", positions=[[0, 0, 0], [0, 0, 2.3]])
    far = Atoms("FeCu", positions=[[0, 0, 0], [0, 0, 30.0]])
    one, pair, apart, copper = double.evaluate([alone, molecule, far, Atoms("Cu", cell=[12.0] * 3, pbc=True)])
    assert np.isfinite(one.energy) and (one.forces == 0).all()
    assert abs(apart.energy - one.energy - copper.energy) < 1e-12  # size-consistent
    assert pair.stress is None and np.abs(pair.forces).max() > 1e-3
    np.testing.assert_allclose(pair.forces.sum(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(pair.forces, theirs(double, [molecule])[0][1], atol=1e-12)


def test_reference_energies_are_kept_in_double_precision(frames):
    big = small_mace(("Fe", "Cu"), atomic_energies={"Fe": -34560.123456789, "Cu": -5432.1})
    small = small_mace(("Fe", "Cu"), atomic_energies={"Fe": 0.0, "Cu": 0.0})
    assert big.atomic_energies["Fe"] == -34560.123456789
    for a, p, q in zip(frames, big.evaluate(frames), small.evaluate(frames), strict=True):
        n_fe, n_cu = a.symbols.indices().get("Fe", []), a.symbols.indices().get("Cu", [])
        expected = len(n_fe) * -34560.123456789 + len(n_cu) * -5432.1
        assert abs(p.energy - q.energy - expected) < 1e-8
    assert big.copy().astype("float64").atomic_energies["Fe"] == -34560.123456789


def test_precision_check_measures_the_difference_of_both_precisions(single, double, frames):
    cost = precision_check(single, frames)
    assert cost["forces_meV_A"] == pytest.approx(precision_check(double, frames)["forces_meV_A"], rel=0.3)
    assert 0 < cost["energy_meV_atom"] < 0.1 and 0 < cost["forces_meV_A"] < 1 and 0 < cost["stress_GPa"] < 1e-2
    assert set(largest_differences(double, double, frames).values()) == {0.0}
    assert single.fingerprint == double.fingerprint


def test_features_do_not_change_when_the_cell_is_turned(double, frames):
    turned = frames[2].copy()
    turned.rotate(73, (1, 2, 3), rotate_cell=True)
    a, b = double.features([frames[2], turned])
    assert a.shape == (15, 32 + double.module.readouts[-1].hidden_irreps.count("0e"))
    np.testing.assert_allclose(a, b, atol=1e-10)
    assert np.abs(a - a[0]).max() > 1e-3  # atoms differ


@pytest.mark.parametrize("name", ["residual", "non-linear, biased readout", "one layer", "last readout only"])
def test_site_energies_are_linear_in_the_last_layer_features(name, frames):
    potential = small_mace(("Fe", "Cu"), heads=("a", "b"), head="b", dtype="float64", **ARCHITECTURES[name])
    rng = np.random.default_rng(0)
    cells = []
    for _ in range(8):
        atoms = frames[2].copy()
        atoms.rattle(0.15, rng=rng)
        cells.append(atoms)
    phi = np.concatenate(potential.last_layer_features(cells))
    y = np.concatenate([sites for (sites,) in theirs(potential, cells, ["node_energy"])])
    a = np.column_stack([phi, np.ones(len(phi))])
    assert len(y) > 2 * a.shape[1]
    weights, *_ = np.linalg.lstsq(a, y, rcond=None)
    np.testing.assert_allclose(a @ weights, y, atol=1e-8 * np.abs(y).max())
    assert y.std() > 1e-3


def test_a_head_must_be_chosen_and_must_exist(frames):
    with pytest.raises(InputError, match="several heads: choose one of pt_head, Default"):
        small_mace(("Fe",), heads=("pt_head", "Default"))
    with pytest.raises(InputError, match="no head 'default': choose one of pt_head, Default"):
        small_mace(("Fe",), heads=("pt_head", "Default"), head="default")
    potential = small_mace(("Fe", "Cu"), heads=("pt_head", "Default"), head="pt_head", dtype="float64")
    other = potential.with_head("Default")
    assert potential.fingerprint != other.fingerprint
    for which in (potential, other):
        ((energy, forces, _),) = theirs(which, frames[2:])
        p = which.evaluate(frames)[2]
        assert abs(p.energy - energy) < 1e-10
        np.testing.assert_allclose(p.forces, forces, atol=1e-11)
    assert abs(potential.evaluate(frames)[2].energy - other.evaluate(frames)[2].energy) > 1e-3


def test_the_head_is_saved(tmp_path):
    potential = small_mace(("Fe",), heads=("pt_head", "Default"), head="pt_head")
    folder = save_bundle(potential, tmp_path / "saved")
    assert load(folder).head == "pt_head"
    assert load(folder, head="Default").head == "Default"
    with pytest.raises(InputError, match="no head 'new'"):
        load(folder, head="new")


def test_copies_are_independent_and_trainable(single, frames):
    before = single.evaluate(frames[:1])[0].energy
    copy = single.copy()
    assert all(p.requires_grad for p in copy.module.parameters())
    with torch.no_grad():
        next(copy.module.parameters()).add_(0.1)
    assert copy.fingerprint != single.fingerprint
    assert copy.evaluate(frames[:1])[0].energy != before == single.evaluate(frames[:1])[0].energy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interaction_cls": "os.system"}, "interaction_cls = 'os.system' are not supported"),
        ({"gate": "exec"}, "gate = 'exec' are not supported"),
        ({"readout_cls": "LinearDipoleReadoutBlock"}, "not supported"),
        ({"cueq_config": {}}, "'cueq_config', which this version does not know"),
    ],
)
def test_an_architecture_names_only_what_is_known(single, change, message):
    with pytest.raises(InputError, match=message):
        type(single).from_state(single.arch | change, single.module.state_dict(), name="x")


def test_a_network_of_another_class_is_refused(single):
    class EnergyDipolesMACE(torch.nn.Module):
        pass

    with pytest.raises(InputError, match="class EnergyDipolesMACE cannot be used, only ScaleShiftMACE"):
        arch_of(EnergyDipolesMACE())


def test_the_library_leaves_no_trace(tmp_path):
    code = f"""
import logging, os, sys
import torch
from aldriver.testing.small_mace import small_mace
os.environ["{UNSAFE}"] = "1"  # as a library does that was imported before
before = list(logging.root.handlers), logging.root.level
small_mace().fingerprint
from aldriver.potentials.mace_library import mace_library
with mace_library(dtype=torch.float64):
    import mace.calculators
    assert os.environ["{UNSAFE}"] == "1" and torch.get_default_dtype() == torch.float64
    logging.basicConfig(level=10)
assert "{UNSAFE}" not in os.environ
assert torch.get_default_dtype() == torch.float32
assert (list(logging.root.handlers), logging.root.level) == before
from e3nn import get_optimization_defaults
assert get_optimization_defaults()["jit_script_fx"]
torch.save(torch.nn.Linear, "evil.pt")
try:
    torch.load("evil.pt")
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["UnpicklingError"]  # nothing else was printed, and nothing unpickled
    assert UNSAFE not in os.environ
