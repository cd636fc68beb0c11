"""SevenNet: energies, forces and stress from one walk back to the edge vectors.

Its network is ``sevennet_network.py``'s. Importable only where ``sevenn`` is: it needs an e3nn that other families
exclude, so it has an environment of its own (``make setup-sevennet``) and is reached from others through ``remote.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from aldriver.core.errors import InputError
from aldriver.core.units import matrix_to_voigt
from aldriver.potentials.base import Prediction
from aldriver.potentials.families import SEVENNET_VERSIONS
from aldriver.potentials.neighbours import Pairs
from aldriver.potentials.network import NetworkPotential, frozen, to_numpy
from aldriver.potentials.pieces import PAIRS
from aldriver.potentials.sevennet_network import SevenNetwork, SiteOutputs, arch_of, build_network, site_outputs

MANY = 28_000
"""Pairs beyond which messages are made in pieces on a CPU: 520 atoms of Cu. Up to there one pass is a third faster, and
takes 1.1 times the memory of sevenn's own calculator at most."""


@dataclass(frozen=True)
class EdgeGraph:
    """One configuration, or several joined.

    Attributes
    ----------
    types
        (N,) places of the atoms' elements in the one-hot.
    edges
        (2, E) centre and neighbour of each directed edge.
    vectors
        (E, 3) Å, from centre to neighbour.
    counts
        Atoms of each configuration.
    volumes
        (B,) Å³.
    """

    types: Tensor
    edges: Tensor
    vectors: Tensor
    counts: tuple[int, ...]
    volumes: Tensor

    def __len__(self) -> int:
        return len(self.types)

    @property
    def owner(self) -> Tensor:
        """(N,) configuration each atom belongs to."""
        counts = torch.tensor(self.counts, device=self.types.device)
        return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)


class SevenNetPotential(NetworkPotential):
    """A SevenNet model as a potential.

    Energies are total energies on the scale of raw (uncorrected) DFT. Features are the inputs of the energy readout per
    atom, which are invariant.
    """

    family = "sevennet"
    module: SevenNetwork
    batch_atoms = (64, 1024)

    def __init__(
        self,
        module: SevenNetwork,
        *,
        name: str = "sevennet",
        device: str = "cpu",
        dtype: str = "float32",
        skin: float = 1.0,
    ) -> None:
        super().__init__(module, name=name, device=device, dtype=dtype, skin=skin)
        species = self.arch["species"]
        self.cutoff = float(self.arch["cutoff"])
        self.elements = frozenset(chemical_symbols[z] for z in species)
        self._place = np.full(len(chemical_symbols), -1)
        self._place[species] = np.arange(len(species))

    @classmethod
    def foundation(cls, version: str, device: str = "cpu", *, dtype: str = "float32") -> SevenNetPotential:
        """SevenNet-0 (11 July 2024), as shipped in the sevenn package; nothing is ever downloaded.

        Raises
        ------
        InputError
            When there is no such version or device, or the weights are missing from the package.
        """
        if version not in SEVENNET_VERSIONS:
            raise InputError(f"sevennet:{version}: no such version; there is {', '.join(SEVENNET_VERSIONS)}")
        from sevenn._const import SEVENNET_0_11Jul2024
        from sevenn.checkpoint import SevenNetCheckpoint

        if not Path(SEVENNET_0_11Jul2024).is_file():
            raise InputError(f"{SEVENNET_0_11Jul2024}: missing from the installed sevenn package; reinstall sevenn")
        checkpoint = SevenNetCheckpoint(SEVENNET_0_11Jul2024)  # a pickle, trusted as the package it comes with
        # the file's weights are in the order of an older version: loaded as they are, they fit and are wrong by 0.1 eV;
        # sevenn's own model has them in today's order
        state = checkpoint.build_model().state_dict()
        return cls.from_state(arch_of(checkpoint.config), state, name=f"sevennet:{version}", device=device, dtype=dtype)

    @property
    def arch(self) -> dict[str, Any]:
        """sevenn's model keys, and ``species``: atomic numbers in the order of the one-hot."""
        return dict(self.module.arch)

    @classmethod
    def from_state(
        cls,
        arch: dict[str, Any],
        state: Mapping[str, Tensor],
        *,
        name: str,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> SevenNetPotential:
        """Build from an architecture and weights, without any pickle."""
        network = build_network(arch, state, dtype=torch.float64 if dtype == "float64" else torch.float32)
        return cls(network, name=name, device=device, dtype=dtype)

    def graph_of(self, numbers: NDArray[np.int64], pairs: Pairs) -> EdgeGraph:
        """Edges with their vectors."""
        vectors = (pairs.frac[pairs.j] + pairs.shift - pairs.frac[pairs.i]) @ pairs.cell
        return EdgeGraph(
            types=torch.from_numpy(self._place[numbers]).to(self.device),
            edges=torch.from_numpy(np.stack([pairs.i, pairs.j])).to(self.device),
            vectors=torch.from_numpy(vectors).to(self.device, self.dtype),
            counts=(len(numbers),),
            volumes=torch.tensor([abs(np.linalg.det(pairs.cell))], device=self.device, dtype=self.dtype),
        )

    def predict_graphs(
        self, graphs: Sequence[EdgeGraph], *, stress: bool = True, features: bool = False
    ) -> list[Prediction]:
        """Predict graphs as one batch."""
        batch = join(graphs)
        with frozen(self.module):
            sites, forces, virials = energies_and_derivatives(self.module, batch)
        energies = sites.energies.detach().double().split(batch.counts)
        rows = sites.inputs.detach().split(batch.counts)
        predictions = []
        for k, force in enumerate(forces.split(batch.counts)):
            tensor = to_numpy(virials[k] / batch.volumes[k])
            predictions.append(
                Prediction(
                    # summed in double: single precision would leave 1e-4 eV of noise in a cell of 100 atoms
                    energy=float(energies[k].sum()),
                    forces=to_numpy(force),
                    stress=matrix_to_voigt(tensor) if stress else None,
                    features=to_numpy(rows[k]) if features else None,
                )
            )
        return predictions

    def last_layer_features(self, frames: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        """(N, D) per frame: φ with site energy = φ·w + b, w the last layer's weights and b the element's energy shift.

        The element's energy scale and the layer's own normalisation are in φ.
        """
        self.check_elements(frames)
        rescale = self.module.get_submodule("rescale_atomic_energy")
        found = []
        for atoms in frames:
            graph = self.graph(atoms)
            with frozen(self.module), torch.no_grad():
                hidden = site_outputs(self.module, graph.types, graph.edges, graph.vectors).hidden
                scale = rescale.scale if len(rescale.scale) == 1 else rescale.scale[graph.types, None]
                found.append(to_numpy(hidden * scale / hidden.shape[1] ** 0.5))
        return found


def join(graphs: Sequence[EdgeGraph]) -> EdgeGraph:
    """Several configurations as one, atoms and edges in order."""
    if len(graphs) == 1:
        return graphs[0]
    counts = tuple(n for g in graphs for n in g.counts)
    starts = np.cumsum([0, *(len(g) for g in graphs)])
    return EdgeGraph(
        types=torch.cat([g.types for g in graphs]),
        edges=torch.cat([g.edges + int(start) for g, start in zip(graphs, starts, strict=False)], dim=1),
        vectors=torch.cat([g.vectors for g in graphs]),
        counts=counts,
        volumes=torch.cat([g.volumes for g in graphs]),
    )


def energies_and_derivatives(
    module: SevenNetwork, batch: EdgeGraph, *, create_graph: bool = False
) -> tuple[SiteOutputs, Tensor, Tensor]:
    """Per-atom outputs, (N, 3) forces (eV/Å) and (B, 3, 3) virials V·σ (eV, tension positive).

    With g = ∂E/∂r of each edge vector r (centre to neighbour): F_i = Σ_(edges of i) g − Σ_(edges to i) g, and
    V·σ = Σ r ⊗ g over the edges of a configuration, which is symmetric for an invariant energy.
    """
    vectors = batch.vectors.detach().requires_grad_(True)
    pieces = PAIRS if len(vectors) > MANY and vectors.device.type == "cpu" and not create_graph else None
    sites = site_outputs(module, batch.types, batch.edges, vectors, largest=pieces)
    (gradient,) = torch.autograd.grad(
        sites.energies.sum(), [vectors], create_graph=create_graph, materialize_grads=True
    )
    centre, neighbour = batch.edges
    forces = gradient.new_zeros((len(batch), 3)).index_add(0, centre, gradient).index_add(0, neighbour, -gradient)
    outer = vectors.unsqueeze(2) * gradient.unsqueeze(1)
    virials = outer.new_zeros((len(batch.counts), 3, 3)).index_add(0, batch.owner[centre], outer)
    return sites, forces, (virials + virials.transpose(1, 2)) / 2
