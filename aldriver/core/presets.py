"""Presets of blocks of the recipe: settings ready to use, by name or as a file. What the keys mean is the recipe's."""

from __future__ import annotations

import difflib
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aldriver.core.errors import InputError
from aldriver.core.yamlfile import load_yaml


@dataclass(frozen=True, kw_only=True)
class Presets:
    """Presets of one block.

    Attributes
    ----------
    block, key
        The block of the recipe, and the key in it that names a preset: ``label.preset``, ``benchmark.suite``.
    folder
        In a checkout under ``recipes/``; an installed aldriver has a copy under ``share/aldriver`` of its environment.
    """

    block: str
    key: str
    folder: str

    def where(self) -> Path:
        """Where they lie: beside the package in a checkout, else in the environment's data folder."""
        beside = Path(__file__).resolve().parents[2] / "recipes" / self.folder
        return beside if beside.is_dir() else Path(sysconfig.get_path("data")) / "share" / "aldriver" / self.folder

    def names(self) -> list[str]:
        """Names of those that come with aldriver."""
        return sorted(path.stem for path in self.where().glob("*.yaml"))

    def load(self, name: str) -> dict[str, Any]:
        """The block of a preset: a name of :meth:`names`, or a YAML file.

        Raises
        ------
        InputError
            When there is no such preset, or it is not a mapping.
        """
        path = Path(name).expanduser()
        if path.suffix not in (".yaml", ".yml"):
            path = self.where() / f"{name}.yaml"
            if not path.is_file():
                close = difflib.get_close_matches(name, self.names(), n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(self.names()) or 'none'}"
                raise InputError(f"{self.block}.{self.key}: no {self.key} is called '{name}'; {hint}")
        data, _ = load_yaml(path)
        if isinstance(data, dict) and set(data) == {self.block}:
            data = data[self.block]
        if not isinstance(data, dict) or self.key in data:
            raise InputError(
                f"{path}: a {self.key} is the {self.block} block of a recipe, without a {self.key} of its own"
            )
        return data

    def complete(self, block: Mapping[str, Any]) -> dict[str, Any]:
        """A block completed from the preset it names; mappings in it are merged key by key, its own keys win."""
        return _merged(self.load(str(block[self.key])), block)

    def beside(self, data: dict[str, Any], path: Path) -> dict[str, Any]:
        """A preset that is a file lies where the recipe says, seen from the recipe at `path`."""
        block = data.get(self.block)
        if not isinstance(block, dict) or not str(block.get(self.key)).endswith((".yaml", ".yml")):
            return data
        return data | {self.block: block | {self.key: str(path.resolve().parent / Path(block[self.key]).expanduser())}}


LABELS = Presets(block="label", key="preset", folder="labels")
SUITES = Presets(block="benchmark", key="suite", folder="suites")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        below = out.get(key)
        out[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return out
