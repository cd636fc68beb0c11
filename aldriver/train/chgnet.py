"""CHGNet for the training loop. The network and its graphs are ``potentials/``'s business.

The composition model is fixed; other energy references are met by a shift of the labels (``energies.py``). The last
angle update receives no gradient: nothing reads its result.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from chgnet.model import CHGNet
from torch import Tensor

from aldriver.core.errors import InputError
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.potentials.chgnet import N_ELEMENTS
from aldriver.potentials.network import frozen
from aldriver.train.base import BatchPrediction, TrainAdapter
from aldriver.train.chgnet_batch import GraphTensors, graph_tensors, join, outputs


class CHGNetAdapter(TrainAdapter):
    """A trainable copy of a CHGNet potential."""

    family = "chgnet"

    def graph(self, atoms: Atoms) -> GraphTensors:
        """Index tensors and bond vectors of a frame."""
        return graph_tensors(super().graph(atoms)).to(self._potential.device)

    def predict(self, graphs: Sequence[GraphTensors], *, training: bool) -> BatchPrediction:
        """Energy per atom (eV), forces (eV/Å), stress (GPa, chgnet's own unit) and moments (µB) of a batch."""
        angles = [len(g.angle_bonds) > 0 for g in graphs]
        if len(set(angles)) > 1:
            # frames without any angle skip the bond convolutions, which changes their energy: never in one batch
            first = sorted(range(len(graphs)), key=lambda k: not angles[k])
            n = sum(angles)
            halves = [self.predict([graphs[k] for k in part], training=training) for part in (first[:n], first[n:])]
            return _in_order(halves, first, [len(graphs[k].numbers) for k in first])
        module: Any = self.module
        with contextlib.nullcontext() if training else frozen(module):
            energy, forces, stress, magmoms = outputs(module, join(graphs), create_graph=training)
        counts = energy.new_tensor([len(g.numbers) for g in graphs])
        return BatchPrediction(energy=energy / counts, forces=forces, stress=stress * EV_A3_TO_GPA, magmoms=magmoms)

    def size(self, graph: GraphTensors) -> int:
        """Edges and angles of a frame."""
        return len(graph.vectors) + len(graph.angle_bonds)

    def reset(self, seed: int) -> None:
        """Weights as chgnet draws them for a new network; the composition model keeps its energies per element."""
        with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
            torch.manual_seed(seed)
            drawn = CHGNet(**self._potential.arch).state_dict()
        kept = {k: v for k, v in self.module.state_dict().items() if k.startswith("composition_model.")}
        self.module.load_state_dict(drawn | kept)

    def proxy(self, proxies: Mapping[str, str]) -> None:
        """Copy rows of the atom embedding; the energies per element stay each element's own."""
        rows = self.module.get_parameter("atom_embedding.embedding.weight")
        known = set(chemical_symbols[1 : N_ELEMENTS + 1])
        for element, source in proxies.items():
            if unknown := sorted({element, source} - known):
                raise InputError(f"train.proxies: CHGNet has no {', '.join(unknown)} (its elements are H to Pu)")
            with torch.no_grad():
                rows[atomic_numbers[element] - 1] = rows[atomic_numbers[source] - 1]


def _in_order(parts: Sequence[BatchPrediction], order: Sequence[int], sizes: Sequence[int]) -> BatchPrediction:
    """Parts whose frames are those of `order`, of `sizes` atoms, as one prediction of frames 0, 1, …"""
    back = sorted(range(len(order)), key=lambda k: order[k])

    def frames(values: list[Tensor]) -> Tensor:
        return torch.cat(values)[back]

    def atoms(values: list[Tensor]) -> Tensor:
        pieces = torch.cat(values).split(list(sizes))
        return torch.cat([pieces[k] for k in back])

    return BatchPrediction(
        energy=frames([p.energy for p in parts]),
        forces=atoms([p.forces for p in parts]),
        stress=frames([p.stress for p in parts]),
        magmoms=atoms([p.magmoms for p in parts if p.magmoms is not None]),
    )
