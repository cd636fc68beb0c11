"""YAML with line numbers: parse a file and say on which line each key stands. What the keys mean is the recipe's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from aldriver.core.errors import InputError

Location = tuple[str | int, ...]


def load_yaml(path: str | Path) -> tuple[Any, dict[Location, int]]:
    """Data of a YAML file and the line (1-based) of each node, by its path of keys and indices.

    Raises
    ------
    InputError
        When the file is missing, is not YAML, or gives a key twice; the message names the line.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{path}{line}: not valid YAML: {problem}") from error
    lines: dict[Location, int] = {}
    if node is not None:
        _walk(node, (), lines, path)
    return data, lines


def _walk(node: yaml.Node, where: Location, lines: dict[Location, int], path: Path) -> None:
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise InputError(f"{path}, line {line}: key '{key.value}' is given twice")
            seen.add(key.value)
            lines[(*where, key.value)] = line
            _walk(value, (*where, key.value), lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(value, (*where, i), lines, path)


def line_of(lines: dict[Location, int], where: Location) -> int | None:
    """Line of a node, or of its nearest ancestor in the file."""
    for end in range(len(where), -1, -1):
        if where[:end] in lines:
            return lines[where[:end]]
    return None
