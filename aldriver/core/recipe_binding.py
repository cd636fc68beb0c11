"""Blocks of the benchmark about solutes, surfaces and grain boundaries: ``benchmark.binding`` and its neighbours."""

from __future__ import annotations

from typing import Annotated

from ase.data import atomic_numbers
from pydantic import AfterValidator, Field, field_validator

from aldriver.core.section import Section, unique_names

VACANCY = "vac"


def _species(symbol: str) -> str:
    if symbol != VACANCY and (symbol not in atomic_numbers or symbol == "X"):
        raise ValueError(f"'{symbol}' is neither a chemical element nor '{VACANCY}', a vacancy")
    return symbol


Species = Annotated[str, AfterValidator(_species)]


class Binding(Section):
    """Pairs of substitutional solutes; a vacancy is the species ``vac``."""

    solutes: list[Species] = Field(default=[VACANCY], min_length=1, description="elements, and `vac` for a vacancy")
    shells: int = Field(default=5, ge=1, le=5, description="how many shells of neighbours, nearest first")

    @field_validator("solutes")
    @classmethod
    def _unique(cls, solutes: list[str]) -> list[str]:
        unique_names(solutes, "solutes")
        return solutes
