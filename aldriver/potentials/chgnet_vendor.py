"""CHGNet potentials in chgnet's own files: ``.pth.tar``, as ``CHGNet.from_file`` reads and chgnet's trainer writes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from aldriver.core.errors import InputError
from aldriver.core.store import atomic_write
from aldriver.potentials.chgnet import CHGNetPotential
from aldriver.potentials.network import NetworkPotential


def save_vendor(potential: NetworkPotential, path: Path) -> Path:
    """Write a file for ``chgnet.model.CHGNet.from_file``; the weights are in single precision, as chgnet computes."""
    state = {key: tensor.detach().cpu().float().clone() for key, tensor in potential.module.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"model": {"model_args": potential.arch, "state_dict": state}}, buffer)
    atomic_write(path, buffer.getvalue())
    return path


def read_checkpoint(path: Path, *, name: str, device: str = "cpu", dtype: str = "float32") -> CHGNetPotential:
    """Read a file of chgnet or of its trainer; nothing in it is ever run (``weights_only``).

    Raises
    ------
    InputError
        When it is not such a file, holds more than tensors and plain values, or the weights do not fit.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch says of a file that is something else
        raise InputError(
            f"{path}: is not a CHGNet file that can be read without running code from it ({_first_line(error)}). "
            "Files that chgnet's own trainer writes can be; save this one again with chgnet: "
            "torch.save({'model': model.as_dict()}, FILE)."
        ) from error
    model: Any = saved.get("model", saved) if isinstance(saved, dict) else None
    if not isinstance(model, dict) or not {"model_args", "state_dict"} <= set(model):
        raise InputError(f"{path}: is not a CHGNet file: there is no 'model' with 'model_args' and 'state_dict' in it")
    arch, state = model["model_args"], model["state_dict"]
    for args in (arch, arch | {"mlp_out_bias": True}):  # files of version 0.2.0 do not say that they have this bias
        try:
            return CHGNetPotential.from_state(args, state, name=name, device=device, dtype=dtype)
        except InputError:
            raise
        except Exception as error:
            problem = error
    raise InputError(f"{path}: its weights do not fit its model_args ({_first_line(problem)})") from problem


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
