"""MACE potentials in mace's own files: ``.model``, as ``MACECalculator`` and ``mace_run_train`` read them."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from aldriver.core.errors import InputError
from aldriver.core.store import atomic_write
from aldriver.potentials.base import Potential
from aldriver.potentials.mace import MACEPotential
from aldriver.potentials.mace_arch import build_module
from aldriver.potentials.mace_library import mace_library, mace_needs


def save_vendor(potential: Potential, path: Path) -> Path:
    """Write a file for ``MACECalculator(model_paths=…)``, in the potential's precision and with all its heads.

    It is a pickle, as mace wants it: whoever opens it must trust who made it. A network of several heads is used with
    ``MACECalculator(…, head=…)``.

    Raises
    ------
    InputError
        When the potential is no MACE, or e3nn is not the one mace-torch wants.
    """
    if not isinstance(potential, MACEPotential):
        raise InputError(f"{potential.name}: not a MACE potential")
    if needs := mace_needs():
        raise InputError(f"{path}: cannot be written here{needs}")
    arch = {key: value for key, value in potential.arch.items() if key != "head"}
    state = {name: tensor.cpu() for name, tensor in potential.module.state_dict().items()}
    module = build_module(arch, state, scripted=True).to(potential.dtype).eval()
    buffer = io.BytesIO()
    with mace_library():
        torch.save(module, buffer)
    atomic_write(path, buffer.getvalue())
    return path
