"""Saved potentials of every family that can be made here, and edits of them that keep their sums right."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from aldriver import load
from aldriver.core.store import sha256_file
from aldriver.potentials.bundle import _digest

FORMAT_1 = Path(__file__).parent / "data" / "format-1"
"""Written by the last version that wrote format 1; never to be written again. A CHGNet of 3828 random weights."""
FAMILIES = ("chgnet", "eam", "mace", "sevennet")


def small(family: str):
    """A potential of that family, as small as there is; skips the test where its program is not installed."""
    if family == "eam":
        return load("eam:Fe_mm.eam.fs")
    if family == "chgnet":
        return load(FORMAT_1)
    needed = {"mace": "mace", "sevennet": "sevenn"}[family]
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed here")
    if family == "sevennet":
        return load("sevennet:7net-0")
    from aldriver.testing.small_mace import small_mace

    return small_mace()


def rewrite_config(folder: Path, change) -> None:
    """Edit the config and keep its own sum right."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    config["sha256"] = _digest(config)
    (folder / "config.json").write_text(json.dumps(config))


def resum(folder: Path, part: str) -> None:
    """Make the sum of an edited file right, so that the next check is what speaks."""
    rewrite_config(folder, lambda c: c[part].update(sha256=sha256_file(folder / c[part]["file"])))
