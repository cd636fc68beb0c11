"""What every block of the recipe is made of. The blocks themselves: ``recipe.py`` and ``recipe_*.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

from ase.data import atomic_numbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _element(symbol: str) -> str:
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"'{symbol}' is not a chemical element")
    return symbol


Element = Annotated[str, AfterValidator(_element)]
Positive = Annotated[float, Field(gt=0)]


def unique_names(names: Iterable[str], what: str) -> None:
    """Refuse a name that is given twice.

    Raises
    ------
    ValueError
        Naming it.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"two {what} are called '{name}'")


class Section(BaseModel):
    """A block of the recipe: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)
