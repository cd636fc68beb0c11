"""MACE's messages in pieces: ``pieces.py`` in the place of the convolutions.

mace gives a convolution the pairs where an interaction has the attribute ``conv_fusion``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from aldriver.potentials.pieces import PAIRS, summed_messages


@contextmanager
def in_pieces(module: Any, pairs: int, *, largest: int = PAIRS) -> Iterator[None]:
    """Messages of a network on a CPU in pieces, within the block; first derivatives only.

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
    def __init__(self, product: Any, largest: int) -> None:
        super().__init__()
        self.product, self.largest = product, largest

    def forward(self, nodes: Tensor, directions: Tensor, weights: Tensor, edge_index: Tensor) -> Tensor:
        return summed_messages(self.product, nodes, directions, weights, edge_index, self.largest)
