"""CHGNet's forward pass with the first linear layers taken before the gather. Derivatives are ``chgnet.py``'s business.

chgnet gathers atom and bond features for every edge and every angle, joins them, and multiplies the long rows by the
weights of the first layer. The product of a joined row is the sum of the products of its parts, so the parts that
belong to atoms and bonds can be multiplied once each, before they are gathered: the same numbers with a quarter of the
work (there are some ten times more edges, and a hundred times more angles, than atoms).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SiteOutputs:
    """Per-atom results of a batch, atoms in the order of the batch: all still attached to their inputs.

    Attributes
    ----------
    energies
        (n_atoms,), eV, without the composition model.
    magmoms
        (n_atoms,), µB.
    features
        (n_atoms, 64), the input of the energy readout.
    """

    energies: Tensor
    magmoms: Tensor
    features: Tensor


def site_outputs(model: Any, batch: Any) -> SiteOutputs:
    """Forward pass of a CHGNet `model` over a chgnet ``BatchedGraph``, as ``CHGNet._compute`` does it.

    Any module may require gradients, and the result can be differentiated twice (training on forces).
    """
    atoms = model.atom_embedding(batch.atomic_numbers - 1)
    bonds = model.bond_embedding(batch.bond_bases_ag)
    atom_weights = model.bond_weights_ag(batch.bond_bases_ag)
    bond_weights = model.bond_weights_bg(batch.bond_bases_bg)
    has_angles = len(batch.angle_bases) != 0
    angles = model.angle_embedding(batch.angle_bases) if has_angles else batch.angle_bases
    centre, neighbour = batch.batched_atom_graph.unbind(1)
    edges = (centre, batch.directed2undirected, neighbour)
    magmoms = None
    for k, layer in enumerate(model.atom_conv_layers[:-1]):
        atoms = _atom_conv(layer, atoms, bonds, atom_weights, edges)
        bond_layer, angle_layer = model.bond_conv_layers[k], model.angle_layers[k]
        if has_angles and bond_layer is not None:
            triples = batch.batched_bond_graph.unbind(1)
            bonds = _bond_conv(bond_layer, atoms, bonds, bond_weights, angles, triples)
            if angle_layer is not None and k < model.n_conv - 2:  # after the last bond update nobody reads them
                angles = _angle_update(angle_layer, atoms, bonds, angles, triples)
        if k == model.n_conv - 2:
            magmoms = torch.abs(model.site_wise(atoms)).view(-1)
    atoms = _atom_conv(model.atom_conv_layers[-1], atoms, bonds, atom_weights, edges)
    if model.readout_norm is not None:
        atoms = model.readout_norm(atoms)
    assert magmoms is not None
    return SiteOutputs(energies=model.mlp(atoms).view(-1), magmoms=magmoms, features=atoms)


def _atom_conv(
    layer: Any, atoms: Tensor, bonds: Tensor, weights: Tensor, edges: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    centre, bond, neighbour = edges
    messages = _gated(layer.twoBody_atom, [(atoms, centre), (bonds, bond), (atoms, neighbour)])
    messages = messages * weights.index_select(0, bond)
    return _update(layer, layer.atom_norm, atoms, messages, centre)


def _bond_conv(
    layer: Any, atoms: Tensor, bonds: Tensor, weights: Tensor, angles: Tensor, triples: tuple[Tensor, ...]
) -> Tensor:
    centre, first, second = triples
    messages = _gated(layer.twoBody_bond, [(bonds, first), (bonds, second), (angles, None), (atoms, centre)])
    messages = messages * weights.index_select(0, first) * weights.index_select(0, second)
    return _update(layer, layer.bond_norm, bonds, messages, first)


def _angle_update(layer: Any, atoms: Tensor, bonds: Tensor, angles: Tensor, triples: tuple[Tensor, ...]) -> Tensor:
    centre, first, second = triples
    new = _gated(layer.twoBody_bond, [(bonds, first), (bonds, second), (angles, None), (atoms, centre)])
    new = new + angles if layer.resnet else new
    return new if layer.angle_norm is None else layer.angle_norm(new)


def _update(layer: Any, norm: nn.Module | None, old: Tensor, messages: Tensor, owners: Tensor) -> Tensor:
    """Sum of the messages of each owner, through the layer's output, added to what was there."""
    new = torch.zeros_like(old).index_add(0, owners, messages)
    if layer.use_mlp_out:
        new = layer.mlp_out(new)
    if layer.resnet:
        new = new + old
    return new if norm is None else norm(new)


def _gated(mlp: Any, parts: list[tuple[Any, Tensor | None]]) -> Tensor:
    """``GatedMLP`` of the joined parts; each part is (features, index of the rows to gather, None for all)."""
    core, gate = mlp.mlp_core.layers, mlp.mlp_gate.layers
    at = next(k for k, layer in enumerate(core) if isinstance(layer, nn.Linear))  # a dropout may come first
    weight = torch.cat([core[at].weight, gate[at].weight])
    bias = None if core[at].bias is None else torch.cat([core[at].bias, gate[at].bias])
    total: Tensor | None = None
    offset = 0
    for features, index in parts:
        width = features.shape[1]
        product = nn.functional.linear(features, weight[:, offset : offset + width], bias if offset == 0 else None)
        offset += width
        product = product if index is None else product.index_select(0, index)
        total = product if total is None else total.add_(product)
    assert total is not None
    a, b = total.chunk(2, dim=1)
    for first, second in zip(core[at + 1 :], gate[at + 1 :], strict=True):
        a, b = first(a), second(b)
    if mlp.norm is not None:
        a, b = mlp.bn1(a), mlp.bn2(b)
    return mlp.activation(a) * mlp.sigmoid(b)
