"""Messages in pieces: the same numbers, no piece larger than asked, and the network as it was."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from test_mace import ARCHITECTURES

from aldriver.potentials import mace
from aldriver.potentials.mace_graph import join
from aldriver.potentials.mace_pieces import PAIRS, in_pieces
from aldriver.testing.small_mace import small_mace

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mace") is None, reason="mace is not installed here")
MANY = 10**9


def whole_and_pieces(potential, frames, monkeypatch, largest):
    graphs = [potential.graph(a) for a in frames]
    found = []
    for size in (MANY, largest):
        monkeypatch.setattr(mace, "in_pieces", lambda module, pairs, size=size: in_pieces(module, pairs, largest=size))
        found.append(potential.predict_graphs(graphs, features=True))
    return found


@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_pieces_give_what_a_single_pass_gives(changes, fe_frames, monkeypatch):
    potential = small_mace(("Fe",), dtype="float64", **changes)
    whole, pieces = whole_and_pieces(potential, fe_frames, monkeypatch, 50)
    assert np.abs(whole[2].forces).max() > 0.05  # something to compare
    for p, q in zip(whole, pieces, strict=True):
        assert abs(p.energy - q.energy) < 1e-10
        np.testing.assert_allclose(q.forces, p.forces, atol=1e-12)
        np.testing.assert_allclose(q.stress, p.stress, atol=1e-12)
        np.testing.assert_allclose(q.features, p.features, atol=1e-12)


@pytest.mark.parametrize("largest", [1, 7, 10**4])
def test_no_piece_is_larger_than_asked(largest, fe_frames):
    potential = small_mace(("Fe",), dtype="float64")
    graph = potential.graph(fe_frames[0])
    pairs, sizes = graph.edge_index.shape[1], []
    for interaction in potential.module.interactions:
        interaction.conv_tp.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    with in_pieces(potential.module, pairs, largest=largest):
        mace.energy_forces_stress(potential.module, join([graph], 1), create_graph=False)
    layers = len(potential.module.interactions)
    if pairs > 2 * largest:
        assert max(sizes) == largest and sum(sizes) == 2 * layers * pairs  # there, and on the way back
    else:
        assert sizes == [pairs] * layers


def test_the_network_is_as_it_was_after_an_error():
    module = small_mace(("Fe",)).module
    before = [(i.conv_tp, hasattr(i, "conv_fusion")) for i in module.interactions]
    with pytest.raises(KeyError), in_pieces(module, 2 * PAIRS + 1):
        assert all(
            i.conv_fusion and i.conv_tp is not tp for i, (tp, _) in zip(module.interactions, before, strict=True)
        )
        raise KeyError
    assert [(i.conv_tp, hasattr(i, "conv_fusion")) for i in module.interactions] == before


def test_derivatives_of_a_higher_order_are_refused(fe_frames):
    """Training differentiates the forces: it takes the single pass."""
    potential = small_mace(("Fe",), dtype="float64")
    batch = join([potential.graph(fe_frames[0])], 1)
    with in_pieces(potential.module, 10**6, largest=5), pytest.raises(RuntimeError, match="first derivatives only"):
        mace.energy_forces_stress(potential.module, batch, create_graph=True)
