"""MACE along a trajectory. On a GPU the neighbour list stays there: a step sends N positions, not the pairs.

The search itself is ``neighbours.py``'s, on the CPU, and rare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from aldriver.potentials.base import Prediction, Stepper
from aldriver.potentials.mace_graph import MACEGraph
from aldriver.potentials.neighbours import NeighbourList
from aldriver.potentials.network import check_finite, without_stress

if TYPE_CHECKING:
    from aldriver.potentials.mace import MACEPotential


class MACEStepper(Stepper):
    """Evaluates one cell again and again.

    Parameters
    ----------
    list_on_device
        Keep the pairs on the network's device and find those within the cutoff there; default: not on a CPU. Both
        ways give the same pairs in the same order.
    """

    def __init__(self, potential: MACEPotential, atoms: Atoms, *, list_on_device: bool | None = None) -> None:
        self.potential, self.numbers = potential, atoms.numbers.copy()
        self.neighbours = NeighbourList(potential.cutoff, pbc=atoms.pbc, skin=potential.skin)
        on_cpu = potential.device.type == "cpu"
        self._resident = ResidentPairs(potential, self) if (list_on_device or not on_cpu) else None

    def __call__(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        """Prediction of the cell."""
        graph = self.graph(positions, cell)
        prediction = self.potential.predict_graphs([graph], stress=stress, features=features)[0]
        return without_stress(prediction) if stress and np.linalg.matrix_rank(cell) < 3 else prediction

    def features(self, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features alone, in a forward pass."""
        return self.potential.features_of(self.graph(positions, cell))

    def graph(self, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> MACEGraph:
        """What the network reads of this step."""
        check_finite(positions, cell)
        if self._resident is not None:
            return self._resident(positions, cell)
        return self.potential.graph_of(self.numbers, self.neighbours(positions, cell))


class ResidentPairs:
    """Pairs within cutoff + skin on the network's device; vectors in double precision, as ``mace_graph`` makes them."""

    def __init__(self, potential: MACEPotential, stepper: MACEStepper) -> None:
        self._potential, self._neighbours = potential, stepper.neighbours
        self._head = potential.heads.index(potential.head)
        self._species = self._send(potential.rows(stepper.numbers))
        self._searches = 0

    def __call__(self, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> MACEGraph:
        """Graph of the pairs within the cutoff."""
        frac, images, box = self._neighbours.update(positions, cell)
        if self._neighbours.searches != self._searches:
            i, j, shift = self._neighbours.pairs_with_skin
            self._edges, self._shift = self._send(np.stack([i, j])), self._send(shift)
            self._searches = self._neighbours.searches
        at, moved, cell_there = self._send(frac), self._send(images), self._send(box)
        i, j = self._edges
        vectors = (at[j] - at[i] + (self._shift + moved[j] - moved[i])) @ cell_there
        near = torch.linalg.vector_norm(vectors, dim=1) < self._neighbours.cutoff
        return MACEGraph(
            species=self._species,
            edge_index=self._edges[:, near],
            vectors=vectors[near].to(self._potential.dtype),
            volume=float(abs(np.linalg.det(box))),
            head=self._head,
        )

    def _send(self, array: NDArray[np.float64] | NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._potential.device)
