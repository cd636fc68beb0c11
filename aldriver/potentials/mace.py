"""MACE: energies, forces and stress of a network rebuilt from plain JSON and weights.

Where such networks come from is the business of ``mace_convert.py``, how they are changed that of ``mace_surgery.py``,
how they are trained that of ``train/``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor, nn

from aldriver.core.errors import InputError
from aldriver.core.units import EV_A3_TO_GPA, matrix_to_voigt
from aldriver.potentials.base import Prediction, Stepper
from aldriver.potentials.last_layer import forces_of_inputs
from aldriver.potentials.mace_arch import arch_of, build_module
from aldriver.potentials.mace_forward import (
    energy_forces_stress,
    forces_of_vectors,
    invariants,
    last_inputs,
    site_outputs,
)
from aldriver.potentials.mace_graph import MACEGraph, join, mace_graph
from aldriver.potentials.mace_pieces import in_pieces
from aldriver.potentials.mace_stepper import MACEStepper
from aldriver.potentials.neighbours import Pairs
from aldriver.potentials.network import NetworkPotential, frozen, to_numpy


class MACEPotential(NetworkPotential):
    """A MACE network (ScaleShiftMACE) as a potential.

    Energies are on the scale of the data the network was trained on, as a rule uncorrected DFT energies; features are
    the scalars of the node features of every layer and the hidden units of the readouts.

    Parameters
    ----------
    module
        As ``mace_arch.build_module`` makes it.
    arch
        Its architecture; asked of the module when not given.
    head
        Which of the network's heads is meant; may be left out where there is but one.

    Attributes
    ----------
    heads, head
        All heads of the network, and the one this potential gives.
    origin
        Where a converted model comes from.

    Raises
    ------
    InputError
        When there is no such head, or several and none was chosen.
    """

    family = "mace"
    batch_atoms = (128, 2048)

    def __init__(
        self,
        module: nn.Module,
        *,
        arch: Mapping[str, Any] | None = None,
        head: str | None = None,
        name: str = "mace",
        device: str = "cpu",
        dtype: str = "float32",
        skin: float = 1.0,
    ) -> None:
        self.origin: dict[str, Any] = {}
        self.symmetrix_json: str | None = None
        self._arch = dict(arch if arch is not None else arch_of(module))
        self.heads: tuple[str, ...] = tuple(self._arch["heads"])
        self.head = chosen_head(self.heads, head, name)
        references: Any = module.atomic_energies_fn
        energies = references.atomic_energies.double()  # kept so: single precision would cost 1e-4 eV of 1000 eV
        super().__init__(module, name=name, device=device, dtype=dtype, skin=skin)
        references.atomic_energies = energies.to(self.device)
        self.numbers = [int(z) for z in self._arch["atomic_numbers"]]
        self.elements = frozenset(chemical_symbols[z] for z in self.numbers)
        self.cutoff = float(self._arch["r_max"])
        self._row = np.full(len(chemical_symbols), -1, dtype=np.int64)
        self._row[self.numbers] = np.arange(len(self.numbers))
        self._e0 = np.atleast_2d(energies.detach().cpu().numpy())

    @property
    def arch(self) -> dict[str, Any]:
        """Arguments of ``ScaleShiftMACE`` without reference energies, scale and shift; and the head."""
        return self._arch | {"head": self.head}

    @classmethod
    def from_state(
        cls,
        arch: dict[str, Any],
        state: Mapping[str, Tensor],
        *,
        name: str,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        """Build from architecture and weights.

        Raises
        ------
        InputError
            When the architecture names what this version does not know.
        RuntimeError
            When the weights do not fit.
        """
        rest = {key: value for key, value in arch.items() if key != "head"}
        return cls(build_module(rest, state), arch=rest, head=arch.get("head"), name=name, device=device, dtype=dtype)

    def with_module(self, module: nn.Module, name: str | None = None) -> Self:
        """A potential of another network of this architecture, with the same settings; its fingerprint is its own."""
        return self._with(module, name=name or self.name)

    def with_head(self, head: str) -> Self:
        """The same network read by another of its heads.

        Raises
        ------
        InputError
            When there is no such head.
        """
        return self._with(copy.deepcopy(self.module), head=head)

    def astype(self, dtype: str) -> Self:
        """The same network in ``float32`` or ``float64``."""
        return self._with(copy.deepcopy(self.module), dtype=dtype)

    def _with(self, module: nn.Module, **changes: Any) -> Self:
        settings: dict[str, Any] = {
            "name": self.name,
            "head": self.head,
            "dtype": self.precision,
            "skin": self.skin,
        } | changes
        return type(self)(module, arch=self._arch, device=str(self.device), **settings)

    @property
    def atomic_energies(self) -> dict[str, float]:
        """E0 by element, eV, of this potential's head."""
        row = self._e0[self.heads.index(self.head)]
        return {chemical_symbols[z]: float(e) for z, e in zip(self.numbers, row, strict=True)}

    def reference_energy(self, graph: MACEGraph) -> float:
        """Sum of E0 over the atoms of a graph, eV, of the graph's head."""
        return float(self._e0[graph.head][graph.species.cpu().numpy()].sum())

    def e0_sum(self, numbers: NDArray[np.int64]) -> float:
        """Sum of E0 over atoms of these atomic numbers, eV, of this potential's head."""
        return float(self._e0[self.heads.index(self.head)][self.rows(numbers)].sum())

    def graph_of(self, numbers: NDArray[np.int64], pairs: Pairs) -> MACEGraph:
        """Graph with this potential's head.

        Raises
        ------
        InputError
            When there are elements the network does not know.
        """
        head = self.heads.index(self.head)
        return mace_graph(self.rows(numbers), pairs, head=head, dtype=self.dtype, device=self.device)

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the network's table of elements.

        Raises
        ------
        InputError
            When there are elements the network does not know.
        """
        rows = self._row[numbers]
        if (rows < 0).any():
            unknown = ", ".join(sorted({chemical_symbols[z] for z in numbers[rows < 0]}))
            raise InputError(f"{self.name} does not know {unknown}")
        return rows

    def predict_graphs(
        self, graphs: Sequence[MACEGraph], *, stress: bool = True, features: bool = False
    ) -> list[Prediction]:
        """Predict graphs as one batch."""
        batch = join(graphs, len(self.numbers))
        with frozen(self.module), in_pieces(self.module, len(batch.vectors)):
            sites, forces, stresses, layers = energy_forces_stress(self.module, batch, create_graph=False)
            rows = invariants(self.module, layers, batch.head) if features else None
        counts = [len(g) for g in graphs]
        energies, all_forces = torch.split(sites.double(), counts), torch.split(forces, counts)
        all_rows = None if rows is None else torch.split(rows, counts)
        return [
            Prediction(
                energy=float(energies[k].sum()) + self.reference_energy(graph),
                forces=to_numpy(all_forces[k]),
                stress=matrix_to_voigt(to_numpy(stresses[k])) if stress else None,
                features=None if all_rows is None else to_numpy(all_rows[k]),
            )
            for k, graph in enumerate(graphs)
        ]

    def stepper(self, atoms: Atoms) -> MACEStepper:
        """Fast repeated evaluation of one cell; exactly what fresh graphs give."""
        self.check_elements([atoms])
        return MACEStepper(self, atoms)

    def native_stepper(self, atoms: Atoms) -> Stepper | None:
        """Through symmetrix, where it is installed and agrees with torch."""
        from aldriver.potentials.mace_symmetrix import symmetrix_stepper

        return symmetrix_stepper(self, atoms)

    def features_of(self, graph: MACEGraph) -> NDArray[np.float64]:
        """Features of a graph's atoms alone, in a forward pass."""
        batch = join([graph], len(self.numbers))
        with frozen(self.module), torch.no_grad():
            return to_numpy(invariants(self.module, site_outputs(self.module, batch).layers, batch.head))

    def last_layer_features(self, frames: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        """Per frame (N, D): φ with site energy = φ·w + b.

        φ are the inputs of the linear maps that end the readouts (scalars of the node features, hidden units of the
        last readout), times the network's scale; b is E0 plus the shift, and pair repulsion where the network has it.
        """
        self.check_elements(frames)
        rows = []
        for atoms in frames:
            batch = join([self.graph(atoms)], len(self.numbers))
            with frozen(self.module), torch.no_grad():
                sites = site_outputs(self.module, batch)
                rows.append(to_numpy(last_inputs(self.module, sites.layers, batch.head)))
        return rows

    def last_layer_forces(
        self, frames: Sequence[Atoms], directions: NDArray[np.float64] | None = None
    ) -> list[NDArray[np.float64]]:
        """Forces of the inputs of the last layers, (N, 3, D) eV/Å per unit of their weights."""
        self.check_elements(frames)
        found = []
        for atoms in frames:
            batch = join([self.graph(atoms)], len(self.numbers))
            vectors = batch.vectors.requires_grad_(True)
            with frozen(self.module):
                phi = last_inputs(self.module, site_outputs(self.module, batch).layers, batch.head)
                found.append(forces_of_inputs(phi, vectors, directions, partial(forces_of_vectors, batch)))
        return found


def chosen_head(heads: Sequence[str], head: str | None, name: str) -> str:
    """The head that is meant.

    Raises
    ------
    InputError
        When there is no such head, or several and none was chosen.
    """
    if head is None and len(heads) == 1:
        return heads[0]
    if head is None:
        raise InputError(f"{name} has several heads: choose one of {', '.join(heads)}")
    if head not in heads:
        raise InputError(f"{name} has no head '{head}': choose one of {', '.join(heads)}")
    return head


def largest_differences(a: NetworkPotential, b: NetworkPotential, frames: Sequence[Atoms]) -> dict[str, float]:
    """Largest differences of two potentials over frames.

    Returns
    -------
    dict
        ``energy_meV_atom``, ``forces_meV_A`` and ``stress_GPa``.
    """
    pairs = zip(frames, a.evaluate(frames), b.evaluate(frames), strict=True)
    worst = {"energy_meV_atom": 0.0, "forces_meV_A": 0.0, "stress_GPa": 0.0}
    for atoms, p, q in pairs:
        stress = 0.0 if p.stress is None or q.stress is None else float(np.abs(p.stress - q.stress).max())
        found = {
            "energy_meV_atom": 1e3 * abs(p.energy - q.energy) / len(atoms),
            "forces_meV_A": 1e3 * float(np.abs(p.forces - q.forces).max()),
            "stress_GPa": EV_A3_TO_GPA * stress,
        }
        worst = {key: max(value, found[key]) for key, value in worst.items()}
    return worst


def precision_check(potential: MACEPotential, frames: Sequence[Atoms]) -> dict[str, float]:
    """What single precision costs on these frames: :func:`largest_differences` of the network in both precisions."""
    return largest_differences(potential.astype("float32"), potential.astype("float64"), frames)
