"""MACE for the training loop. The network and its graphs are ``potentials/``'s business.

A frame whose ``info['head']`` names a head of the network trains that head, others the head the potential speaks with:
multihead replay is a potential made by :func:`with_heads` and replayed frames marked with the foundation's head.
Reference energies, scale and shift are fixed; other energy references are met by a shift of the labels
(``energies.py``), or by a head of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.potentials.base import Potential
from aldriver.potentials.mace import MACEPotential
from aldriver.potentials.mace_forward import energy_forces_stress
from aldriver.potentials.mace_graph import MACEGraph, join
from aldriver.potentials.mace_surgery import drawn_anew, with_elements, with_heads
from aldriver.potentials.network import frozen
from aldriver.train.base import BatchPrediction, TrainAdapter

HEADS = ("pt_head", "Default")
"""The foundation's head and the refined one, as mace names them."""
__all__ = ["LAYERS", "MACEAdapter", "with_heads"]

LAYERS = {
    "node_embedding": "embedding of the elements",
    "interactions": "messages: linear maps, radial network, self-connection",
    "products": "symmetric contractions and the linear map after them",
    "readouts": "energies of each layer, by head",
}
"""Direct children of the network that hold weights, in the order Radova et al. (2025) count them to freeze."""


class MACEAdapter(TrainAdapter):
    """A trainable copy of a MACE potential."""

    family = "mace"
    _potential: MACEPotential

    def __init__(self, start: Potential) -> None:
        if not isinstance(start, MACEPotential):
            raise InputError(f"{start.name}: not a MACE potential")
        super().__init__(start)

    def graph(self, atoms: Atoms) -> MACEGraph:
        """Pairs of a frame, and its head.

        Raises
        ------
        InputError
            When the frame has no volume, or its head is not one of the network's.
        """
        graph: MACEGraph = super().graph(atoms)
        head, heads = atoms.info.get("head"), self._potential.heads
        if head is None or (len(heads) == 1 and head == "Default"):
            return graph
        if head not in heads:
            raise InputError(
                f"a training frame ({atoms.get_chemical_formula()}) is for head '{head}', "
                f"but {self._potential.name} has {', '.join(heads)}"
            )
        return replace(graph, head=heads.index(head))

    def predict(self, graphs: Sequence[MACEGraph], *, training: bool) -> BatchPrediction:
        """Energy per atom (eV), forces (eV/Å) and stress (GPa) of a batch."""
        potential = self._potential
        batch = join(graphs, len(potential.numbers))
        with contextlib.nullcontext() if training else frozen(self.module):
            sites, forces, stress, _ = energy_forces_stress(self.module, batch, create_graph=training)
        references = torch.tensor([potential.reference_energy(g) for g in graphs], dtype=torch.float64)
        energy = torch.zeros(len(graphs), dtype=torch.float64, device=sites.device)
        energy = energy.index_add(0, batch.batch, sites.double()) + references.to(sites.device)
        return BatchPrediction(
            energy=(energy / batch.counts).to(sites.dtype), forces=forces, stress=stress * EV_A3_TO_GPA
        )

    def size(self, graph: MACEGraph) -> int:
        """Directed pairs of a frame."""
        return len(graph.vectors)

    def reset(self, seed: int) -> None:
        """Weights as mace draws them for a new network; reference energies, scale and shift stay."""
        drawn = drawn_anew(self._potential, seed)
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(drawn[name])

    def proxy(self, proxies: Mapping[str, str]) -> None:
        """Let elements start from the rows of others; elements the network did not know are added."""
        self._potential = with_elements(self._potential, proxies).copy()

    def separate_heads(self, names: Sequence[str] = HEADS[:1], *, refined: bool = True) -> None:
        """Make heads of the one that is refined; a network that has those of `names` already is left."""
        if not set(names) <= set(self._potential.heads):
            self._potential = with_heads(self._potential, [*names, *([HEADS[1]] if refined else [])]).copy()
