"""CHGNet's equations, batched and arranged so that forces, stress and their training gradients are cheap.

It owns the arithmetic only: the weights are those of a ``chgnet`` model, the graphs those of ``chgnet_graph.py``, and
the numbers those of chgnet's own ``forward`` to single precision. What is done with them is the caller's business.

Three rearrangements save work; none changes a formula (Deng et al., Nat. Mach. Intell. 5, 1031 (2023), Methods):

* a linear layer on concatenated features is the sum of linear layers on the parts, so atom and bond parts are
  multiplied once per atom or bond and then gathered, instead of once per edge or angle;
* forces and stress both follow from dE/d(bond vectors), so there is one backward walk instead of two;
* the last angle update is left out: nothing reads its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from chgnet.graph import CrystalGraph
    from chgnet.model import CHGNet

COSINE_SCALE = 1.0 - 1e-6
"""chgnet's own guard of the arc cosine."""


@dataclass(frozen=True, kw_only=True)
class GraphTensors:
    """One frame (N atoms, E directed edges, U = E/2 bonds, A angles), or several of them joined.

    Attributes
    ----------
    species
        (N,) atomic number − 1.
    vectors
        (E, 3) centre − neighbour, Å.
    centre, neighbour, bond
        (E,) atoms and bond of an edge.
    edge
        (U,) the edge that stands for a bond.
    angle_atom, angle_bond1, angle_edge1, angle_bond2, angle_edge2
        (A,) members of an angle.
    owner, edge_owner, bond_owner
        (N,), (E,), (U,) frame of each.
    volume
        (frames,) Å³.
    """

    species: Tensor
    vectors: Tensor
    centre: Tensor
    neighbour: Tensor
    bond: Tensor
    edge: Tensor
    angle_atom: Tensor
    angle_bond1: Tensor
    angle_edge1: Tensor
    angle_bond2: Tensor
    angle_edge2: Tensor
    owner: Tensor
    edge_owner: Tensor
    bond_owner: Tensor
    volume: Tensor

    def to(self, device: torch.device | str) -> GraphTensors:
        """The same on another device."""
        return GraphTensors(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the network says of a batch of B frames with N atoms in all.

    Attributes
    ----------
    energy
        (B,) total, eV, the composition model included.
    site_energy
        (N,) eV, without the composition model.
    forces
        (N, 3) eV/Å.
    stress
        (B, 3, 3) eV/Å³, tension positive.
    magmoms
        (N,) µB, absolute values.
    features
        (N, 64) inputs of the energy readout.
    """

    energy: Tensor
    site_energy: Tensor
    forces: Tensor
    stress: Tensor
    magmoms: Tensor
    features: Tensor


# which numbering an index refers to, so that joining frames can shift it
_COUNTS = {
    "centre": "species",
    "neighbour": "species",
    "angle_atom": "species",
    "bond": "edge",
    "angle_bond1": "edge",
    "angle_bond2": "edge",
    "edge": "centre",
    "angle_edge1": "centre",
    "angle_edge2": "centre",
    "owner": "volume",
    "edge_owner": "volume",
    "bond_owner": "volume",
}


def graph_tensors(graph: CrystalGraph) -> GraphTensors:
    """Index and bond-vector tensors of a crystal graph."""
    dtype = graph.lattice.dtype
    lattice = graph.lattice.detach().double()
    centre, neighbour = graph.atom_graph.reshape(-1, 2).long().T.contiguous()
    fractional = graph.atom_frac_coord.detach().double()
    vectors = (fractional[centre] - fractional[neighbour] - graph.neighbor_image.double()) @ lattice
    angles = graph.bond_graph.reshape(-1, 5).long().T.contiguous()
    edge = graph.undirected2directed.long()
    zeros = torch.zeros_like
    return GraphTensors(
        species=graph.atomic_number.long() - 1,
        vectors=vectors.to(dtype),
        centre=centre,
        neighbour=neighbour,
        bond=graph.directed2undirected.long(),
        edge=edge,
        angle_atom=angles[0],
        angle_bond1=angles[1],
        angle_edge1=angles[2],
        angle_bond2=angles[3],
        angle_edge2=angles[4],
        owner=zeros(graph.atomic_number, dtype=torch.long),
        edge_owner=zeros(centre),
        bond_owner=zeros(edge),
        volume=torch.linalg.det(lattice).abs().to(dtype).reshape(1),
    )


def join(items: Sequence[GraphTensors]) -> GraphTensors:
    """Several frames as one batch."""
    if len(items) == 1:
        return items[0]
    parts: dict[str, list[Tensor]] = {f.name: [] for f in fields(GraphTensors)}
    offsets = dict.fromkeys(("species", "edge", "centre", "volume"), 0)
    for item in items:
        for name, tensors in parts.items():
            tensor = getattr(item, name)
            tensors.append(tensor + offsets[_COUNTS[name]] if name in _COUNTS else tensor)
        for name in offsets:
            offsets[name] += len(getattr(item, name))
    return GraphTensors(**{name: torch.cat(tensors) for name, tensors in parts.items()})


def check_supported(model: CHGNet) -> None:
    """Refuse networks that differ from the published ones in ways this arithmetic does not cover.

    Raises
    ------
    InputError
        Naming the setting.
    """
    wanted: dict[str, Any] = {
        "mlp_first": (True,),
        "conv_norm": (None,),
        "conv_dropout": (0,),
        "mlp_dropout": (0,),
        "update_bond": (True,),
        "update_angle": (True,),
        "gMLP_norm": (None, "layer"),
        "readout_norm": (None, "layer"),
    }
    for key, allowed in wanted.items():
        value = model.model_args.get(key, allowed[0])
        if value not in allowed:
            raise InputError(f"CHGNet with {key}={value!r} is not supported; the published models have {allowed[0]!r}")


def forward(model: CHGNet, batch: GraphTensors, *, create_graph: bool = False) -> Output:
    """Energies, forces, stress, moments and features of a batch.

    Parameters
    ----------
    model
        One that :func:`check_supported` accepts.
    create_graph
        Keep what a training loss needs to walk back to the weights; False gives tensors without history.
    """
    vectors = batch.vectors.detach().requires_grad_(True)
    with torch.enable_grad():
        site, magmoms, features = _site_energies(model, batch, vectors)
        (slope,) = torch.autograd.grad(site.sum(), vectors, create_graph=create_graph)
    if not create_graph:
        site, magmoms, features = site.detach(), magmoms.detach(), features.detach()
    n_atoms, n_frames = len(batch.species), len(batch.volume)
    # a bond vector is centre − neighbour, so the force on the centre is −dE/dd and that on the neighbour +dE/dd
    forces = _sum(-slope, batch.centre, n_atoms).index_add(0, batch.neighbour, slope)
    # d → d(1 + ε): σ = (1/V) dE/dε = (1/V) Σ d ⊗ dE/dd
    virial = _sum(batch.vectors[:, :, None] * slope[:, None, :], batch.edge_owner, n_frames)
    energy = _sum(site, batch.owner, n_frames)
    if model.composition_model is not None:
        reference = model.composition_model.fc.weight.detach()[0]
        energy = energy + _sum(reference[batch.species], batch.owner, n_frames)
    return Output(
        energy=energy,
        site_energy=site,
        forces=forces,
        stress=virial / batch.volume[:, None, None],
        magmoms=magmoms,
        features=features,
    )


def _site_energies(model: CHGNet, batch: GraphTensors, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) energies, (N,) moments and (N, 64) features from (E, 3) bond vectors."""
    length = vectors.norm(dim=1)
    basis = model.bond_basis_expansion
    of_bond = length.index_select(0, batch.edge)
    radial = basis.rbf_expansion_ag(of_bond)
    bond = model.bond_embedding(radial)
    edge_weight = model.bond_weights_ag(radial).index_select(0, batch.bond)
    angles = len(batch.angle_atom) > 0
    if angles:
        short = model.bond_weights_bg(basis.rbf_expansion_bg(of_bond))
        weight = short.index_select(0, batch.angle_bond1) * short.index_select(0, batch.angle_bond2)
        angle = _angle_features(model, batch, vectors / length[:, None])
    keep = _bonds_to_update(batch) if angles else None
    atom = model.atom_embedding(batch.species)
    last = model.n_conv - 1
    magmoms = atom
    for i, convolution in enumerate(model.atom_conv_layers):
        if i == last:
            magmoms = model.site_wise(atom).abs().view(-1)
        parts = [(atom, batch.centre), (bond, batch.bond), (atom, batch.neighbour)]
        message = _gated(convolution.twoBody_atom, parts) * edge_weight
        atom = convolution.mlp_out(_sum(message, batch.centre, len(atom))) + atom
        if not angles or i == last:
            continue
        layer = model.bond_conv_layers[i]
        message = _gated(layer.twoBody_bond, _angle_parts(batch, atom, bond, angle)) * weight
        update = layer.mlp_out(_sum(message, batch.angle_bond1, len(bond)))
        bond = (update if keep is None else update * keep) + bond
        if i < last - 1:
            angle = _gated(model.angle_layers[i].twoBody_bond, _angle_parts(batch, atom, bond, angle)) + angle
    if model.readout_norm is not None:
        atom = model.readout_norm(atom)
    return model.mlp(atom).view(-1), magmoms, atom


def _angle_features(model: CHGNet, batch: GraphTensors, unit: Tensor) -> Tensor:
    """(A, 64) embedded Fourier series of the angles."""
    one, two = unit.index_select(0, batch.angle_edge1), unit.index_select(0, batch.angle_edge2)
    angle = torch.acos((one * two).sum(1) * COSINE_SCALE)
    harmonics = torch.outer(angle, model.angle_basis_expansion.fourier_expansion.frequencies)
    constant = torch.full_like(angle, math.sqrt(0.5))[:, None]
    series = torch.cat([constant, torch.sin(harmonics), torch.cos(harmonics)], dim=1) / math.sqrt(math.pi)
    return model.angle_embedding(series)


def _angle_parts(batch: GraphTensors, atom: Tensor, bond: Tensor, angle: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    return [(bond, batch.angle_bond1), (bond, batch.angle_bond2), (angle, None), (atom, batch.angle_atom)]


def _gated(module: nn.Module, parts: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
    """chgnet's ``GatedMLP`` on the concatenation of the gathered `parts`, without making the concatenation.

    Core and gate share their input, so their first layers are one product.
    """
    core = [layer for layer in module.mlp_core.layers if isinstance(layer, nn.Linear)]
    gate = [layer for layer in module.mlp_gate.layers if isinstance(layer, nn.Linear)]
    weight = torch.cat([core[0].weight, gate[0].weight])
    bias: Tensor | None = torch.cat([core[0].bias, gate[0].bias])
    total: Tensor | None = None
    column = 0
    for tensor, index in parts:
        width = tensor.shape[1]
        product = functional.linear(tensor, weight[:, column : column + width], bias if total is None else None)
        if index is not None:
            product = product.index_select(0, index)
        total = product if total is None else total + product
        column += width
    assert total is not None
    half = core[0].out_features
    if len(core) == 2:
        total = functional.silu(total)
        c, g = core[1](total[:, :half]), gate[1](total[:, half:])
    else:
        c, g = total[:, :half], total[:, half:]
    if module.norm is not None:
        c, g = module.bn1(c), module.bn2(g)
    return functional.silu(c) * torch.sigmoid(g)


def _bonds_to_update(batch: GraphTensors) -> Tensor | None:
    """(U, 1) mask, None when all: a frame without angles skips the bond convolution, whose output may have a bias."""
    with_angles = torch.zeros_like(batch.volume)
    with_angles[batch.owner[batch.angle_atom]] = 1.0
    return None if bool(with_angles.all()) else with_angles[batch.bond_owner][:, None]


def _sum(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """Sum of the rows that belong to each owner."""
    return values.new_zeros((n, *values.shape[1:])).index_add(0, owner, values)
