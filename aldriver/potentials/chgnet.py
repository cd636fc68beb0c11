"""CHGNet: energies, forces and stress in one backward pass. How it is trained is ``train/``'s business."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from chgnet.model.model import BatchedGraph, CHGNet
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.units import matrix_to_voigt
from aldriver.potentials.base import Potential, Prediction, Stepper
from aldriver.potentials.chgnet_forward import site_outputs
from aldriver.potentials.chgnet_graph import crystal_graph
from aldriver.potentials.neighbours import NeighbourList

if TYPE_CHECKING:
    from chgnet.graph import CrystalGraph

# chgnet makes a tensor of volumes that carry gradients; torch >= 2.12 frowns on it, once, in every program
warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True to a scalar", module="chgnet")

VERSIONS = ("0.2.0", "0.3.0", "r2scan")
N_ELEMENTS = 94
CACHED_GRAPHS = 512


class CHGNetPotential(Potential):
    """A CHGNet model as a potential.

    Energies are total energies as the model gives them (eV, on the scale of the corrected Materials Project data it was
    trained on); magnetic moments are absolute values (µB); features are the 64 inputs of the energy readout per atom.

    Parameters
    ----------
    model
        The network; it is moved to `device`, set to evaluation mode and its parameters are frozen.
    name
        As in ``aldriver.load(name)``.
    device
        ``cpu`` or ``cuda``.
    dtype
        ``float32`` as trained, or ``float64`` (for finite differences; about half as fast).
    skin
        Å, of the neighbour lists kept along trajectories.
    """

    family = "chgnet"
    has_features = True

    def __init__(
        self, model: CHGNet, *, name: str = "chgnet", device: str = "cpu", dtype: str = "float32", skin: float = 1.0
    ) -> None:
        self.name, self.device, self.skin = name, _device(device), skin
        if not model.mlp_first:
            raise InputError(f"{name}: CHGNet models that pool atoms before the energy readout are not supported")
        self.dtype = {"float32": torch.float32, "float64": torch.float64}[dtype]
        self.model = model.to(device=self.device, dtype=self.dtype).eval().requires_grad_(False)
        self.elements = frozenset(chemical_symbols[1 : N_ELEMENTS + 1])
        self.atom_cutoff = float(model.graph_converter.atom_graph_cutoff)
        self.bond_cutoff = float(model.graph_converter.bond_graph_cutoff)
        self._graphs: OrderedDict[bytes, CrystalGraph] = OrderedDict()
        self._fingerprint: str | None = None

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
    def fingerprint(self) -> str:  # type: ignore[override]
        """Hash of architecture and weights; never stale, also while the weights are being trained."""
        if self._fingerprint is None or any(p.requires_grad for p in self.model.parameters()):
            self._fingerprint = model_fingerprint(self.model)
        return self._fingerprint

    def copy(self) -> CHGNetPotential:
        """Deep copy whose network (all but the composition model) can be trained."""
        new = self.with_model(copy.deepcopy(self.model), name=self.name)
        new.model.requires_grad_(True)
        if new.model.composition_model is not None:
            new.model.composition_model.requires_grad_(False)
        return new

    def with_model(self, model: CHGNet, name: str | None = None) -> CHGNetPotential:
        """A potential of another network with the same settings; its fingerprint is its own."""
        dtype = str(self.dtype).removeprefix("torch.")
        return CHGNetPotential(model, name=name or self.name, device=str(self.device), dtype=dtype, skin=self.skin)

    def graph(self, atoms: Atoms) -> CrystalGraph:
        """Crystal graph of a frame; the most recent ones are kept.

        Raises
        ------
        AldriverError
            When an atom has no neighbour within the cutoff.
        """
        h = hashlib.sha256()
        for array in (atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc):
            h.update(np.ascontiguousarray(array).tobytes())
        key = h.digest()
        if key not in self._graphs:
            self._graphs[key] = self._build(atoms)
            if len(self._graphs) > CACHED_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _build(self, atoms: Atoms) -> CrystalGraph:
        _check_finite(atoms.positions, np.asarray(atoms.cell))
        pairs = NeighbourList(self.atom_cutoff, pbc=atoms.pbc)(atoms.positions, np.asarray(atoms.cell))
        return self._graph_of(atoms.numbers, pairs)

    def _graph_of(self, numbers: NDArray[np.int64], pairs: Any) -> CrystalGraph:
        return crystal_graph(
            numbers, pairs, atom_cutoff=self.atom_cutoff, bond_cutoff=self.bond_cutoff, dtype=self.dtype
        )

    def evaluate(
        self,
        frames: Sequence[Atoms],
        *,
        stress: bool = True,
        features: bool = False,
        batch_atoms: int | None = None,
    ) -> list[Prediction]:
        """Predict each frame, several cells a batch.

        The stress of a cell without volume (a missing cell vector) is None.

        Parameters
        ----------
        batch_atoms
            Up to so many atoms at once; one frame is never split. Default 64 on a CPU (more is no faster there), 2048
            on a GPU.

        Raises
        ------
        InputError
            When a frame holds an element beyond Pu (Z > 94).
        AldriverError
            When an atom has no neighbour within the cutoff, or a position is not a finite number.
        """
        self.check_elements(frames)
        limit = batch_atoms or (64 if self.device.type == "cpu" else 2048)
        results: dict[int, Prediction] = {}
        # A frame without any angle skips the bond convolutions, which matters to 0.2.0 (its bond update has a bias):
        # such frames never share a batch with others, so that a batch gives what single frames give.
        pending: dict[bool, list[tuple[int, CrystalGraph]]] = {True: [], False: []}
        size = {True: 0, False: 0}

        def flush(kind: bool) -> None:
            batch, pending[kind], size[kind] = pending[kind], [], 0
            if batch:
                predictions = self.predict_graphs([g for _, g in batch], stress=stress, features=features)
                results.update(zip((k for k, _ in batch), predictions, strict=True))

        for index, atoms in enumerate(frames):
            try:
                graph = self._build(atoms)
            except AldriverError as error:
                raise type(error)(f"frame {index} ({atoms.get_chemical_formula()}): {error}") from error
            kind = len(graph.bond_graph) > 0
            if size[kind] + len(atoms) > limit:
                flush(kind)
            pending[kind].append((index, graph))
            size[kind] += len(atoms)
        flush(True)
        flush(False)
        return [
            _without_stress(results[k]) if stress and atoms.cell.rank < 3 else results[k]
            for k, atoms in enumerate(frames)
        ]

    def stepper(self, atoms: Atoms) -> Stepper:
        """Fast repeated evaluation of one cell; exactly what fresh graphs give."""
        self.check_elements([atoms])
        return _CHGNetStepper(self, atoms)

    def predict_graphs(
        self, graphs: Sequence[CrystalGraph], *, stress: bool = True, features: bool = False
    ) -> list[Prediction]:
        """Predict graphs as one batch: one forward pass, and one backward pass for forces and stress together.

        chgnet's own ``forward`` walks back twice and keeps the graph of the derivatives for a training loss; that is
        not needed here.
        """
        model = self.model
        batch = BatchedGraph.from_graphs(
            [g.to(str(self.device)) for g in graphs] if self.device.type != "cpu" else graphs,
            bond_basis_expansion=model.bond_basis_expansion,
            angle_basis_expansion=model.angle_basis_expansion,
            compute_stress=stress,
        )
        with _frozen(model):
            sites = site_outputs(model, batch)
            inputs = [*batch.atom_positions, *(batch.strains if stress else [])]
            gradients = torch.autograd.grad(sites.energies.sum(), inputs)
        n = len(graphs)
        counts = [len(g.atomic_number) for g in graphs]
        energies = torch.split(sites.energies.detach().double(), counts)
        magmoms = torch.split(sites.magmoms, counts)
        rows = torch.split(sites.features, counts)
        predictions = []
        for k, graph in enumerate(graphs):
            tensor = None
            if stress:
                volume = abs(float(torch.linalg.det(graph.lattice.detach().double())))
                tensor = matrix_to_voigt(_numpy(gradients[n + k]) / volume)
            predictions.append(
                Prediction(
                    # summed in double: single precision would leave 1e-4 eV of noise in a cell of 100 atoms
                    energy=float(energies[k].sum()) + self._reference(graph),
                    forces=-_numpy(gradients[k]),
                    stress=tensor,
                    magmoms=_numpy(magmoms[k]),
                    features=_numpy(rows[k]) if features else None,
                )
            )
        return predictions

    def _reference(self, graph: CrystalGraph) -> float:
        """Energy of the composition model (a fixed number per element), eV."""
        composition = self.model.composition_model
        if not isinstance(composition, torch.nn.Module):
            return 0.0
        weights = composition.state_dict()["fc.weight"].double().view(-1).cpu()
        return float(weights[graph.atomic_number.long() - 1].sum())


class _CHGNetStepper(Stepper):
    def __init__(self, potential: CHGNetPotential, atoms: Atoms) -> None:
        self.potential = potential
        self.numbers = atoms.numbers.copy()
        self.neighbours = NeighbourList(potential.atom_cutoff, pbc=atoms.pbc, skin=potential.skin)

    def __call__(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        _check_finite(positions, cell)
        graph = self.potential._graph_of(self.numbers, self.neighbours(positions, cell))
        prediction = self.potential.predict_graphs([graph], stress=stress, features=features)[0]
        return _without_stress(prediction) if stress and np.linalg.matrix_rank(cell) < 3 else prediction


def build_model(model_args: dict[str, Any], state_dict: dict[str, torch.Tensor]) -> CHGNet:
    """A CHGNet from its arguments and weights, without chgnet's printing."""
    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet(**model_args)
    model.load_state_dict(state_dict)
    return model


def model_fingerprint(model: CHGNet) -> str:
    """First 16 hex characters of the SHA-256 over architecture (JSON) and weights (names, shapes, bytes)."""
    h = hashlib.sha256(json.dumps(model.model_args, sort_keys=True).encode())
    for key, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        h.update(f"{key}{array.shape}".encode())
        h.update(array.astype("<f4").tobytes())
    return h.hexdigest()[:16]


@contextlib.contextmanager
def _frozen(model: CHGNet) -> Iterator[None]:
    """No gradients to the weights inside: evaluating a model that is being trained costs no more than a frozen one."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    training = model.training
    for p in trainable:
        p.requires_grad_(False)
    model.eval()
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
        model.train(training)


def _numpy(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _without_stress(p: Prediction) -> Prediction:
    return Prediction(energy=p.energy, forces=p.forces, magmoms=p.magmoms, features=p.features)


def _check_finite(positions: NDArray[np.float64], cell: NDArray[np.float64]) -> None:
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise AldriverError("positions or cell are not finite numbers: the run has blown up, or the frame is damaged")


def _device(device: str) -> torch.device:
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device '{device}': torch sees no CUDA GPU here; use device cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device '{device}': not understood by torch ({error}); use cpu or cuda") from error
