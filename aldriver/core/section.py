"""What every block of the recipe is made of. The blocks themselves: ``recipe.py`` and ``recipe_*.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def beside(section: S, base: Path) -> S:
    """The block, with all files it names relative to `base` as absolute paths."""
    old = {name: getattr(section, name) for name in type(section).model_fields}
    new = {name: _beside(value, base) for name, value in old.items()}
    return section.model_copy(update={name: value for name, value in new.items() if value != old[name]})


def _beside(value: Any, base: Path) -> Any:
    if isinstance(value, Path):
        return (base / value).resolve()
    if isinstance(value, Section):
        return beside(value, base)
    if isinstance(value, dict):
        return {key: _beside(one, base) for key, one in value.items()}
    return [_beside(one, base) for one in value] if isinstance(value, list) else value
