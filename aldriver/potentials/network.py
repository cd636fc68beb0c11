"""What all neural-network potentials share: batches, graphs kept by structure, steppers, fingerprints.

A family (``chgnet.py``, ``mace.py``, ``sevennet.py``) says how a graph is made of pairs and what the network makes of a
batch of graphs; everything around that is here.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor, nn

from aldriver.core.errors import AldriverError, InputError
from aldriver.potentials.allocator import keep_freed_memory
from aldriver.potentials.base import Potential, Prediction, Stepper
from aldriver.potentials.batching import BatchSize
from aldriver.potentials.neighbours import NeighbourList, Pairs

CACHED_GRAPHS = 512
MOST_ATOMS = 65536
"""In a batch on a GPU, however large its memory."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class NetworkPotential(Potential):
    """A neural network as a potential.

    Parameters
    ----------
    module
        The network; it is moved to `device`, set to evaluation mode and its parameters are frozen.
    name
        As in ``aldriver.load(name)``.
    device
        ``cpu`` or ``cuda``.
    dtype
        ``float32`` or ``float64`` (for finite differences; about half as fast).
    skin
        Å, of the neighbour lists kept along trajectories.

    Attributes
    ----------
    cutoff
        Å, of the neighbour list.
    batch_atoms
        Atoms in a batch unless told otherwise: (CPU, GPU).
    """

    has_features = True
    cutoff: float
    batch_atoms: tuple[int, int] = (64, 2048)

    def __init__(
        self, module: nn.Module, *, name: str, device: str = "cpu", dtype: str = "float32", skin: float = 1.0
    ) -> None:
        if dtype not in DTYPES:
            raise InputError(f"{name}: dtype '{dtype}' is not known; there is {' and '.join(DTYPES)}")
        self.name, self.device, self.skin = name, torch_device(device), skin
        self.dtype = DTYPES[dtype]
        if self.device.type == "cpu":
            keep_freed_memory()
        self.module = module.to(device=self.device, dtype=self.dtype).eval().requires_grad_(False)
        self._graphs: OrderedDict[bytes, Any] = OrderedDict()
        self._fingerprint: str | None = None

    # ---- what a family gives ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def arch(self) -> dict[str, Any]:
        """Architecture, as JSON: with the weights, all that is needed to build the network again."""

    @classmethod
    @abstractmethod
    def from_state(
        cls,
        arch: dict[str, Any],
        state: Mapping[str, Tensor],
        *,
        name: str,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        """Build the potential from its architecture and weights.

        Raises
        ------
        Exception
            Of any type, when the weights do not fit.
        """

    @abstractmethod
    def graph_of(self, numbers: NDArray[np.int64], pairs: Pairs) -> Any:
        """What the network reads of one configuration.

        Raises
        ------
        AldriverError
            When the network knows nothing of such a configuration (an isolated atom, say).
        """

    @abstractmethod
    def predict_graphs(self, graphs: Sequence[Any], *, stress: bool = True, features: bool = False) -> list[Prediction]:
        """Predict graphs as one batch."""

    def batch_key(self, graph: Any) -> Hashable:
        """Graphs of different keys never share a batch."""
        return None

    # ---- what follows ----------------------------------------------------------------------------------------------

    @property
    def precision(self) -> str:
        """``float32`` or ``float64``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Hash of architecture and weights; never stale, also while the weights are being trained."""
        if self._fingerprint is None or any(p.requires_grad for p in self.module.parameters()):
            self._fingerprint = module_fingerprint(self.arch, self.module)
        return self._fingerprint

    def with_module(self, module: nn.Module, name: str | None = None) -> Self:
        """A potential of another network of this architecture, with the same settings; its fingerprint is its own."""
        return type(self)(module, name=name or self.name, device=str(self.device), dtype=self.precision, skin=self.skin)

    def copy(self) -> Self:
        """Deep copy whose network can be trained."""
        new = self.with_module(copy.deepcopy(self.module))
        new.module.requires_grad_(True)
        return new

    def astype(self, dtype: str) -> Self:
        """The same network in ``float32`` or ``float64``."""
        state = self.module.state_dict()
        new = type(self).from_state(self.arch, state, name=self.name, device=str(self.device), dtype=dtype)
        new.skin = self.skin
        return new

    def graph(self, atoms: Atoms) -> Any:
        """Graph of a frame; the most recent ones are kept (by structure).

        Raises
        ------
        AldriverError
            As :meth:`graph_of`, and when positions or cell are not finite.
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

    def _build(self, atoms: Atoms) -> Any:
        check_finite(atoms.positions, np.asarray(atoms.cell))
        pairs = NeighbourList(self.cutoff, pbc=atoms.pbc)(atoms.positions, np.asarray(atoms.cell))
        return self.graph_of(atoms.numbers, pairs)

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
            Up to so many atoms at once; one frame is never split. Default: few on a CPU, as many as its memory holds
            on a GPU, found from what the first batches take.

        Raises
        ------
        InputError
            When a frame holds an element the network does not know.
        AldriverError
            When the network knows nothing of a configuration, or a position is not a finite number.
        """
        self.check_elements(frames)
        batch = self._batch_size(batch_atoms)
        results: dict[int, Prediction] = {}
        pending: dict[Hashable, list[tuple[int, Any]]] = {}
        size: dict[Hashable, int] = {}

        def flush(key: Hashable) -> None:
            waiting, pending[key] = pending.get(key, []), []
            atoms, size[key] = size.get(key, 0), 0
            if waiting:
                options = {"stress": stress, "features": features}
                predictions = self._predict_fitting([g for _, g in waiting], atoms, batch, options)
                results.update(zip((k for k, _ in waiting), predictions, strict=True))

        for index, atoms in enumerate(frames):
            try:
                graph = self._build(atoms)
            except AldriverError as error:
                raise type(error)(f"frame {index} ({atoms.get_chemical_formula()}): {error}") from error
            key = self.batch_key(graph)
            if size.get(key, 0) + len(atoms) > batch.atoms:
                flush(key)
            pending.setdefault(key, []).append((index, graph))
            size[key] = size.get(key, 0) + len(atoms)
        for key in list(pending):
            flush(key)
        return [
            without_stress(results[k]) if stress and atoms.cell.rank < 3 else results[k]
            for k, atoms in enumerate(frames)
        ]

    def _batch_size(self, atoms: int | None) -> BatchSize:
        """A CPU is fastest with few atoms at once; a GPU with all it can hold, which the batches tell."""
        if atoms is not None or self.device.type == "cpu":
            chosen = atoms or self.batch_atoms[0]
            return BatchSize(chosen, chosen)
        return BatchSize(self.batch_atoms[1], MOST_ATOMS, self._free_bytes)

    def _free_bytes(self) -> int:
        reserved = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(torch.cuda.mem_get_info(self.device)[0] + reserved)

    def _predict_fitting(
        self, graphs: Sequence[Any], atoms: int, batch: BatchSize, options: dict[str, bool]
    ) -> list[Prediction]:
        """Predict a batch, in halves where it does not fit into the memory of the GPU."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        try:
            predictions = self.predict_graphs(graphs, **options)
        except torch.OutOfMemoryError:
            if len(graphs) == 1:
                raise
        else:
            if on_gpu:
                batch.took(atoms, torch.cuda.max_memory_allocated(self.device) - before)
            return predictions
        batch.failed(atoms)
        half = len(graphs) // 2
        first = self._predict_fitting(graphs[:half], atoms // 2, batch, options)
        return first + self._predict_fitting(graphs[half:], atoms - atoms // 2, batch, options)

    def stepper(self, atoms: Atoms) -> Stepper:
        """Fast repeated evaluation of one cell; exactly what fresh graphs give."""
        self.check_elements([atoms])
        return _NetworkStepper(self, atoms)

    def md_stepper(self, atoms: Atoms, precision: str | None = None) -> Stepper:
        """See :meth:`Potential.md_stepper`; decided in ``md.py``."""
        from aldriver.potentials.md import md_stepper

        return self.stepper(atoms) if precision is None else md_stepper(self, atoms, precision)

    def native_stepper(self, atoms: Atoms) -> Stepper | None:
        """Evaluation of one cell by other code than torch, found to agree with it on this frame; None without one."""
        return None


class _NetworkStepper(Stepper):
    def __init__(self, potential: NetworkPotential, atoms: Atoms) -> None:
        self.potential = potential
        self.numbers = atoms.numbers.copy()
        self.neighbours = NeighbourList(potential.cutoff, pbc=atoms.pbc, skin=potential.skin)

    def __call__(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], *, stress: bool = True, features: bool = False
    ) -> Prediction:
        check_finite(positions, cell)
        graph = self.potential.graph_of(self.numbers, self.neighbours(positions, cell))
        prediction = self.potential.predict_graphs([graph], stress=stress, features=features)[0]
        return without_stress(prediction) if stress and np.linalg.matrix_rank(cell) < 3 else prediction


def module_fingerprint(arch: Mapping[str, Any], module: nn.Module) -> str:
    """First 16 hex characters of the SHA-256 over architecture (JSON) and weights (names, shapes, bytes)."""
    h = hashlib.sha256(json.dumps(arch, sort_keys=True).encode())
    for key, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        h.update(f"{key}{array.shape}".encode())
        h.update(array.astype("<f4").tobytes())
    return h.hexdigest()[:16]


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients to the weights inside: evaluating a model that is being trained costs no more than a frozen one."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    training = module.training
    for p in trainable:
        p.requires_grad_(False)
    module.eval()
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
        module.train(training)


def to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    """A tensor as float64 array."""
    return tensor.detach().cpu().numpy().astype(np.float64)


def without_stress(p: Prediction) -> Prediction:
    """The prediction of a cell that has no volume."""
    return Prediction(energy=p.energy, forces=p.forces, magmoms=p.magmoms, features=p.features)


def check_finite(positions: NDArray[np.float64], cell: NDArray[np.float64]) -> None:
    """Refuse positions or cells that are not finite."""
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise AldriverError("positions or cell are not finite numbers: the run has blown up, or the frame is damaged")


def torch_device(device: str) -> torch.device:
    """The device of that name, if it is there."""
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device '{device}': torch sees no CUDA GPU here; use device cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device '{device}': not understood by torch ({error}); use cpu or cuda") from error
