"""The ``benchmark`` block: crystals, properties, what each property covers, and suites that bring all of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, get_args

from ase.data import atomic_numbers, reference_states
from pydantic import Field, field_validator, model_validator

from aldriver.core.presets import SUITES
from aldriver.core.recipe_binding import Binding, GrainBoundary, Surface
from aldriver.core.recipe_extended import Adsorption, Dislocation, Errors, Forgetting, Speed, StackingFault, Traction
from aldriver.core.recipe_hopping import Interstitial, Migration
from aldriver.core.recipe_thermal import Liquid, Melting, Phonon, Qha, ThermalMd
from aldriver.core.section import Element, Positive, Section, unique_names

CaseLattice = Literal["bcc", "fcc", "diamond", "hcp", "omega"]
ATOMS_PER_CELL = {"bcc": 2, "fcc": 4, "diamond": 8, "hcp": 2, "omega": 3}
SUPERCELLS = {"bcc": (4, 4, 4), "fcc": (3, 3, 3), "diamond": (2, 2, 2), "hcp": (5, 5, 3), "omega": (3, 3, 4)}
"""Default supercells of defects: 128, 108, 64, 150 and 108 atoms."""
C_OVER_A = {"hcp": math.sqrt(8 / 3), "omega": math.sqrt(3 / 8)}
"""Of the hexagonal crystals, where nothing better is known: hcp of hard spheres, ω out of bcc by moving atoms only."""


class Case(Section):
    """A crystal to benchmark; ``bcc-Fe`` alone stands for one with the usual start and supercell."""

    name: str
    element: Element
    lattice: CaseLattice
    a: Positive = Field(description="where the relaxation starts, Å")
    c_over_a: Positive | None = Field(
        default=None, description="of hcp and omega, where the relaxation starts; default 1.633 and 0.612"
    )
    supercell: tuple[int, int, int] = Field(default=(3, 3, 3), description="of the conventional cell, for defects")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return named_case(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _hexagonal(self) -> Case:
        if self.c_over_a is not None and not self.hexagonal:
            raise ValueError(f"c_over_a: a {self.lattice} crystal is cubic")
        return self

    @property
    def hexagonal(self) -> bool:
        """Whether the crystal has c/a to relax; others are cubic."""
        return self.lattice in C_OVER_A


Property = Literal[
    "lattice",
    "eos",
    "elastic",
    "vacancy",
    "binding",
    "surface",
    "grain_boundary",
    "migration",
    "interstitial",
    "self_interstitial",
    "di_interstitial",
    "magnetic_moment",
    "stacking_fault",
    "traction",
    "dislocation",
    "adsorption",
    "phonon",
    "qha",
    "liquid",
    "melting",
    "thermal_md",
    "errors",
    "forgetting",
    "speed",
]


class Benchmark(Section):
    """The suite each generation must pass: written out, or taken from a suite and changed."""

    suite: str | None = Field(default=None, description="a name of `recipes/suites`, or a file; keys given here win")
    properties: list[Property] = Field(default=["lattice", "eos", "elastic", "vacancy"], min_length=1)
    cases: list[Case] = Field(min_length=1)
    reference: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="case: {property: value}; empty = computed with the label's reference potential",
    )
    reference_file: Path | None = Field(
        default=None,
        description="in place of `reference`: what `aldriver benchmark --json` wrote, e.g. with "
        "[`--reference dft`](verdict.md#references)",
    )
    helpers: int = Field(
        default=0, ge=0, le=256, description="tasks that share the relaxations of a generation before they are gathered"
    )
    binding: Binding = Binding()
    surface: Surface = Surface()
    grain_boundary: GrainBoundary = GrainBoundary()
    phonon: Phonon = Field(default=Phonon(), description="of the property `phonon`")
    qha: Qha = Field(default=Qha(), description="of the property `qha`")
    liquid: Liquid = Field(default=Liquid(), description="of the property `liquid`")
    melting: Melting = Field(default=Melting(), description="of the property `melting`")
    thermal_md: ThermalMd = Field(default=ThermalMd(), description="of the property `thermal_md`")
    migration: Migration = Field(default=Migration(), description="property `migration`: [bands](benchmark_hopping.md)")
    interstitial: Interstitial = Field(
        default=Interstitial(),
        description="property `interstitial`: [interstitials](benchmark_hopping.md#interstitial)",
    )
    stacking_fault: StackingFault = StackingFault()
    traction: Traction = Traction()
    errors: Errors = Errors()
    forgetting: Forgetting = Forgetting()
    speed: Speed = Speed()
    adsorption: Adsorption = Adsorption()
    dislocation: Dislocation = Dislocation()

    @model_validator(mode="before")
    @classmethod
    def _from_suite(cls, value: Any) -> Any:
        return SUITES.complete(value) if isinstance(value, dict) and value.get("suite") else value

    @model_validator(mode="after")
    def _one_reference(self) -> Benchmark:
        if self.reference and self.reference_file is not None:
            raise ValueError("give reference or reference_file, not both")
        return self

    @model_validator(mode="after")
    def _files_of_cases(self) -> Benchmark:
        names = [case.name for case in self.cases]
        for key, files in (("liquid.structures", self.liquid.structures), ("errors.frames", self.errors.frames)):
            for name in files:
                if name not in names:
                    raise ValueError(f"{key}: '{name}' is no case of the suite; its cases: {', '.join(names)}")
        return self

    @field_validator("cases")
    @classmethod
    def _unique(cls, cases: list[Case]) -> list[Case]:
        unique_names([case.name for case in cases], "cases")
        return cases


def property_names() -> tuple[str, ...]:
    """All properties a suite can name."""
    return get_args(Property)


def named_case(name: str) -> dict[str, Any]:
    """Fields of a case such as ``bcc-Fe``, ``fcc-Cu``, ``diamond-Si``, ``hcp-Ti`` or ``omega-Ti``.

    Raises
    ------
    ValueError
        When the name is no such crystal, or there is no lattice constant to start from.
    """
    lattice, _, element = name.partition("-")
    if lattice not in ATOMS_PER_CELL or element not in atomic_numbers or element == "X":
        raise ValueError(
            f"'{name}': no such crystal. Give LATTICE-ELEMENT with the lattice bcc, fcc, diamond, hcp or omega "
            "(bcc-Fe, fcc-Cu, diamond-Si, hcp-Ti, omega-Ti)"
        )
    fields: dict[str, Any] = {
        "name": name,
        "element": element,
        "lattice": lattice,
        "a": _start(element, lattice),
        "supercell": SUPERCELLS[lattice],
    }
    if lattice in C_OVER_A:
        fields["c_over_a"] = _start_c_over_a(element, lattice)
    return fields


def _start(element: str, lattice: str) -> float:
    """Lattice constant (Å) that keeps the atomic volume of the element's ground state (``ase.data``)."""
    state: dict[str, Any] = reference_states[atomic_numbers[element]] or {}
    a, symmetry = state.get("a"), state.get("symmetry")
    if symmetry == lattice and a:
        return float(a)
    if symmetry not in ("bcc", "fcc", "diamond", "hcp") or not a:
        raise ValueError(
            f"{lattice}-{element}: there is no starting lattice constant for {element}; write the case out"
        )
    volume = a**3 * _cell_volume(symmetry, state.get("c/a")) / ATOMS_PER_CELL[symmetry]
    shape = _cell_volume(lattice, _start_c_over_a(element, lattice) if lattice in C_OVER_A else None)
    return float((volume * ATOMS_PER_CELL[lattice] / shape) ** (1 / 3))


def _start_c_over_a(element: str, lattice: str) -> float:
    state: dict[str, Any] = reference_states[atomic_numbers[element]] or {}
    known = state.get("c/a") if state.get("symmetry") == lattice else None
    return float(known or C_OVER_A[lattice])


def _cell_volume(lattice: str, c_over_a: float | None) -> float:
    """Volume of the conventional cell over a³."""
    return math.sqrt(3) / 2 * (c_over_a or C_OVER_A[lattice]) if lattice in C_OVER_A else 1.0
