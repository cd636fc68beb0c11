"""Strategies: which weights are trained. How they are trained is ``loop.py``'s business.

``naive`` trains the whole network; ``conv-only`` trains the atom and bond convolutions and keeps the rest of the
foundation, "Model 5" of Mohandas et al. (2026), Table 3. The table does not name the readout and the bond-weight
layers; its text says that all layers but the convolutions were frozen, so they are frozen here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

STRATEGIES = ("naive", "conv-only")


def select_parameters(
    module: nn.Module, strategy: str, *, convolutions: Collection[str], never: Collection[str] = ()
) -> list[str]:
    """Make a strategy's parameters trainable and freeze the others.

    Parameters
    ----------
    convolutions
        Names of the direct children of `module` that are convolutions.
    never
        Direct children no strategy trains (fixed references, heads without labels).

    Returns
    -------
    list of str
        Names of the trainable parameters.

    Raises
    ------
    InputError
        When the strategy is unknown, or leaves nothing to train.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"train.strategy '{strategy}': there is {' and '.join(STRATEGIES)}")
    trainable = []
    for name, parameter in module.named_parameters():
        child = name.split(".")[0]
        wanted = child not in never and (strategy == "naive" or child in convolutions)
        parameter.requires_grad_(wanted)
        if wanted:
            trainable.append(name)
    if not trainable:
        raise InputError(
            f"train.strategy '{strategy}' leaves no trainable parameter in this model "
            f"(its layers: {', '.join(name for name, _ in module.named_children())}); use strategy 'naive'"
        )
    return trainable
