"""Batches of CHGNet frames whose forces and stress follow from one walk back to the bond vectors.

It owns the geometry of a batch and its derivatives; the network's layers are ``potentials/chgnet_forward.py``'s.

chgnet keeps one geometry per frame and walks back twice, once to positions and once to strains. Here all bond vectors d
of a batch are one tensor, and with g = dE/dd

    F_i = −Σ_(d from i) g + Σ_(d to i) g,      σ = (1/V) Σ_d d ⊗ g      (from d → d(1 + ε)),

which a training loss walks back through once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aldriver.potentials.chgnet_forward import site_outputs

if TYPE_CHECKING:
    from chgnet.graph import CrystalGraph
    from chgnet.model import CHGNet

COSINE_SCALE = 1.0 - 1e-6
"""chgnet's own guard of the arc cosine."""


@dataclass(frozen=True, kw_only=True)
class GraphTensors:
    """One frame (N atoms, E directed edges, U = E/2 bonds, A angles), or several joined.

    Attributes
    ----------
    numbers
        (N,) atomic numbers.
    vectors
        (E, 3) centre − neighbour, Å.
    atom_graph
        (E, 2) centre and neighbour of an edge.
    bond_of_edge
        (E,)
    edge_of_bond
        (U,) the edge that stands for a bond.
    angle_bonds
        (A, 3) centre, first and second bond of an angle.
    angle_edges
        (A, 2) first and second edge.
    atom_owner, edge_owner
        (N,) and (E,) frame of an atom and of an edge.
    volume
        (frames,) Å³.
    """

    numbers: Tensor
    vectors: Tensor
    atom_graph: Tensor
    bond_of_edge: Tensor
    edge_of_bond: Tensor
    angle_bonds: Tensor
    angle_edges: Tensor
    atom_owner: Tensor
    edge_owner: Tensor
    volume: Tensor

    def to(self, device: torch.device | str) -> GraphTensors:
        """The same on another device."""
        return GraphTensors(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class BatchedBases:
    """What ``site_outputs`` reads of a batch (the names are chgnet's ``BatchedGraph``)."""

    atomic_numbers: Tensor
    bond_bases_ag: Tensor
    bond_bases_bg: Tensor
    angle_bases: Tensor
    batched_atom_graph: Tensor
    batched_bond_graph: Tensor
    directed2undirected: Tensor


def graph_tensors(graph: CrystalGraph) -> GraphTensors:
    """Index and bond-vector tensors of a crystal graph; the vectors are taken in double precision, then rounded."""
    dtype = graph.lattice.dtype
    lattice = graph.lattice.detach().double()
    fractional = graph.atom_frac_coord.detach().double()
    atom_graph = graph.atom_graph.reshape(-1, 2).long()
    start, end = atom_graph.unbind(1)
    vectors = (fractional[start] - fractional[end] - graph.neighbor_image.double()) @ lattice
    angles = graph.bond_graph.reshape(-1, 5).long()
    return GraphTensors(
        numbers=graph.atomic_number.long(),
        vectors=vectors.to(dtype),
        atom_graph=atom_graph,
        bond_of_edge=graph.directed2undirected.long(),
        edge_of_bond=graph.undirected2directed.long(),
        angle_bonds=angles[:, [0, 1, 3]],
        angle_edges=angles[:, [2, 4]],
        atom_owner=torch.zeros(len(fractional), dtype=torch.long),
        edge_owner=torch.zeros(len(vectors), dtype=torch.long),
        volume=torch.linalg.det(lattice).abs().to(dtype).reshape(1),
    )


def join(items: Sequence[GraphTensors]) -> GraphTensors:
    """Several frames as one batch."""
    parts: dict[str, list[Tensor]] = {f.name: [] for f in fields(GraphTensors)}
    atoms = edges = bonds = 0
    for frame, item in enumerate(items):
        first = item.numbers.new_tensor([atoms, bonds, bonds])
        shifted = {
            "atom_graph": item.atom_graph + atoms,
            "bond_of_edge": item.bond_of_edge + bonds,
            "edge_of_bond": item.edge_of_bond + edges,
            "angle_bonds": item.angle_bonds + first,
            "angle_edges": item.angle_edges + edges,
            "atom_owner": item.atom_owner + frame,
            "edge_owner": item.edge_owner + frame,
        }
        for name, tensors in parts.items():
            tensors.append(shifted.get(name, getattr(item, name)))
        atoms, edges, bonds = atoms + len(item.numbers), edges + len(item.vectors), bonds + len(item.edge_of_bond)
    return GraphTensors(**{name: torch.cat(tensors) for name, tensors in parts.items()})


def outputs(model: CHGNet, batch: GraphTensors, *, create_graph: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B,) energies in eV, (N, 3) forces in eV/Å, (B, 3, 3) stress in eV/Å³ (tension positive), (N,) moments in µB.

    The frames of a batch have either all angles, or none (see ``CHGNetPotential.evaluate``).

    Parameters
    ----------
    create_graph
        Keep what a training loss needs to walk back to the weights; False gives tensors without history.
    """
    vectors = batch.vectors.detach().requires_grad_(True)
    with torch.enable_grad():
        sites = site_outputs(model, _bases(model, batch, vectors))
        site, magmoms = sites.energies, sites.magmoms
        (slope,) = torch.autograd.grad(site.sum(), vectors, create_graph=create_graph)
    if not create_graph:
        site, magmoms = site.detach(), magmoms.detach()
    n_atoms, n_frames = len(batch.numbers), len(batch.volume)
    start, end = batch.atom_graph.unbind(1)
    forces = _sum(slope, end, n_atoms) - _sum(slope, start, n_atoms)
    virial = _sum(batch.vectors[:, :, None] * slope[:, None, :], batch.edge_owner, n_frames)
    composition: Any = model.composition_model
    if composition is not None:
        site = site + composition.fc.weight.detach()[0][batch.numbers - 1]
    return _sum(site, batch.atom_owner, n_frames), forces, virial / batch.volume[:, None, None], magmoms


def _bases(model: CHGNet, batch: GraphTensors, vectors: Tensor) -> BatchedBases:
    length = vectors.norm(dim=1)
    expansion = model.bond_basis_expansion
    of_bond = length.index_select(0, batch.edge_of_bond)
    if len(batch.angle_bonds):
        unit = vectors / length[:, None]
        one, two = (unit.index_select(0, edge) for edge in batch.angle_edges.unbind(1))
        angles = model.angle_basis_expansion.fourier_expansion(torch.acos((one * two).sum(1) * COSINE_SCALE))
    else:
        angles = vectors.new_zeros(0)
    return BatchedBases(
        atomic_numbers=batch.numbers,
        bond_bases_ag=expansion.rbf_expansion_ag(of_bond),
        bond_bases_bg=expansion.rbf_expansion_bg(of_bond),
        angle_bases=angles,
        batched_atom_graph=batch.atom_graph,
        batched_bond_graph=batch.angle_bonds,
        directed2undirected=batch.bond_of_edge,
    )


def _sum(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """Sum of the rows that belong to each owner."""
    return values.new_zeros((n, *values.shape[1:])).index_add(0, owner, values)
