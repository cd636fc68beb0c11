"""What the training loop needs of a potential family. Each family's adapter (``chgnet.py``) keeps this contract."""

from __future__ import annotations

import copy
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.potentials.base import Potential

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from aldriver.core.recipe_train import Train
    from aldriver.potentials.network import NetworkPotential


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
    magmoms
        (N,) absolute magnetic moments in µB, or None where the family has none.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    magmoms: Tensor | None = None


class TrainAdapter(ABC):
    """A trainable copy of a potential; the potential it is made from stays as it is.

    Attributes
    ----------
    family
        As in ``Potential.family``.
    """

    family: str

    def __init__(self, start: Potential) -> None:
        from aldriver.potentials.network import NetworkPotential

        if not isinstance(start, NetworkPotential):
            raise InputError(f"{start.name}: not a network that can be trained in this process")
        self._potential: NetworkPotential = start.copy()
        self._plain: nn.Module | None = None

    @property
    def module(self) -> nn.Module:
        """The network; its parameters' ``requires_grad`` says what is trained."""
        return self._potential.module

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self._potential.device

    @property
    def elements(self) -> frozenset[str]:
        """Symbols the network knows."""
        return self._potential.elements

    def check_elements(self, frames: Sequence[Atoms]) -> None:
        """Refuse frames with elements the network does not know, naming them."""
        self._potential.check_elements(frames)

    # ---- what a family gives ---------------------------------------------------------------------------------------

    @abstractmethod
    def predict(self, graphs: Sequence[Any], *, training: bool) -> BatchPrediction:
        """Predict a batch; `training` keeps what is needed to walk back to the weights."""

    @abstractmethod
    def size(self, graph: Any) -> int:
        """What a frame's memory is proportional to (edges and angles)."""

    def reset(self, seed: int) -> None:
        """Draw all weights anew, architecture and energy references kept (strategy ``scratch``).

        Raises
        ------
        InputError
            Where the family cannot.
        """
        raise InputError(f"train.strategy 'scratch': {self.family} potentials cannot be trained from scratch here")

    def proxy(self, proxies: Mapping[str, str]) -> None:
        """Let elements start from the embedding of others ({unseen: proxy}); may give the network more elements.

        The descriptor-informed proxy initialisation of ``docs/training.md``.

        Raises
        ------
        InputError
            Where the family cannot, or an element is unknown.
        """
        raise InputError(f"train.proxies: not available for {self.family} potentials")

    def separate_heads(self, names: Sequence[str] = ("pt_head",), *, refined: bool = True) -> None:
        """Give levels of theory, or the foundation, heads of their own; all start as the one that is refined.

        Parameters
        ----------
        names
            Heads beside the refined one; ``pt_head`` is the foundation's (multihead replay).
        refined
            Whether there is a refined head beside them; without, the last of `names` speaks for the potential.

        Raises
        ------
        InputError
            Where the family has no heads.
        """
        raise InputError(
            f"frames of several heads ({', '.join(names)}): {self.family} networks have but one head (MACE has several)"
        )

    # ---- what follows ----------------------------------------------------------------------------------------------

    def graph(self, atoms: Atoms) -> Any:
        """Whatever the model reads of a frame, built once per frame.

        Raises
        ------
        InputError
            When the frame has no volume.
        """
        if atoms.cell.rank < 3:
            raise InputError(f"{atoms.get_chemical_formula()}: a training frame needs three cell vectors")
        return self._potential.graph(atoms)

    def set_trainable(self, settings: Train, *, seed: int = 0) -> list[str]:
        """Freeze all but what ``settings.strategy`` trains (see ``strategy.py``); names of the trained parameters.

        With ``lora`` the network gets its low-rank updates here; `seed` is that of the numbers they start with.
        """
        from aldriver.train.strategy import layers_never_trained, select_parameters

        if settings.strategy == "lora" and self._plain is None:
            from aldriver.train.lora import add_lora

            self._plain = copy.deepcopy(self.module)
            add_lora(self.module, settings.lora, never=layers_never_trained(self.family, settings), seed=seed)
        return select_parameters(self.module, self.family, settings)

    def potential(self, name: str) -> NetworkPotential:
        """The potential with the weights of now, low-rank updates merged (a copy: later steps do not count)."""
        if self._plain is None:
            return self._potential.with_module(copy.deepcopy(self.module), name=name)
        from aldriver.train.lora import merged_state

        merged = copy.deepcopy(self._plain)
        merged.load_state_dict(merged_state(self.module))
        return self._potential.with_module(merged, name=name)


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
    if start.family not in ADAPTERS:
        raise InputError(
            f"{start.name}: potentials of the family '{start.family}' cannot be trained; "
            f"start from one of {', '.join(ADAPTERS)}, or a potential refined from one of them"
        )
    module, _, name = ADAPTERS[start.family].partition(":")
    adapter: TrainAdapter = getattr(importlib.import_module(module), name)(start)
    return adapter
