"""The ``benchmark`` block: crystals, properties, what each property covers, and suites that bring all of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, get_args

from ase.data import atomic_numbers, reference_states
from pydantic import Field, field_validator, model_validator

from aldriver.core.presets import SUITES
from aldriver.core.recipe_binding import Binding, GrainBoundary, Surface
from aldriver.core.section import Element, Positive, Section, unique_names

CaseLattice = Literal["bcc", "fcc", "diamond"]
ATOMS_PER_CELL = {"bcc": 2, "fcc": 4, "diamond": 8}
SUPERCELLS = {"bcc": (4, 4, 4), "fcc": (3, 3, 3), "diamond": (2, 2, 2)}
"""Default supercells of defects: 128, 108 and 64 atoms."""


class Case(Section):
    """A crystal to benchmark; ``bcc-Fe`` alone stands for one with the usual start and supercell."""

    name: str
    element: Element
    lattice: CaseLattice
    a: Positive = Field(description="where the relaxation starts, Å")
    supercell: tuple[int, int, int] = Field(default=(3, 3, 3), description="of the conventional cell, for defects")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return named_case(value) if isinstance(value, str) else value


Property = Literal["lattice", "eos", "elastic", "vacancy", "binding", "surface", "grain_boundary"]


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
    binding: Binding = Binding()
    surface: Surface = Surface()
    grain_boundary: GrainBoundary = GrainBoundary()
    helpers: int = Field(
        default=0, ge=0, le=256, description="tasks that share the relaxations of a generation before they are gathered"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_suite(cls, value: Any) -> Any:
        return SUITES.complete(value) if isinstance(value, dict) and value.get("suite") else value

    @model_validator(mode="after")
    def _one_reference(self) -> Benchmark:
        if self.reference and self.reference_file is not None:
            raise ValueError("give reference or reference_file, not both")
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
    """Fields of a case such as ``bcc-Fe``, ``fcc-Cu`` or ``diamond-Si``.

    Raises
    ------
    ValueError
        When the name is no such crystal, or there is no lattice constant to start from.
    """
    lattice, _, element = name.partition("-")
    if lattice not in ATOMS_PER_CELL or element not in atomic_numbers or element == "X":
        raise ValueError(
            f"'{name}': no such crystal. Give LATTICE-ELEMENT with the lattice bcc, fcc or diamond "
            "(bcc-Fe, fcc-Cu, diamond-Si)"
        )
    return {
        "name": name,
        "element": element,
        "lattice": lattice,
        "a": _start(element, lattice),
        "supercell": SUPERCELLS[lattice],
    }


def _start(element: str, lattice: str) -> float:
    """Lattice constant (Å) that keeps the atomic volume of the element's ground state (``ase.data``)."""
    state: dict[str, Any] = reference_states[atomic_numbers[element]] or {}
    a, symmetry = state.get("a"), state.get("symmetry")
    if symmetry == lattice and a:
        return float(a)
    if symmetry in ATOMS_PER_CELL and a:
        volume = a**3 / ATOMS_PER_CELL[symmetry]
    elif symmetry == "hcp" and a:
        volume = a**3 * state["c/a"] * math.sqrt(3) / 4
    else:
        raise ValueError(
            f"{lattice}-{element}: there is no starting lattice constant for {element}; write the case out"
        )
    return float((volume * ATOMS_PER_CELL[lattice]) ** (1 / 3))
