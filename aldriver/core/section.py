"""What every block of the recipe is made of. The blocks themselves: ``recipe.py`` and ``recipe_*.py``."""

from __future__ import annotations

from typing import Annotated

from ase.data import atomic_numbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _element(symbol: str) -> str:
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"'{symbol}' is not a chemical element")
    return symbol


Element = Annotated[str, AfterValidator(_element)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A block of the recipe: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)
