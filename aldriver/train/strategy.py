"""Strategies: which layers are trained, by family and name. How they are trained is ``loop.py``'s business.

``naive`` trains the whole network. The others keep a part of the foundation:

* CHGNet, ``model-1`` to ``model-6``: Mohandas et al. (2026), Table 3, reproduced in :data:`TABLE_3`. The table names
  neither the bond weights, which go with the bond embedding they are a twin of, nor the energy readout, which
  ``train.readout`` freezes (as the text implies: "all layers were frozen except …") or trains. ``model-5`` is also
  called ``conv-only``; ``model-6`` is ``naive``.
* MACE, ``f0`` to ``f6``: Radova et al. (2025) freeze the first N children of the network.
* SevenNet, ``f0``, ``f4``, ``f6``: what MACE's levels mean for its layers; its readout is two linear layers.

Never trained: fixed energy references, and CHGNet's moment head unless moments are in the loss.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from aldriver.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from aldriver.core.recipe_train import Train

EVERYTHING = ("*",)
TABLE_3 = {
    # row: (layers of the network, trained in model 1 … 6)
    "atom embedding": (("atom_embedding",), "FFFFFT"),
    "atom convolution": (("atom_conv_layers",), "FFFTTT"),
    "bond embedding": (("bond_embedding", "bond_weights_ag", "bond_weights_bg"), "TFTFFT"),
    "bond convolution": (("bond_conv_layers",), "TTTTTT"),
    "bond basis": (("bond_basis_expansion",), "TTTTFT"),
    "angle embedding": (("angle_embedding",), "TFFTFT"),
    "angle layers": (("angle_layers",), "TTFTFT"),
    "angle basis expansion": (("angle_basis_expansion",), "TTFTFT"),
}
"""Mohandas et al. (2026), Table 3: T trainable, F frozen."""


def _model(number: int) -> tuple[str, ...]:
    """Trained layers of a column of Table 3."""
    return tuple(layer for layers, trained in TABLE_3.values() if trained[number - 1] == "T" for layer in layers)


CHGNET_READOUT = ("mlp", "readout_norm", "site_wise")
MODELS = {f"model-{n}": _model(n) for n in range(1, 6)} | {"conv-only": _model(5)}
"""Strategies whose readout ``train.readout`` decides on."""

LAYERS: dict[str, dict[str, tuple[str, ...]]] = {
    "chgnet": {"naive": EVERYTHING, "model-6": EVERYTHING, **MODELS},
    "mace": {
        "naive": EVERYTHING,
        "f0": EVERYTHING,
        "f4": ("interactions", "products", "readouts"),
        "f5": ("products", "readouts"),
        "f6": ("readouts",),
    },
    "sevennet": {
        "naive": EVERYTHING,
        "f0": EVERYTHING,
        "f4": ("[0-9]*_*", "reduce_*"),
        "f6": ("reduce_input_to_hidden", "reduce_hidden_to_energy"),
    },
}
"""Family → strategy → patterns of the network's direct children that are trained."""

NEVER = {
    "chgnet": ("composition_model",),
    "mace": ("atomic_energies_fn", "scale_shift"),
    "sevennet": ("rescale_atomic_energy",),
}
EVERY_FAMILY = ("zero-shot", "scratch", "lora", "delta")


def strategies_of(family: str) -> list[str]:
    """Names of the strategies a family has."""
    return [*LAYERS.get(family, {"naive": EVERYTHING}), *EVERY_FAMILY]


def layers_never_trained(family: str, settings: Train) -> tuple[str, ...]:
    """Direct children that no strategy trains."""
    never = NEVER.get(family, ())
    return (*never, "site_wise") if family == "chgnet" and settings.weights.magmoms == 0 else never


def trained_layers(family: str, settings: Train) -> tuple[str, ...]:
    """Patterns of the direct children that ``settings.strategy`` trains.

    Raises
    ------
    InputError
        When the family has no such strategy.
    """
    strategy = settings.strategy
    if strategy == "zero-shot":
        return ()
    if strategy in ("scratch", "lora"):
        return EVERYTHING
    layers = LAYERS.get(family, {"naive": EVERYTHING})
    if strategy not in layers:
        raise InputError(
            f"train.strategy '{strategy}' is not one of {family}'s; there is {', '.join(strategies_of(family))}"
        )
    if strategy in MODELS and settings.readout == "trainable":
        return (*layers[strategy], *CHGNET_READOUT)
    return layers[strategy]


def select_parameters(module: nn.Module, family: str, settings: Train) -> list[str]:
    """Make a strategy's parameters trainable and freeze the others.

    Returns
    -------
    list of str
        Names of the trained parameters: none for ``zero-shot``, the low-rank factors for ``lora``.

    Raises
    ------
    InputError
        When the family has no such strategy, or it leaves nothing to train.
    """
    patterns = trained_layers(family, settings)
    never = layers_never_trained(family, settings)
    trained = []
    for name, parameter in module.named_parameters():
        wanted = _matches(name, patterns) and not _matches(name, never)
        if settings.strategy == "lora":
            wanted = wanted and ".lora_" in name
        parameter.requires_grad_(wanted)
        if wanted:
            trained.append(name)
    if not trained and settings.strategy != "zero-shot":
        raise InputError(
            f"train.strategy '{settings.strategy}' leaves no trainable parameter in this {family} network "
            f"(its layers: {', '.join(name for name, _ in module.named_children())}); use strategy 'naive'"
        )
    return trained


def _matches(name: str, patterns: Collection[str]) -> bool:
    child = name.split(".")[0]
    return any(fnmatch(child, pattern) for pattern in patterns)
