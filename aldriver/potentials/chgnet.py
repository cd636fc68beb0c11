"""CHGNet: energies, forces and stress in one backward pass. How it is trained is ``train/``'s business."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ase.data import chemical_symbols
from chgnet.model.model import BatchedGraph, CHGNet
from numpy.typing import NDArray
from torch import Tensor

from aldriver.core.errors import InputError
from aldriver.core.units import matrix_to_voigt
from aldriver.potentials.base import Prediction
from aldriver.potentials.chgnet_forward import site_outputs
from aldriver.potentials.chgnet_graph import crystal_graph
from aldriver.potentials.families import energy_scale
from aldriver.potentials.last_layer import forces_of_inputs
from aldriver.potentials.neighbours import Pairs
from aldriver.potentials.network import NetworkPotential, frozen, to_numpy

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from chgnet.graph import CrystalGraph

# chgnet makes a tensor of volumes that carry gradients; torch >= 2.12 frowns on it, once, in every program
warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True to a scalar", module="chgnet")

VERSIONS = ("0.2.0", "0.3.0", "r2scan")
N_ELEMENTS = 94


class CHGNetPotential(NetworkPotential):
    """A CHGNet model as a potential.

    Energies are total energies as the model gives them (eV, on the scale of the corrected Materials Project data it was
    trained on); magnetic moments are absolute values (µB); features of an atom
    are the 64 inputs of the energy readout and its 64 hidden units.
    """

    family = "chgnet"
    module: CHGNet

    def __init__(
        self, module: CHGNet, *, name: str = "chgnet", device: str = "cpu", dtype: str = "float32", skin: float = 1.0
    ) -> None:
        super().__init__(module, name=name, device=device, dtype=dtype, skin=skin)
        if not module.mlp_first:
            raise InputError(f"{name}: CHGNet models that pool atoms before the energy readout are not supported")
        self.elements = frozenset(chemical_symbols[1 : N_ELEMENTS + 1])
        self.cutoff = float(module.graph_converter.atom_graph_cutoff)
        self.bond_cutoff = float(module.graph_converter.bond_graph_cutoff)

    @classmethod
    def foundation(cls, version: str, device: str = "cpu", *, dtype: str = "float32") -> CHGNetPotential:
        """The pretrained model of that version, as shipped in the chgnet package.

        Raises
        ------
        InputError
            When there is no such version or device.
        """
        if version not in VERSIONS:
            raise InputError(f"chgnet:{version}: no such version; there are {', '.join(VERSIONS)}")
        import chgnet

        folder = Path(chgnet.__file__).parent / "pretrained" / version
        files = sorted(folder.glob("*.pth.tar"))
        if not files:
            raise InputError(f"{folder}: the weights are missing from the installed chgnet package; reinstall chgnet")
        saved = torch.load(files[0], map_location="cpu", weights_only=True)["model"]
        # as in CHGNet.load: 0.2.0 was trained with a bias in its output layers
        args = dict(saved["model_args"]) | {"mlp_out_bias": version == "0.2.0", "version": version}
        return cls(build_model(args, saved["state_dict"]), name=f"chgnet:{version}", device=device, dtype=dtype)

    @property
    def energy_scale(self) -> str:  # type: ignore[override]
        """``mp2020``, but for weights that were trained on r2SCAN, or refined on labels that have no correction."""
        return energy_scale(self.arch)

    @property
    def arch(self) -> dict[str, Any]:
        """chgnet's own ``model_args``."""
        return dict(self.module.model_args)

    @classmethod
    def from_state(
        cls,
        arch: dict[str, Any],
        state: Mapping[str, Tensor],
        *,
        name: str,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> CHGNetPotential:
        """Build from ``model_args`` and weights."""
        return cls(build_model(arch, state), name=name, device=device, dtype=dtype)

    def copy(self) -> CHGNetPotential:
        """Deep copy whose network (all but the composition model) can be trained."""
        new = super().copy()
        if new.module.composition_model is not None:
            new.module.composition_model.requires_grad_(False)
        return new

    def graph_of(self, numbers: NDArray[np.int64], pairs: Pairs) -> CrystalGraph:
        """chgnet's crystal graph."""
        return crystal_graph(numbers, pairs, atom_cutoff=self.cutoff, bond_cutoff=self.bond_cutoff, dtype=self.dtype)

    def batch_key(self, graph: CrystalGraph) -> bool:
        """Whether there are angles.

        A frame without any skips the bond convolutions, which matters to 0.2.0 (its bond update has a bias): such
        frames never share a batch with others, so that a batch gives what single frames give.
        """
        return len(graph.bond_graph) > 0

    def predict_graphs(
        self, graphs: Sequence[CrystalGraph], *, stress: bool = True, features: bool = False
    ) -> list[Prediction]:
        """Predict graphs as one batch: one forward pass, and one backward pass for forces and stress together.

        chgnet's own ``forward`` walks back twice and keeps the graph of the derivatives for a training loss; that is
        not needed here.
        """
        model = self.module
        batch = self._batched(graphs, stress=stress)
        with frozen(model):
            sites = site_outputs(model, batch)
            inputs = [*batch.atom_positions, *(batch.strains if stress else [])]
            gradients = torch.autograd.grad(sites.energies.sum(), inputs)
        n = len(graphs)
        counts = [len(g.atomic_number) for g in graphs]
        energies = torch.split(sites.energies.detach().double(), counts)
        magmoms = torch.split(sites.magmoms, counts)
        rows = torch.split(self._with_hidden(sites.features), counts) if features else ()
        predictions = []
        for k, graph in enumerate(graphs):
            tensor = None
            if stress:
                volume = abs(float(torch.linalg.det(graph.lattice.detach().double())))
                tensor = matrix_to_voigt(to_numpy(gradients[n + k]) / volume)
            predictions.append(
                Prediction(
                    # summed in double: single precision would leave 1e-4 eV of noise in a cell of 100 atoms
                    energy=float(energies[k].sum()) + self._reference(graph),
                    forces=-to_numpy(gradients[k]),
                    stress=tensor,
                    magmoms=to_numpy(magmoms[k]),
                    features=to_numpy(rows[k]) if features else None,
                )
            )
        return predictions

    def last_layer_features(self, frames: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        """Hidden layer of the energy readout, (N, 64): an atom's energy is φ · w + b, plus the composition model's."""
        width = self._readout[-1].in_features
        return [rows[:, -width:] for rows in self.features(frames)]

    def last_layer_forces(
        self, frames: Sequence[Atoms], directions: NDArray[np.float64] | None = None
    ) -> list[NDArray[np.float64]]:
        """Forces of the inputs of the last layer, (N, 3, 64) eV/Å per unit of its weights."""
        self.check_elements(frames)
        found = []
        for atoms in frames:
            batch = self._batched([self.graph(atoms)], stress=False)
            with frozen(self.module):
                phi = self._last_inputs(site_outputs(self.module, batch).features)
                found.append(forces_of_inputs(phi, batch.atom_positions[0], directions, torch.neg))
        return found

    def _with_hidden(self, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([rows, self._last_inputs(rows)], dim=1)

    def _last_inputs(self, rows: Tensor) -> Tensor:
        """Hidden layer of the energy readout from the features."""
        for layer in self._readout[:-1]:
            rows = layer(rows)
        return rows

    @property
    def _readout(self) -> list[Any]:
        readout: Any = self.module.mlp
        return list(getattr(readout, "layers", readout))

    def _batched(self, graphs: Sequence[CrystalGraph], *, stress: bool) -> BatchedGraph:
        return BatchedGraph.from_graphs(
            [g.to(str(self.device)) for g in graphs] if self.device.type != "cpu" else graphs,
            bond_basis_expansion=self.module.bond_basis_expansion,
            angle_basis_expansion=self.module.angle_basis_expansion,
            compute_stress=stress,
        )

    def _reference(self, graph: CrystalGraph) -> float:
        """Energy of the composition model (a fixed number per element), eV."""
        composition = self.module.composition_model
        if not isinstance(composition, torch.nn.Module):
            return 0.0
        weights = composition.state_dict()["fc.weight"].double().view(-1).cpu()
        return float(weights[graph.atomic_number.long() - 1].sum())


def build_model(model_args: dict[str, Any], state_dict: Mapping[str, Tensor]) -> CHGNet:
    """A CHGNet from its arguments and weights, without chgnet's printing."""
    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet(**model_args)
    model.load_state_dict(state_dict)
    return model
