"""Low-rank adaptation: weights W + (alpha/rank) · B A with only A and B trained (Hu et al., ICLR 2022, section 4.1).

One implementation for all families, on three kinds of weights:

* ``nn.Linear``: (out, in), as in the paper;
* layers of e3nn's ``FullyConnectedNet``: (in, out), which act on invariants;
* e3nn's ``o3.Linear``: one flat vector that holds a (in, out) block of multiplicities for each pair of equal irreps.
  Each block gets its own factors. They mix copies of one irrep and leave its components alone, so the network stays
  equivariant under rotations whatever they are.

The factors live in ``torch.nn.utils.parametrize``: the network computes with the sum, its modules stay what they are,
and the names of the factors contain ``.lora_``. B starts at zero: a network starts as exactly what it was; A is drawn
with the root mean square of the weights it is added to, the same numbers for the same layer and seed: members of a
committee search different subspaces.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from aldriver.core.recipe_train import Lora

Block = tuple[int, int, int]
"""Offset in the flat weight, rows, columns."""


class LowRank(nn.Module):
    """A weight plus a low-rank update of each of its blocks.

    Parameters
    ----------
    weight
        The weight, of any shape; seen as flat.
    blocks
        What of it is a matrix.
    name, seed
        Of the weight, and of the training; they decide the random numbers.
    """

    def __init__(self, weight: Tensor, blocks: Collection[Block], settings: Lora, name: str, seed: int) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.scale = settings.alpha / settings.rank
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        flat = weight.detach().reshape(-1)
        left, right = [], []
        for offset, rows, columns in self.blocks:
            rank = min(settings.rank, rows, columns)
            size = flat[offset : offset + rows * columns].square().mean().sqrt()
            drawn = torch.randn(rank, columns, generator=generator).to(flat)
            right.append(nn.Parameter(size * drawn))
            left.append(nn.Parameter(flat.new_zeros(rows, rank)))
        self.lora_A = nn.ParameterList(right)
        self.lora_B = nn.ParameterList(left)

    def forward(self, weight: Tensor) -> Tensor:
        """The sum, in the weight's shape."""
        flat = weight.reshape(-1)
        pieces, at = [], 0
        for (offset, rows, columns), a, b in zip(self.blocks, self.lora_A, self.lora_B, strict=True):
            end = offset + rows * columns
            pieces += [flat[at:offset], flat[offset:end] + self.scale * (b @ a).reshape(-1)]
            at = end
        return torch.cat([*pieces, flat[at:]]).reshape(weight.shape)


def add_lora(module: nn.Module, settings: Lora, *, never: Collection[str] = (), seed: int = 0) -> list[str]:
    """Give every weight that can have one a low-rank update; names of these weights.

    Parameters
    ----------
    never
        Direct children of `module` that are left alone.
    seed
        Of the random numbers the factors start with.
    """
    chosen = []
    for name, layer in list(module.named_modules()):
        blocks = matrices_of(layer)
        if blocks and name.split(".")[0] not in never:
            chosen.append((f"{name}.weight", layer, blocks))
    for name, layer, blocks in chosen:
        # unsafe: torch would try the sum on the weight first, which can only confirm its shape
        parametrize.register_parametrization(
            layer, "weight", LowRank(layer.weight, blocks, settings, name, seed), unsafe=True
        )
    return [name for name, _, _ in chosen]


def matrices_of(layer: nn.Module) -> list[Block]:
    """Matrices in a layer's ``weight``; none where there is nothing to adapt."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.numel() == 0:
        return []
    kinds = {f"{c.__module__}.{c.__name__}" for c in type(layer).__mro__}  # e3nn itself need not be installed
    if isinstance(layer, nn.Linear) or "e3nn.nn._fc._Layer" in kinds:
        rows, columns = weight.shape
        return [(0, rows, columns)]
    if "e3nn.o3._linear.Linear" not in kinds or weight.ndim != 1:
        return []
    blocks, offset = [], 0
    for instruction in layer.instructions:  # type: ignore[union-attr]
        shape = tuple(instruction.path_shape)
        if instruction.i_in == -1:  # a bias: not part of the weight
            continue
        if len(shape) != 2:
            return []
        blocks.append((offset, *shape))
        offset += shape[0] * shape[1]
    return blocks


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """State of the network without low-rank updates that computes the same."""
    state = {}
    for name, tensor in module.state_dict().items():
        if ".parametrizations." not in name:
            state[name] = tensor
    for name, layer in module.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            state[f"{name}.weight"] = layer.weight.detach().clone()
    return state
