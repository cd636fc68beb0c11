"""CHGNet for the training loop. The network and its graphs are ``potentials/``'s business.

Magnetic moments are left out of the loss: labels rarely carry them (and a missing moment must not read as zero), so
chgnet's ``site_wise`` head keeps the foundation's weights. The composition model is fixed; other energy references are
met by a shift of the labels (``energies.py``). The last angle update receives no gradient: nothing reads its result.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from ase import Atoms
from chgnet.model import CHGNet

from aldriver.core.errors import InputError
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.potentials.base import Potential
from aldriver.potentials.chgnet import CHGNetPotential
from aldriver.train.base import BatchPrediction, TrainAdapter
from aldriver.train.chgnet_batch import GraphTensors, energy_forces_stress, graph_tensors, join
from aldriver.train.strategy import select_parameters

CONVOLUTIONS = ("atom_conv_layers", "bond_conv_layers")
NEVER = ("composition_model", "site_wise")


class CHGNetAdapter(TrainAdapter):
    """A trainable copy of a CHGNet potential."""

    family = "chgnet"

    def __init__(self, start: Potential) -> None:
        if not isinstance(start, CHGNetPotential):
            raise InputError(f"{start.name}: not a CHGNet potential")
        self._potential = start.copy()
        self.module: CHGNet = self._potential.module

    def graph(self, atoms: Atoms) -> GraphTensors:
        """Index tensors and bond vectors of a frame.

        Raises
        ------
        InputError
            When the frame has no volume.
        """
        if atoms.cell.rank < 3:
            raise InputError(f"{atoms.get_chemical_formula()}: a training frame needs three cell vectors")
        return graph_tensors(self._potential.graph(atoms)).to(self._potential.device)

    def predict(self, graphs: Sequence[GraphTensors], *, training: bool) -> BatchPrediction:
        """Energy per atom (eV), forces (eV/Å) and stress (GPa, chgnet's own unit) of a batch."""
        if len({len(g.angle_bonds) > 0 for g in graphs}) > 1:
            # frames without any angle skip the bond convolutions, which changes their energy: never in one batch
            singles = [self.predict([g], training=training) for g in graphs]
            return BatchPrediction(
                energy=torch.cat([p.energy for p in singles]),
                forces=torch.cat([p.forces for p in singles]),
                stress=torch.cat([p.stress for p in singles]),
            )
        energy, forces, stress = energy_forces_stress(self.module, join(graphs), create_graph=training)
        counts = energy.new_tensor([len(g.numbers) for g in graphs])
        return BatchPrediction(energy=energy / counts, forces=forces, stress=stress * EV_A3_TO_GPA)

    def size(self, graph: GraphTensors) -> int:
        """Edges and angles of a frame."""
        return len(graph.vectors) + len(graph.angle_bonds)

    def set_trainable(self, strategy: str) -> list[str]:
        """Freeze all but what the strategy trains."""
        return select_parameters(self.module, strategy, convolutions=CONVOLUTIONS, never=NEVER)

    def potential(self, name: str) -> CHGNetPotential:
        """The potential with today's weights."""
        return self._potential.with_module(copy.deepcopy(self.module), name=name)
