"""Which families of neural-network potentials there are, where their class lives, and which can be imported here."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aldriver.potentials.network import NetworkPotential

NETWORKS = {
    "chgnet": "aldriver.potentials.chgnet:CHGNetPotential",
    "mace": "aldriver.potentials.mace:MACEPotential",
    "sevennet": "aldriver.potentials.sevennet:SevenNetPotential",
}
COMPOSITES = {"delta": "aldriver.potentials.delta:DeltaPotential"}
"""Potentials made of others: a class with ``parts`` (name: potential), ``arch`` (JSON) and ``from_parts``."""
PACKAGES = {"chgnet": "chgnet", "mace": "mace", "sevennet": "sevenn"}
"""What a family's class imports."""
SEVENNET_VERSIONS = ("7net-0",)
"""Known here, so that a wrong name is refused before another Python is started."""
OWN_ENVIRONMENT = frozenset({"sevennet"})
"""Families whose packages exclude others': they have a Python of their own, and a FireWorks category of their name."""


def network_class(family: str) -> type[NetworkPotential]:
    """The class of a family named in :data:`NETWORKS` (imported only when asked for)."""
    module, _, name = NETWORKS[family].partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def composite_class(family: str) -> Any:
    """The class of a family named in :data:`COMPOSITES` (imported only when asked for)."""
    module, _, name = COMPOSITES[family].partition(":")
    return getattr(importlib.import_module(module), name)


def is_here(family: str) -> bool:
    """Whether potentials of this family can run in this Python."""
    return family not in PACKAGES or importlib.util.find_spec(PACKAGES[family]) is not None


def family_of(ref: str | Path) -> str:
    """Family of a potential as named in a recipe, without loading it; empty when that cannot be told."""
    config = Path(ref) / "config.json"
    if config.is_file():
        try:
            return str(json.loads(config.read_text())["family"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
    family, colon, _ = str(ref).partition(":")
    return family if colon else ""


def energy_scale(arch: Mapping[str, Any]) -> str:
    """Scale of the energies of a CHGNet with these ``model_args`` (see ``Potential.energy_scale``)."""
    r2scan = "r2scan" in (arch.get("version"), str(arch.get("composition_model")).lower().removeprefix("mp-"))
    return "" if r2scan else str(arch.get("energy_scale", "mp2020"))


def energy_scale_of(ref: str | Path) -> str:
    """``Potential.energy_scale`` of a potential as named in a recipe, without loading it."""
    family, config = family_of(ref), Path(ref) / "config.json"
    if family == "delta":
        return energy_scale_of(Path(ref) / "base")
    if family != "chgnet":
        return ""
    named = {"version": str(ref).partition(":")[2]}
    return energy_scale(json.loads(config.read_text())["arch"] if config.is_file() else named)
