"""Which GPU a worker process takes, where there are several. How many workers there are is the recipe's business."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver lists its GPUs (Linux): they are counted without loading CUDA into the supervisor."""


def gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names of the GPUs this process was given, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    return [str(k) for k in range(len(list(DRIVER.glob("*"))))]


def gpu_of(number: int, device: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables that give worker `number` a GPU of its own, in turn; empty where there is no choice."""
    found = gpus(environment) if device == "cuda" else []
    return {"CUDA_VISIBLE_DEVICES": found[number % len(found)]} if len(found) > 1 else {}
