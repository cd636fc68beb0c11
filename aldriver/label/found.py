"""What a reader of finished DFT outputs hands back: one label with where it came from.

Owns: `FoundLabel`, the contract between the readers of each code
(`read_<code>(folder_or_file) -> list[FoundLabel]`) and everything that uses
finished outputs (the engine itself, and the ingestion of other people's runs).
Leaves to others: reading (`label.<code>_output`), judging (`label.gate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from aldriver.label.base import Label


@dataclass(frozen=True, kw_only=True)
class FoundLabel:
    """One label found in a finished output.

    Attributes
    ----------
    frame
        Bare structure: positions [Å], cell [Å], pbc; initial moments dropped.
    label
        The label; its status is ok, or the reason why it is none.
    source
        Path of the output, and ``#step k`` for one of several ionic steps.
    settings
        What decides numbers: code, functional and +U, cutoff, smearing,
        k points, spin, pseudopotential titles or hashes.
    """

    frame: Atoms
    label: Label
    source: str
    settings: Mapping[str, Any]
