"""The messages of a MACE network in pieces: a pass through many pairs needs the memory of a few.

The largest tensors of a pass are those of the tensor product that makes a message of each pair: pairs × channels ×
(l_max + 1)², several times over, and once more on the way back. Here a piece of the pairs is multiplied, summed over
its receivers and forgotten; the way back multiplies it again (Chen et al., arXiv:1604.06174). mace calls a convolution
with the pairs where an interaction has the attribute ``conv_fusion``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

PAIRS = 4096
"""In a piece. Up to two pieces go as one: 108 atoms of Cu have 6,000 pairs within 5 Å."""


@contextmanager
def in_pieces(module: Any, pairs: int, *, largest: int = PAIRS) -> Iterator[None]:
    """Messages of a network on a CPU in pieces, within the block; derivatives of the first order only.

    Parameters
    ----------
    pairs
        How many there are; nothing changes for up to twice `largest`.
    largest
        Pairs in a piece.
    """
    if pairs <= 2 * largest or next(module.parameters()).device.type != "cpu":
        yield
        return
    whole = [interaction.conv_tp for interaction in module.interactions]
    try:
        for interaction, product in zip(module.interactions, whole, strict=True):
            interaction.conv_tp, interaction.conv_fusion = _Convolution(product, largest), True
        yield
    finally:
        for interaction, product in zip(module.interactions, whole, strict=True):
            interaction.conv_tp = product
            vars(interaction).pop("conv_fusion", None)


class _Convolution(torch.nn.Module):
    """Σ over the pairs of each receiver of a tensor product, (N, irreps); arguments as mace gives them."""

    def __init__(self, product: Any, largest: int) -> None:
        super().__init__()
        self.product, self.largest = product, largest

    def forward(self, nodes: Tensor, directions: Tensor, weights: Tensor, edge_index: Tensor) -> Tensor:
        return _InPieces.apply(self.product, self.largest, nodes, directions, weights, edge_index)  # type: ignore[no-any-return, no-untyped-call]


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, product: Any, largest: int, nodes: Tensor, directions: Tensor, weights: Tensor, edge_index: Tensor
    ) -> Tensor:
        ctx.product, ctx.largest = product, largest
        ctx.save_for_backward(nodes, directions, weights, edge_index)
        messages = nodes.new_zeros(len(nodes), product.irreps_out.dim)
        for piece in _pieces(len(directions), largest):
            sender, receiver = edge_index[:, piece]
            messages.index_add_(0, receiver, product(nodes[sender], directions[piece], weights[piece]))
        return messages

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # ``once_differentiable`` leaves out this part of a second derivative in silence
            raise RuntimeError("messages in pieces give first derivatives only")
        nodes, directions, weights, edge_index = ctx.saved_tensors
        asked = ctx.needs_input_grad[2:5]
        found = [torch.zeros_like(x) if wanted else None for x, wanted in zip(ctx.saved_tensors, asked, strict=False)]
        for piece in _pieces(len(directions), ctx.largest):
            sender, receiver = edge_index[:, piece]
            inputs = [nodes[sender], directions[piece].detach(), weights[piece].detach()]
            with torch.enable_grad():
                wanted = [x.requires_grad_() for x, needed in zip(inputs, asked, strict=True) if needed]
                messages = ctx.product(*inputs)
            parts = iter(torch.autograd.grad(messages, wanted, gradient[receiver]))
            for k, total in enumerate(found):
                if total is not None and k == 0:
                    total.index_add_(0, sender, next(parts))
                elif total is not None:
                    total[piece] = next(parts)
        return None, None, *found, None


def _pieces(count: int, largest: int) -> list[slice]:
    return [slice(k, k + largest) for k in range(0, count, largest)]
