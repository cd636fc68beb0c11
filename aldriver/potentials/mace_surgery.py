"""MACE networks with other heads or more elements that start as exactly what they were.

mace's layers divide by the square root of the number of inputs (its ``path_normalization``), so weights that act on a
table of elements or on the hidden units of several heads are rescaled when that number changes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from aldriver.core.errors import InputError
from aldriver.potentials.mace import MACEPotential
from aldriver.potentials.mace_arch import E0, SCALE, SHIFT, build_module

PER_ELEMENT = re.compile(r"products\.\d+\.symmetric_contractions\.contractions\.\d+\.weights(_max|\.\d+)")
ELEMENT_TABLES = re.compile(r"(node_embedding\.linear|interactions\.\d+\.(source|target)_embedding)\.weight")
SKIP = re.compile(r"interactions\.(\d+)\.skip_tp\.weight")


def with_heads(
    potential: MACEPotential,
    heads: Sequence[str] = ("pt_head", "Default"),
    *,
    e0s: Mapping[str, Mapping[str, float]] | None = None,
) -> MACEPotential:
    """A network whose heads all start as the potential's own head: same energies, forces, stresses from each of them.

    The layers before the readouts are shared, as in mace's multihead fine-tuning. With one name in `heads`, the
    potential's head alone.

    Parameters
    ----------
    heads
        Names; the result speaks with the last one.
    e0s
        Head: element: E0 in eV, where a head has other reference energies than the potential.

    Raises
    ------
    InputError
        When names repeat, or `e0s` names a head or an element that is not there.
    """
    if not heads or len(set(heads)) < len(heads):
        raise InputError(f"heads of a MACE network must be different names, not {', '.join(heads) or 'none'}")
    if unknown := sorted(set(e0s or {}) - set(heads)):
        raise InputError(f"reference energies for {', '.join(unknown)}, but the heads are {', '.join(heads)}")
    chosen = potential.heads.index(potential.head)
    state = {
        name: _for_heads(name, tensor, potential.module, chosen, len(heads))
        for name, tensor in potential.module.state_dict().items()
    }
    for name, energies in (e0s or {}).items():
        for symbol, energy in energies.items():
            if symbol not in potential.elements:
                raise InputError(f"reference energy of {symbol}, which {potential.name} does not know")
            row = potential.numbers.index(atomic_numbers[symbol])
            state[E0][heads.index(name), row] = energy
    return _rebuilt(potential, potential.arch | {"heads": list(heads), "head": heads[-1]}, state)


def with_elements(potential: MACEPotential, proxies: Mapping[str, str]) -> MACEPotential:
    """A network that knows more elements, each starting as a copy of one that it knows.

    The proxy start ("DIPI"): all rows of the table of elements are copied: embedding, self-connections, weights of the
    symmetric contractions, E0. An element the network knows already is overwritten by its proxy, but for its E0.

    Parameters
    ----------
    proxies
        New element: known element.

    Raises
    ------
    InputError
        When a proxy is unknown to the network, or itself replaced.
    """
    for symbol, proxy in proxies.items():
        if symbol not in chemical_symbols[1:]:
            raise InputError(f"train.proxies: '{symbol}' is no element")
        if proxy not in potential.elements or proxy in proxies:
            raise InputError(f"train.proxies: {symbol} cannot start from {proxy}, which {potential.name} does not know")
    old = [chemical_symbols[z] for z in potential.numbers]
    new = sorted({*old, *proxies}, key=lambda symbol: atomic_numbers[symbol])
    rows = torch.tensor([old.index(proxies.get(symbol, symbol)) for symbol in new])
    energies = torch.tensor([old.index(symbol if symbol in old else proxies[symbol]) for symbol in new])
    state = {}
    for name, tensor in potential.module.state_dict().items():
        chosen = energies if name == E0 else rows
        state[name] = _for_elements(name, tensor, chosen.to(tensor.device), len(old), potential.module)
    numbers = [atomic_numbers[symbol] for symbol in new]
    state["atomic_numbers"] = torch.tensor(numbers)
    return _rebuilt(potential, potential.arch | {"atomic_numbers": numbers}, state)


def drawn_anew(potential: MACEPotential, seed: int) -> dict[str, Tensor]:
    """Trainable weights of a new network of the same architecture, by name: what ``scratch`` starts from.

    Reference energies, scale, shift and cutoffs are no weights, and stay the potential's own.
    """
    arch = {key: value for key, value in potential.arch.items() if key != "head"}
    state = {name: tensor.cpu() for name, tensor in potential.module.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_module(arch, state, only_references=True)
    return {name: p.detach().to(potential.device, potential.dtype) for name, p in module.named_parameters()}


def _rebuilt(potential: MACEPotential, arch: dict[str, Any], state: Mapping[str, Tensor]) -> MACEPotential:
    new = MACEPotential.from_state(
        arch,
        {name: tensor.cpu() for name, tensor in state.items()},
        name=potential.name,
        device=str(potential.device),
        dtype=potential.precision,
    )
    new.skin = potential.skin
    return new


def _for_heads(name: str, tensor: Tensor, module: Any, chosen: int, n_new: int) -> Tensor:
    """A tensor of the state with the chosen head in place of every new one; no head reads another's hidden units."""
    n_old = len(module.heads)
    if name == E0:
        return torch.atleast_2d(tensor)[chosen].repeat(n_new, 1)
    if name in (SCALE, SHIFT):
        return torch.atleast_1d(tensor)[chosen].repeat(n_new)
    if not name.startswith("readouts.") or tensor.numel() == 0:
        return tensor
    number, layer, kind = name.split(".")[1:]
    if kind == "output_mask":
        return tensor[:1].repeat(tensor.numel() // n_old * n_new)
    if kind == "bias":
        return tensor.reshape(n_old, -1)[chosen].repeat(n_new)
    readout = module.readouts[int(number)]
    units = readout.hidden_irreps.dim // n_old if hasattr(readout, "hidden_irreps") else 1
    if layer in ("linear", "linear_1"):  # inputs × (heads × units); the inputs are everybody's
        return tensor.reshape(-1, n_old, units if layer == "linear_1" else 1)[:, [chosen] * n_new].flatten()
    block = tensor.reshape(n_old, units, n_old, -1)[chosen, :, chosen].double() * math.sqrt(n_new / n_old)
    blocks = block.new_zeros(n_new, units, n_new, block.shape[1])
    for head in range(n_new):
        blocks[head, :, head] = block
    return blocks.flatten()


def _for_elements(name: str, tensor: Tensor, rows: Tensor, n_old: int, module: Any) -> Tensor:
    """A tensor of the state with these rows of the table of elements."""
    if name == E0:
        return tensor[..., rows]
    if PER_ELEMENT.fullmatch(name):
        return tensor[rows] if len(tensor) == n_old else tensor  # one row: a contraction that ignores elements
    grown = math.sqrt(len(rows) / n_old)
    if ELEMENT_TABLES.fullmatch(name):
        return grown * tensor.double().reshape(n_old, -1)[rows].flatten()
    match = SKIP.fullmatch(name)
    if match is None or not hasattr(module.interactions[int(match[1])].skip_tp, "irreps_in2"):
        return tensor
    pieces, at = [], 0
    for instruction in module.interactions[int(match[1])].skip_tp.instructions:
        shape = tuple(instruction.path_shape)
        block = tensor[at : at + math.prod(shape)].reshape(shape)
        pieces.append(grown * block[:, rows].double().flatten())
        at += math.prod(shape)
    return torch.cat(pieces)
