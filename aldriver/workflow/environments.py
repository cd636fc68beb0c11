"""Which tasks need a Python of their own: a FireWorks category per family of potentials that excludes others' packages.

Workers of such a category run in the Python the user has configured (``core/config.py``), so that there the potential
is in the worker's own process; other workers leave these tasks alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.config import required_python
from aldriver.potentials.families import OWN_ENVIRONMENT, family_of, is_here

if TYPE_CHECKING:
    from aldriver.core.recipe import Recipe

GROUPS = {"reference": "benchmark", "baseline": "train", "relax": "benchmark"}
"""Stages that run where another one's category runs."""
POTENTIAL = frozenset({"baseline", "explore", "select", "train", "relax", "benchmark"})
"""Stages that evaluate or train the campaign's potential."""
DFT = "dft"
"""Category of the labels once ``resources.queue`` says what its jobs ask for."""
REFERENCE = frozenset({"reference", "label"})
"""Stages that evaluate the reference, which may be a potential too."""


def category_of(recipe: Recipe, stage: str) -> str | None:
    """FireWorks category of a stage: the recipe's, else that of the environment it needs; None: any worker will do."""
    categories: dict[Any, str] = dict(recipe.resources.categories)
    named = categories.get(GROUPS.get(stage, stage))
    if named is not None:
        return named
    if stage == "label" and DFT in recipe.resources.queue:
        return DFT
    family = ""
    if stage in POTENTIAL:
        family = family_of(recipe.potential)
    elif stage in REFERENCE and recipe.label.reference is not None:
        family = family_of(recipe.label.reference)
    return family if family in OWN_ENVIRONMENT else None


def pythons(recipe: Recipe) -> dict[str, Path]:
    """Categories whose tasks cannot be done in this Python, and the Python for each.

    Raises
    ------
    InputError
        When none is configured.
    """
    wanted = {category_of(recipe, stage) for stage in POTENTIAL | REFERENCE}
    return {category: required_python(category) for category in elsewhere() if category in wanted}


def elsewhere() -> list[str]:
    """Categories whose tasks workers of this Python leave alone."""
    return [category for category in sorted(OWN_ENVIRONMENT) if not is_here(category)]
