"""What a MACE network reads of a configuration, and of several at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aldriver.potentials.neighbours import Pairs


@dataclass(frozen=True, kw_only=True)
class MACEGraph:
    """One configuration of N atoms with E directed pairs.

    Attributes
    ----------
    species
        (N,) rows of the network's table of elements.
    edge_index
        (2, E) sender and receiver.
    vectors
        (E, 3) Å, from sender to receiver; computed in double precision, kept in the network's.
    volume
        Å³.
    head
        Which of the network's heads is meant.
    """

    species: Tensor
    edge_index: Tensor
    vectors: Tensor
    volume: float
    head: int

    def __len__(self) -> int:
        return len(self.species)


@dataclass(frozen=True, kw_only=True)
class MACEBatch:
    """Several graphs as one; names as in mace, ``batch`` is the graph of each atom and ``head`` one per atom."""

    node_attrs: Tensor
    edge_index: Tensor
    vectors: Tensor
    batch: Tensor
    head: Tensor
    species: Tensor
    counts: Tensor
    volumes: Tensor


def mace_graph(
    species: NDArray[np.int64], pairs: Pairs, *, head: int, dtype: torch.dtype, device: torch.device
) -> MACEGraph:
    """Graph of a configuration whose elements are given as rows of the network's table."""
    vectors = (pairs.frac[pairs.j] + pairs.shift - pairs.frac[pairs.i]) @ pairs.cell
    return MACEGraph(
        species=torch.from_numpy(species).to(device),
        edge_index=torch.from_numpy(np.stack([pairs.i, pairs.j])).to(device),
        vectors=torch.from_numpy(vectors).to(device, dtype),
        volume=float(abs(np.linalg.det(pairs.cell))),
        head=head,
    )


def join(graphs: Sequence[MACEGraph], n_elements: int) -> MACEBatch:
    """A batch of graphs; its vectors are new tensors."""
    device = graphs[0].vectors.device
    counts = torch.tensor([len(g) for g in graphs], device=device)
    offsets = torch.cumsum(counts, 0) - counts
    species = torch.cat([g.species for g in graphs])
    vectors = torch.cat([g.vectors for g in graphs])
    return MACEBatch(
        node_attrs=torch.nn.functional.one_hot(species, n_elements).to(vectors.dtype),
        edge_index=torch.cat([g.edge_index + offsets[k] for k, g in enumerate(graphs)], dim=1),
        vectors=vectors,
        batch=torch.repeat_interleave(torch.arange(len(graphs), device=device), counts),
        head=torch.repeat_interleave(torch.tensor([g.head for g in graphs], device=device), counts),
        species=species,
        counts=counts,
        volumes=vectors.new_tensor([g.volume for g in graphs]),
    )
