"""More heads and more elements: the network starts as exactly what it was."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from mace_helpers import theirs

from aldriver.core.errors import InputError
from aldriver.potentials.mace import largest_differences
from aldriver.potentials.mace_surgery import drawn_anew, with_elements, with_heads
from aldriver.testing.small_mace import small_mace

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mace") is None, reason="mace is not installed here")
NON_LINEAR = {
    "interaction_cls": "RealAgnosticResidualNonLinearInteractionBlock",
    "interaction_cls_first": "RealAgnosticResidualNonLinearInteractionBlock",
    "readout_cls": "NonLinearBiasReadoutBlock",
    "edge_irreps": "16x0e+16x1o",
}
KINDS = {
    "residual": {},
    "without self-connection": {
        "interaction_cls": "RealAgnosticInteractionBlock",
        "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
        "num_interactions": 3,
    },
    "non-linear": NON_LINEAR,
    "last readout only": {"use_last_readout_only": True},
    "elements ignored in products": {"use_agnostic_product": True},
    "one layer": {"num_interactions": 1, "hidden_irreps": "16x0e"},
}
E0 = {"Fe": -8.0, "Cu": -4.0, "W": -11.0}


@pytest.fixture
def frames(fe_frames):
    fe_frames[2].symbols[[3, 7]] = "Cu"
    fe_frames[2].symbols[[5, 9, 10]] = "W"
    return fe_frames


def of_kind(kind, **changes):
    return small_mace(tuple(E0), atomic_energies=E0, dtype="float64", **KINDS[kind], **changes)


def check_same(a, b, frames):
    off = largest_differences(a, b, frames)
    assert off["energy_meV_atom"] < 1e-8 and off["forces_meV_A"] < 1e-8 and off["stress_GPa"] < 1e-11, off


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [("Default",), ("a", "b")])
def test_every_new_head_gives_what_the_chosen_head_gave(kind, heads, frames):
    start = of_kind(kind, heads=heads, head=heads[-1])
    new = with_heads(start, ("pt_head", "one", "Default"))
    assert new.head == "Default" and new.heads == ("pt_head", "one", "Default")
    for head in new.heads:
        check_same(start, new.with_head(head), frames)
    check_same(start, with_heads(new.with_head("one"), ("only",)), frames)


def test_the_new_networks_are_what_maces_calculator_takes_them_for(frames):
    start = of_kind("non-linear")
    new = with_heads(start, ("pt_head", "Default"))
    ((energy, forces, _),) = theirs(new.with_head("pt_head"), frames[2:])
    assert abs(energy - start.evaluate(frames)[2].energy) < 1e-9
    np.testing.assert_allclose(forces, start.evaluate(frames)[2].forces, atol=1e-10)


def test_a_head_may_have_its_own_reference_energies(frames):
    start = of_kind("residual")
    new = with_heads(start, ("pt_head", "Default"), e0s={"Default": {"Fe": -9.0}})
    iron = [a.symbols.indices().get("Fe", []) for a in frames]
    for n, p, q in zip(iron, start.evaluate(frames), new.evaluate(frames), strict=True):
        assert abs(q.energy - p.energy + len(n)) < 1e-9
    assert new.atomic_energies == E0 | {"Fe": -9.0}
    check_same(start, new.with_head("pt_head"), frames)


def test_heads_that_make_no_sense_are_refused():
    start = of_kind("residual")
    with pytest.raises(InputError, match="must be different names"):
        with_heads(start, ("a", "a"))
    with pytest.raises(InputError, match="reference energies for new, but the heads are a, b"):
        with_heads(start, ("a", "b"), e0s={"new": {"Fe": 0.0}})
    with pytest.raises(InputError, match="reference energy of Al"):
        with_heads(start, ("a", "b"), e0s={"a": {"Al": 0.0}})


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_element_starts_as_its_proxy_and_the_others_stay(kind, frames):
    start = of_kind(kind)
    new = with_elements(start, {"Mo": "W", "Al": "Cu"})
    assert new.elements == {"Fe", "Cu", "W", "Mo", "Al"}
    assert new.atomic_energies == {"Al": -4.0, "Fe": -8.0, "Cu": -4.0, "Mo": -11.0, "W": -11.0}
    check_same(start, new, frames)
    swapped = [a.copy() for a in frames]
    for a in swapped:
        a.set_chemical_symbols([{"W": "Mo", "Cu": "Al"}.get(s, s) for s in a.get_chemical_symbols()])
    for p, q in zip(start.evaluate(frames), new.evaluate(swapped), strict=True):
        assert abs(p.energy - q.energy) < 1e-10
        np.testing.assert_allclose(p.forces, q.forces, atol=1e-11)


def test_a_known_element_can_start_anew_from_another_but_keeps_its_reference_energy(frames):
    start = of_kind("residual")
    new = with_elements(start, {"Cu": "Fe"})
    pure = frames[2].copy()
    pure.set_chemical_symbols(["Fe"] * 15)
    mixed = pure.copy()
    mixed.symbols[[1, 2]] = "Cu"
    p, q = start.evaluate([pure])[0], new.evaluate([mixed])[0]
    assert abs(q.energy - p.energy - 2 * (E0["Cu"] - E0["Fe"])) < 1e-10


def test_proxies_that_make_no_sense_are_refused():
    start = of_kind("residual")
    with pytest.raises(InputError, match="'Xx' is no element"):
        with_elements(start, {"Xx": "Fe"})
    with pytest.raises(InputError, match="Mo cannot start from Si"):
        with_elements(start, {"Mo": "Si"})
    with pytest.raises(InputError, match="Al cannot start from Mo"):
        with_elements(start, {"Mo": "W", "Al": "Mo"})


def test_weights_drawn_anew_are_all_of_them_and_depend_on_the_seed_alone():
    start = of_kind("residual")
    state = torch.random.get_rng_state()
    a, b, c = (drawn_anew(start, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert set(a) == {name for name, _ in start.module.named_parameters()}
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert all(not torch.equal(a[k], c[k]) for k in a)
