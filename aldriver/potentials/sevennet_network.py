"""SevenNet's network: built from plain JSON and weights, and its forward pass over edge vectors.

What is made of its energies (forces, stress, batches) is ``sevennet.py``'s business. Importable only where ``sevenn``
is.
"""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sevenn._const as sevenn_constants
import sevenn._keys as KEY
import torch
from ase.data import chemical_symbols
from sevenn.model_build import build_E3_equivariant_model
from sevenn.nn.convolution import IrrepsConvolution
from sevenn.nn.sequential import AtomGraphSequential
from torch import Tensor
from torch.nn import functional

from aldriver.core.errors import InputError
from aldriver.potentials.pieces import summed_messages

ONE_HOT, RESCALE = "onehot_idx_to_onehot", "rescale_atomic_energy"
TO_HIDDEN, TO_ENERGY = "reduce_input_to_hidden", "reduce_hidden_to_energy"
CONSTANT = "._w3j_"
"""In the names of Wigner 3j symbols: e3nn makes them anew in full precision, a file holds them as they were rounded."""
_FIXED = {
    KEY.USE_MODAL_NODE_EMBEDDING: False,
    KEY.USE_MODAL_SELF_INTER_INTRO: False,
    KEY.USE_MODAL_SELF_INTER_OUTRO: False,
    KEY.USE_MODAL_OUTPUT_BLOCK: False,
    KEY.READOUT_AS_FCN: False,
    KEY.USE_FLASH_TP: False,
    KEY.CUEQUIVARIANCE_CONFIG: {},
    KEY.USE_OEQ: False,
}
"""What the networks handled here have in common: one fidelity, a linear readout, e3nn's own tensor products."""
_ELSEWHERE = (KEY.CONV_DENOMINATOR, KEY.READOUT_FCN_HIDDEN_NEURONS, KEY.READOUT_FCN_ACTIVATION)
"""Model keys that are no part of an architecture: what is among the weights, and what a linear readout lacks."""


def arch_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture in a sevenn configuration, as JSON: its model keys, and ``species`` in the order of the one-hot.

    Energy shifts, scales and convolution denominators are weights and lie with them; how the network was trained, and
    on which device, is left out.

    Raises
    ------
    InputError
        When it is a kind of network that is not handled.
    """
    if config.get(KEY.USE_MODALITY, False) or config.get(KEY.READOUT_AS_FCN, False):
        raise InputError("SevenNet models with several modalities or a non-linear readout are not supported")
    keys = set(sevenn_constants.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG) - set(_FIXED) - set(_ELSEWHERE)
    arch: dict[str, Any] = {key: copy.deepcopy(config[key]) for key in sorted(keys)}
    order = config[KEY.TYPE_MAP]
    arch["species"] = sorted((int(z) for z in order), key=lambda z: int(order[z]))
    return arch


def config_of(arch: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """A sevenn configuration of an architecture; the inverse of :func:`arch_of`.

    Parameters
    ----------
    state
        Where shifts, scales and denominators are taken from; neutral ones without it.
    """
    config = copy.deepcopy({key: value for key, value in arch.items() if key != "species"}) | copy.deepcopy(_FIXED)
    species = list(arch["species"])
    layers = int(config[KEY.NUM_CONVOLUTION])
    config[KEY.TYPE_MAP] = {z: k for k, z in enumerate(species)}
    config[KEY.NUM_SPECIES] = len(species)
    config[KEY.CHEMICAL_SPECIES] = [chemical_symbols[z] for z in species]
    config[KEY.CHEMICAL_SPECIES_BY_ATOMIC_NUMBER] = species
    config[KEY.MODEL_TYPE] = "E3_equivariant_model"
    config[KEY.SHIFT], config[KEY.SCALE] = [0.0] * len(species), [1.0] * len(species)
    config[KEY.CONV_DENOMINATOR] = [1.0] * layers
    if state is not None:
        for key in ("shift", "scale"):
            values = state[f"{RESCALE}.{key}"].tolist()
            config[key] = values * len(species) if len(values) == 1 else values
        config[KEY.CONV_DENOMINATOR] = [float(state[f"{t}_convolution.denominator"]) for t in range(layers)]
    return config


class SevenNetwork(AtomGraphSequential):
    """sevenn's network with its architecture, and copies that are built as the original was.

    A copy of e3nn's generated code is not the same code: it has other constants in its state. Numbers that sevenn never
    trains (shifts, scales, denominators) are buffers here, so that no strategy can train them by accident; their names
    stay.

    Attributes
    ----------
    arch
        See :func:`arch_of`.
    """

    arch: dict[str, Any]

    def __init__(self, arch: Mapping[str, Any], dtype: torch.dtype) -> None:
        config = config_of(arch)
        with default_dtype(dtype):
            built = build_E3_equivariant_model(config)
        layers = OrderedDict(built.named_children())
        super().__init__(layers, cutoff=config[KEY.CUTOFF], type_map=config[KEY.TYPE_MAP], data_key_grad=built.key_grad)
        self.arch = dict(arch)
        for module in self.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if not parameter.requires_grad:
                    delattr(module, name)
                    module.register_buffer(name, parameter.data)
        self.to(dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> SevenNetwork:
        own = dict(self.named_parameters())
        first = next(iter(own.values()))
        new = build_network(self.arch, self.state_dict(), dtype=first.dtype).to(first.device)
        for name, parameter in new.named_parameters():
            parameter.requires_grad_(own[name].requires_grad)
        new.train(self.training)
        memo[id(self)] = new
        return new


def build_network(
    arch: Mapping[str, Any], state: Mapping[str, Tensor] | None = None, *, dtype: torch.dtype = torch.float32
) -> SevenNetwork:
    """A network of an architecture, with these weights (or new ones, drawn from torch's generator).

    Wigner 3j symbols are those of `dtype`, so that a double-precision network is symmetric to double precision.

    Raises
    ------
    InputError
        When the weights are not of this architecture.
    """
    network = SevenNetwork(arch, dtype)
    if state is not None:
        _load(network, state)
    return network


def _load(network: SevenNetwork, state: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    wrong = sorted(set(own) ^ set(state)) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        raise InputError(f"the weights are not of this SevenNet architecture: {', '.join(wrong[:4])} ...")
    for key, value in own.items():
        if CONSTANT in key and not torch.allclose(value.float().cpu(), state[key].float().cpu(), atol=1e-5):
            raise InputError(
                f"{key}: another convention of coupling coefficients (an old e3nn); convert the model anew"
            )
    network.load_state_dict({k: own[k] if CONSTANT in k else v for k, v in state.items()})


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's default type inside (e3nn makes its constants in it)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class SiteOutputs:
    """Per-atom results, atoms in the order of the input; attached to edge vectors and weights.

    Attributes
    ----------
    energies
        (N,) eV.
    inputs
        (N, 128 in 7net-0): what the readout reads.
    hidden
        (N, 64 in 7net-0): what its last linear layer reads.
    """

    energies: Tensor
    inputs: Tensor
    hidden: Tensor


def site_outputs(
    network: SevenNetwork, types: Tensor, edges: Tensor, vectors: Tensor, *, largest: int | None = None
) -> SiteOutputs:
    """Forward pass: sevenn's layers in their order, but for those that sum and differentiate.

    Parameters
    ----------
    types
        (N,) places of the atoms' elements in the one-hot.
    edges
        (2, E) centre and neighbour.
    vectors
        (E, 3) Å, from centre to neighbour.
    largest
        Pairs in a piece (``pieces.py``), for first derivatives only; all pairs at once without it.
    """
    one_hot = functional.one_hot(types, len(network.arch["species"])).to(vectors.dtype)
    data: dict[str, Tensor] = {
        KEY.EDGE_VEC: vectors,
        KEY.EDGE_IDX: edges,
        KEY.NODE_FEATURE: one_hot,
        KEY.NODE_ATTR: one_hot,
        KEY.ATOM_TYPE: types,
    }
    inputs = hidden = one_hot
    for name, layer in network.named_children():
        if name == ONE_HOT:  # sevenn's own is in single precision whatever the network is in
            continue
        if name == TO_HIDDEN:
            inputs = data[KEY.NODE_FEATURE]
        elif name == TO_ENERGY:
            hidden = data[KEY.NODE_FEATURE]
        if largest is not None and isinstance(layer, IrrepsConvolution):
            data = _convolved(layer, data, largest)
        else:
            data = layer(data)
        if name == RESCALE:
            break
    return SiteOutputs(energies=data[KEY.ATOMIC_ENERGY].view(-1), inputs=inputs, hidden=hidden)


def _convolved(layer: Any, data: dict[str, Tensor], largest: int) -> dict[str, Tensor]:
    """What a convolution of sevenn does, in pieces."""
    weights = layer.weight_nn(data[layer.key_weight_input])
    edges = data[layer.key_edge_idx].flip(0)
    messages = summed_messages(layer.convolution, data[layer.key_x], data[layer.key_filter], weights, edges, largest)
    data[layer.key_x] = messages.div(layer.denominator)
    return data
