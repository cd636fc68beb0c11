"""Presets of the label block: settings ready to use, by name or as a file. What the keys mean is the recipe's."""

from __future__ import annotations

import difflib
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aldriver.core.errors import InputError
from aldriver.core.yamlfile import load_yaml

FOLDER = "recipes/labels"
"""In a checkout; an installed aldriver has a copy under ``share/aldriver`` of its environment."""


def preset_folder() -> Path:
    """Where the presets lie: beside the package in a checkout, else in the environment's data folder."""
    beside = Path(__file__).resolve().parents[2] / FOLDER
    return beside if beside.is_dir() else Path(sysconfig.get_path("data")) / "share" / "aldriver" / "labels"


def preset_names() -> list[str]:
    """Names of the presets that come with aldriver."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """The label block of a preset: a name of :func:`preset_names`, or a YAML file.

    Raises
    ------
    InputError
        When there is no such preset, or it is not a mapping.
    """
    path = Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        path = preset_folder() / f"{name}.yaml"
        if not path.is_file():
            close = difflib.get_close_matches(name, preset_names(), n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(preset_names()) or 'none'}"
            raise InputError(f"label.preset: no preset is called '{name}'; {hint}")
    data, _ = load_yaml(path)
    if isinstance(data, dict) and set(data) == {"label"}:
        data = data["label"]
    if not isinstance(data, dict) or "preset" in data:
        raise InputError(f"{path}: a preset is the label block of a recipe (engine, ...), without a preset of its own")
    return data


def with_preset(block: Mapping[str, Any]) -> dict[str, Any]:
    """A label block completed from the preset it names; mappings in it are merged key by key, its own keys win."""
    return _merged(load_preset(str(block["preset"])), block)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        below = out.get(key)
        out[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return out
