"""``aldriver schema``: the JSON schema of a recipe."""

from __future__ import annotations

from aldriver.cli.common import Json, emit
from aldriver.core.recipe import json_schema


def schema(json_to: Json = None) -> None:
    """Print the JSON schema of a recipe (for editors: point your YAML plugin at it)."""
    emit(json_schema(), json_to or "-")
