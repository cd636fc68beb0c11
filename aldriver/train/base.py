"""What the training loop needs of a potential family. Each family's adapter (``chgnet.py``) keeps this contract."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ase import Atoms

from aldriver.potentials.base import Potential

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class BatchPrediction:
    """What the model says of B frames with N atoms in all; differentiable with respect to its weights when training.

    Attributes
    ----------
    energy
        (B,) eV/atom.
    forces
        (N, 3) eV/Å.
    stress
        (B, 3, 3) GPa, tension positive.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor


class TrainAdapter(ABC):
    """A trainable copy of a potential.

    Attributes
    ----------
    module
        The network; its parameters' ``requires_grad`` says what is trained.
    family
        As in ``Potential.family``.
    """

    module: nn.Module
    family: str

    @abstractmethod
    def graph(self, atoms: Atoms) -> Any:
        """Whatever the model reads of a frame, built once per frame."""

    @abstractmethod
    def predict(self, graphs: Sequence[Any], *, training: bool) -> BatchPrediction:
        """Predict a batch; `training` keeps what is needed to walk back to the weights."""

    @abstractmethod
    def size(self, graph: Any) -> int:
        """What a frame's memory is proportional to (edges and angles)."""

    @abstractmethod
    def set_trainable(self, strategy: str) -> list[str]:
        """Freeze all but what `strategy` trains; names of the trainable parameters."""

    @abstractmethod
    def potential(self, name: str) -> Potential:
        """The potential with the weights as they are now (a copy: later steps do not change it)."""


ADAPTERS = {
    "chgnet": "aldriver.train.chgnet:CHGNetAdapter",
    "mace": "aldriver.train.mace:MACEAdapter",
    "sevennet": "aldriver.train.sevennet:SevenNetAdapter",
}
"""Family: where its adapter lives (imported only when it is trained)."""


def make_adapter(start: Potential) -> TrainAdapter:
    """The adapter of a potential's family; the potential itself stays as it is.

    Raises
    ------
    InputError
        When the family cannot be trained.
    """
    from aldriver.core.errors import InputError

    if start.family not in ADAPTERS:
        raise InputError(
            f"{start.name}: potentials of the family '{start.family}' cannot be trained; "
            f"start from one of {', '.join(ADAPTERS)}, or a potential refined from one of them"
        )
    module, _, name = ADAPTERS[start.family].partition(":")
    adapter: TrainAdapter = getattr(importlib.import_module(module), name)(start)
    return adapter
