"""Checkpoints of a training: written in one step, readable without pickled code, exact to resume from.

This module owns the file and the random-number states; what else is in a checkpoint is ``loop.py``'s business.
"""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aldriver.core.errors import InputError, StoreError
from aldriver.core.store import atomic_write

CHECKPOINT = "checkpoint.pt"
VERSION = 2


def save_checkpoint(folder: Path, state: dict[str, Any], *, key: str) -> None:
    """Replace the checkpoint of a folder (temporary file, fsync, rename).

    Parameters
    ----------
    state
        Tensors, numbers, strings, and lists, tuples and dicts of them.
    key
        Of the training (start, data, settings): :func:`load_checkpoint` refuses another one's.
    """
    buffer = io.BytesIO()
    torch.save({"version": VERSION, "key": key, "state": state, "random": random_states()}, buffer)
    atomic_write(Path(folder) / CHECKPOINT, buffer.getvalue())


def load_checkpoint(folder: Path, *, key: str) -> dict[str, Any] | None:
    """State of the last complete checkpoint, None where there is none; restores the random-number states.

    Left-overs of a write that was cut short are removed.

    Raises
    ------
    InputError
        When it belongs to another training: changed settings are refused, never ignored.
    StoreError
        When the file is damaged.
    """
    path = Path(folder) / CHECKPOINT
    for leftover in path.parent.glob(f".{CHECKPOINT}.*.tmp"):
        leftover.unlink(missing_ok=True)
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        version, found, state = saved["version"], saved["key"], saved["state"]
    except Exception as error:
        raise StoreError(f"{path}: damaged ({error}); delete it to train from the start") from error
    if version != VERSION:
        raise InputError(f"{path}: written by another version of aldriver; delete it to train from the start")
    if found != key:
        raise InputError(
            f"{path}: belongs to a training with other frames, settings, seed or start; "
            "use an empty directory, or delete the checkpoint to train from the start"
        )
    restore_random_states(saved["random"])
    return state


def random_states() -> dict[str, Any]:
    """States of the torch, numpy and python generators, as plain types."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    words = torch.from_numpy(np.asarray(keys).astype(np.int64))
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (name, words, int(position), int(has_gauss), float(cached)),
        "python": random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the generators to what :func:`random_states` gave."""
    torch.set_rng_state(states["torch"])
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
