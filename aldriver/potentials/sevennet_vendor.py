"""SevenNet's own checkpoints: written for use with ``sevenn``, and read without running what a pickle may hold."""

from __future__ import annotations

import io
import pickle
import time
import uuid
from pathlib import Path
from typing import Any

import sevenn
import sevenn._keys as KEY
import torch
from sevenn.checkpoint import _config_cp_routine
from sevenn.model_build import build_E3_equivariant_model
from sevenn.scripts.backward_compatibility import patch_state_dict_if_old
from torch import Tensor

from aldriver.core.errors import InputError
from aldriver.core.store import atomic_write
from aldriver.potentials.base import Potential
from aldriver.potentials.sevennet import SevenNetPotential
from aldriver.potentials.sevennet_network import arch_of, config_of


def save_vendor(potential: Potential, path: Path) -> Path:
    """Write a checkpoint (``.pth``) that ``SevenNetCalculator`` and ``sevenn get_model`` load; in single precision.

    Raises
    ------
    InputError
        When the potential is not a SevenNet one.
    """
    if not isinstance(potential, SevenNetPotential):
        raise InputError(f"{potential.name}: not a SevenNet potential")
    state = {k: _single(v) for k, v in potential.module.state_dict().items()}
    config = config_of(potential.arch, state) | {"version": sevenn.__version__, KEY.DTYPE: "single"}
    buffer = io.BytesIO()
    torch.save(
        {
            "model_state_dict": state,
            "optimizer_state_dict": {},
            "scheduler_state_dict": None,
            "epoch": 0,
            "time": time.strftime("%Y-%m-%d %H:%M"),
            "hash": uuid.uuid4().hex,
            "config": config,
        },
        buffer,
    )
    atomic_write(path, buffer.getvalue())
    return path


def read_vendor(path: str | Path, *, name: str | None = None, trusted: bool = False) -> SevenNetPotential:
    """A potential from a checkpoint of ``sevenn train``.

    Parameters
    ----------
    trusted
        Unpickle whatever the file holds, code too. Checkpoints that sevenn 0.13 wrote don't need it.

    Raises
    ------
    InputError
        When the file cannot be read, holds more than plain data (and is not trusted), or another kind of network.
    """
    path = Path(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=not trusted)
        config, state = saved["config"], saved["model_state_dict"]
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds more than weights and numbers, and reading the rest would run code from it. "
            "Only if you trust its author, say so (--trust-pickle)."
        ) from error
    except Exception as error:  # a missing, truncated or foreign file: torch raises many types
        raise InputError(f"{path}: cannot be read as a checkpoint of SevenNet ({_first_line(error)})") from error
    arch, state = _todays(config, state, path)
    return SevenNetPotential.from_state(arch, state, name=name or f"sevennet:{path.stem}")


def _todays(config: dict[str, Any], state: dict[str, Tensor], path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Architecture and weights as today's sevenn has them: those of older versions are named and ordered otherwise."""
    try:
        config = _config_cp_routine(config)
        arch = arch_of(config)
        network = build_E3_equivariant_model(config)
        network.load_state_dict(patch_state_dict_if_old(state, config, network))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # whatever sevenn says of a configuration that is not one
        raise InputError(f"{path}: not a checkpoint this version of sevenn reads ({_first_line(error)})") from error
    return arch, network.state_dict()


def _single(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).contiguous().clone()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
