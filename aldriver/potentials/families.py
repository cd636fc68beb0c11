"""Which families of neural-network potentials there are, and where their class lives (imported only when asked for)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aldriver.potentials.network import NetworkPotential

NETWORKS = {
    "chgnet": "aldriver.potentials.chgnet:CHGNetPotential",
    "mace": "aldriver.potentials.mace:MACEPotential",
    "sevennet": "aldriver.potentials.sevennet:SevenNetPotential",
}


def network_class(family: str) -> type[NetworkPotential]:
    """The class of a family named in :data:`NETWORKS`."""
    module, _, name = NETWORKS[family].partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
