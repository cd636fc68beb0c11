"""Label: energy, forces and stress of a frame from a reference engine; each label is a value or a reason."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from aldriver.core import recipe_label
from aldriver.label.base import Label, Labeler, LabelSpec
from aldriver.label.cache import label_frame
from aldriver.label.gate import LabelLimits, check_label
from aldriver.label.process import clean_orphans

__all__ = [
    "Label",
    "LabelLimits",
    "LabelSpec",
    "Labeler",
    "check_label",
    "clean_orphans",
    "label_frame",
    "make_labeler",
]


def make_labeler(
    settings: recipe_label.Label, elements: Iterable[str] = (), *, threads: int = 1
) -> tuple[Labeler, LabelSpec]:
    """Labeler and spec of a recipe's label block, from ``make`` in the module of its engine.

    Parameters
    ----------
    elements
        Chemical symbols of the frames (for ``preflight``).
    threads
        Threads of the engine's processes.
    """
    engine = import_module(f"aldriver.label.{settings.engine}")
    made: tuple[Labeler, LabelSpec] = engine.make(settings, tuple(dict.fromkeys(elements)), threads=threads)
    return made
