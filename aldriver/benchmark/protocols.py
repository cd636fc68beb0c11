"""All properties there are, and what the suite must know of each. How one is computed is its own module's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aldriver.benchmark import (
    adsorption,
    binding,
    di_interstitial,
    dislocation,
    elastic,
    eos,
    errors,
    forgetting,
    grain_boundary,
    interstitial,
    lattice,
    liquid,
    magnetic_moment,
    melting,
    migration,
    phonon,
    qha,
    self_interstitial,
    speed,
    stacking_fault,
    surface,
    thermal_md,
    traction,
    vacancy,
)
from aldriver.benchmark.cases import times
from aldriver.benchmark.measure import Value
from aldriver.core.recipe_benchmark import Case


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A property module as the suite sees it.

    Attributes
    ----------
    name, version
        A change of what is computed asks for another version: records of the old one are not used any more.
    units
        Names and units of the values, given the case and the property's block of the suite: also of those that fail.
    compute
        ``compute(bench, case)`` for the lattice constant, ``compute(bench, case, a)`` for the others, and
        ``compute(bench, case, a, options)`` where the property has a block of its own.
    options
        Whether it has: the field of :class:`Benchmark` of the same name.
    supercell
        Whether it is made in the case's supercell, and so asks for a host that is mechanically stable.
    stable
        Whether it asks for such a host without being made in the supercell.
    hexagonal
        Whether it knows hcp and ω crystals as well as cubic ones.
    content
        What else decides the values, by case and options: the frames in a file, the machine.
    """

    name: str
    version: int
    units: Callable[[Case, Any], Mapping[str, str]]
    compute: Callable[..., list[Value]]
    options: bool = False
    supercell: bool = False
    stable: bool = False
    hexagonal: bool = False
    content: Callable[[Case, Any], str] = lambda case, options: ""

    def label(self, case: Case) -> str:
        """Name and version as records show it, with the supercell where one matters."""
        size = f" {times(case.supercell)}" if self.supercell else ""
        return f"{self.name}/{self.version}{size}"


def _of(module: Any, **flags: Any) -> Protocol:
    """The protocol of a module: its ``VERSION``, ``compute``, and ``units`` or, always the same, ``PROPERTIES``."""
    return Protocol(
        name=module.__name__.rpartition(".")[2],
        version=module.VERSION,
        units=getattr(module, "units", lambda *_: module.PROPERTIES),
        compute=module.compute,
        **flags | ({"content": module.content} if hasattr(module, "content") else {}),
    )


LATTICE = _of(lattice, hexagonal=True)
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        LATTICE,
        _of(eos),
        _of(elastic, hexagonal=True),
        _of(vacancy, supercell=True, hexagonal=True),
        _of(binding, options=True, supercell=True),
        _of(surface, options=True, stable=True),
        _of(grain_boundary, options=True, stable=True),
        _of(migration, options=True, supercell=True),
        _of(interstitial, options=True, supercell=True),
        _of(self_interstitial, supercell=True),
        _of(di_interstitial, supercell=True),
        _of(magnetic_moment, hexagonal=True),
        _of(stacking_fault, options=True, stable=True),
        _of(traction, options=True, stable=True),
        _of(dislocation, options=True, stable=True),
        _of(adsorption, options=True, stable=True),
        _of(phonon, options=True, hexagonal=True),
        _of(qha, options=True, hexagonal=True),
        _of(liquid, options=True, hexagonal=True),
        _of(melting, options=True, hexagonal=True),
        _of(thermal_md, options=True, hexagonal=True),
        _of(errors, options=True, hexagonal=True),
        _of(forgetting, options=True, hexagonal=True),
        _of(speed, options=True, supercell=True, hexagonal=True),
    )
}
