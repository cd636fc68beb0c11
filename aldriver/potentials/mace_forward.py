"""One pass through a MACE network: site energies, and their derivatives by the pair vectors.

The layers are mace's (Batatia et al., NeurIPS 2022); the pass is ours: derivatives by the vectors give forces and
stress together, from vectors that were computed in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aldriver.potentials.mace_graph import MACEBatch


@dataclass(frozen=True, kw_only=True)
class Sites:
    """What a network says of N atoms.

    Attributes
    ----------
    energies
        (N,) eV, without the reference energies E0.
    layers
        (N, irreps) features after each interaction.
    """

    energies: Tensor
    layers: list[Tensor]


def site_outputs(module: Any, batch: MACEBatch) -> Sites:
    """Site energies scale·(Σ readouts + pair repulsion) + shift, each atom with its own head."""
    lengths = torch.linalg.vector_norm(batch.vectors, dim=-1, keepdim=True)
    elements = (batch.node_attrs, batch.edge_index, module.atomic_numbers)
    features = module.node_embedding(batch.node_attrs)
    directions = module.spherical_harmonics(batch.vectors)
    radial, cutoff = module.radial_embedding(lengths, *elements)
    layers: list[Tensor] = []
    for interaction, product in zip(module.interactions, module.products, strict=True):
        messages, residual = interaction(
            node_attrs=batch.node_attrs,
            node_feats=features,
            edge_attrs=directions,
            edge_feats=radial,
            edge_index=batch.edge_index,
            cutoff=cutoff,
            first_layer=not layers,
        )
        features = product(node_feats=messages, sc=residual, node_attrs=batch.node_attrs)
        layers.append(features)
    energies = torch.zeros_like(features[:, 0])
    if hasattr(module, "pair_repulsion_fn"):
        energies = energies + module.pair_repulsion_fn(lengths, *elements)
    for readout, inputs in readouts_of(module, layers):
        energies = energies + _of_head(readout(inputs, batch.head), batch.head)
    return Sites(energies=module.scale_shift(energies, batch.head), layers=layers)


def readouts_of(module: Any, layers: list[Tensor]) -> list[tuple[Any, Tensor]]:
    """Each readout with the features it reads: of its own layer, or of the last one where there is but one readout."""
    readouts = list(module.readouts)
    return [(readout, layers[-1] if len(readouts) == 1 else layers[k]) for k, readout in enumerate(readouts)]


def energy_forces_stress(
    module: Any, batch: MACEBatch, *, create_graph: bool
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Site energies (N,) eV without E0, forces (N, 3) eV/Å, stress (B, 3, 3) eV/Å³, and the layers' features.

    With r the pair vectors, F_i = Σ_j (∂E/∂r_ij − ∂E/∂r_ji) and σ = Σ r ⊗ ∂E/∂r / V.

    Parameters
    ----------
    create_graph
        Keep what is needed to walk back from forces and stress to the weights.
    """
    vectors = batch.vectors.requires_grad_(True)
    sites = site_outputs(module, batch)
    (gradient,) = torch.autograd.grad(sites.energies.sum(), [vectors], create_graph=create_graph)
    if not create_graph:
        vectors = vectors.detach()
        sites = Sites(energies=sites.energies.detach(), layers=[rows.detach() for rows in sites.layers])
    sender = batch.edge_index[0]
    forces = forces_of_vectors(batch, gradient)
    virial = vectors[:, :, None] * gradient[:, None, :]
    stress = virial.new_zeros(len(batch.counts), 3, 3).index_add(0, batch.batch[sender], virial)
    stress = 0.5 * (stress + stress.transpose(1, 2)) / batch.volumes[:, None, None]
    return sites.energies, forces, stress, sites.layers


def forces_of_vectors(batch: MACEBatch, gradient: Tensor) -> Tensor:
    """(N, 3) forces from the derivative of an energy by the pair vectors."""
    sender, receiver = batch.edge_index
    forces = gradient.new_zeros(len(batch.species), 3)
    return forces.index_add(0, sender, gradient).index_add(0, receiver, -gradient)


def invariants(module: Any, layers: list[Tensor], head: Tensor) -> Tensor:
    """(N, D) what does not change when the cell is turned: scalars (0e) of all layers, hidden units of the readouts."""
    scalars = [_scalars(rows, product.linear.irreps_out) for rows, product in zip(layers, module.products, strict=True)]
    hidden = [_hidden(module, r, x, head) for r, x in readouts_of(module, layers) if hasattr(r, "linear_2")]
    return torch.cat([*scalars, *hidden], dim=1)


def last_inputs(module: Any, layers: list[Tensor], head: Tensor) -> Tensor:
    """(N, K) inputs φ of the linear maps that end the readouts, times the scale of the atom's head.

    The site energy without E0 is φ·w + b, with pair repulsion (where there is one) left out.
    """
    rows = []
    for readout, inputs in readouts_of(module, layers):
        if hasattr(readout, "linear_2"):
            rows.append(_hidden(module, readout, inputs, head))
        else:
            rows.append(_scalars(inputs, readout.linear.irreps_in))
    scale = torch.atleast_1d(module.scale_shift.scale)[head]
    return torch.cat(rows, dim=1) * scale[:, None]


def _hidden(module: Any, readout: Any, inputs: Tensor, head: Tensor) -> Tensor:
    """(N, K) last hidden units of a readout with a nonlinearity, those of the atom's own head."""
    n_heads = len(module.heads)
    hidden = _of_own_head(readout.non_linearity(readout.linear_1(inputs)), head, n_heads)
    if hasattr(readout, "linear_mid"):
        hidden = _of_own_head(readout.non_linearity(readout.linear_mid(hidden)), head, n_heads)
    return hidden.reshape(len(head), n_heads, -1)[torch.arange(len(head), device=head.device), head]


def _of_head(values: Tensor, head: Tensor) -> Tensor:
    return values.gather(1, head[:, None])[:, 0]


def _of_own_head(hidden: Tensor, head: Tensor, n_heads: int) -> Tensor:
    """Hidden units of other heads set to zero."""
    mask = torch.nn.functional.one_hot(head, n_heads).to(hidden.dtype)
    return (hidden.reshape(len(head), n_heads, -1) * mask[:, :, None]).reshape(hidden.shape)


def _scalars(rows: Tensor, irreps: Any) -> Tensor:
    parts = zip(irreps, irreps.slices(), strict=True)
    return torch.cat([rows[:, part] for (_, irrep), part in parts if irrep.l == 0 and irrep.p == 1], dim=1)
