"""Imports run one way, from the commands down to the core; whoever checks types may look up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import aldriver

PACKAGE = Path(aldriver.__file__).parent
STAGES = ("benchmark", "detect", "explore", "export", "label", "monitor", "report", "train")
BELOW = {"core": set(), "potentials": {"core"}} | {stage: {"core", "potentials"} for stage in STAGES}
BELOW["report"] = BELOW["report"] | {"benchmark"}  # it shows what a stage found
BELOW["workflow"] = {"core", "potentials", *STAGES}
BELOW["cli"] = BELOW["workflow"] | {"workflow"}
BELOW["testing"] = BELOW["cli"] | {"cli"}


def imported(tree: ast.AST) -> set[str]:
    """Parts of aldriver that a module imports, wherever it does; not those for the type checker only."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        parts = {name.split(".")[1] for name in names if name.startswith("aldriver.")}
        found |= (parts & set(BELOW)) | imported(node)
    return found


def test_every_part_has_its_layer():
    parts = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert parts == set(BELOW)


@pytest.mark.parametrize("part", BELOW)
def test_arrows_run_one_way(part):
    for path in sorted((PACKAGE / part).rglob("*.py")):
        beyond = imported(ast.parse(path.read_text())) - BELOW[part] - {part}
        assert not beyond, f"{path.relative_to(PACKAGE)} imports aldriver.{', aldriver.'.join(sorted(beyond))}"
