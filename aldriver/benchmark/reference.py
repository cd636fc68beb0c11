"""Published values of the benchmark's crystals, with their sources (``reference/*.yaml``).

They are for people to compare with; a campaign is judged against its own reference (``gate.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from aldriver.core.yamlfile import load_yaml

FOLDER = Path(__file__).parent / "reference"


@dataclass(frozen=True, kw_only=True)
class ReferenceSet:
    """Values of one source for one crystal.

    Attributes
    ----------
    name
        ``DFT``, or the potential as in ``aldriver.load``.
    kind
        Whether they come from DFT or were computed with a potential.
    source, note
        Where they are printed, and what to know about them.
    values, units
        By property name.
    """

    case: str
    name: str
    kind: Literal["dft", "potential"]
    source: str
    values: dict[str, float]
    units: dict[str, str]
    note: str = ""


def reference_cases() -> list[str]:
    """Crystals with published values, e.g. ``bcc-Fe``."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def reference_sets(case: str) -> tuple[ReferenceSet, ...]:
    """Published values of a crystal, the preferred DFT set first; empty where there are none."""
    path = FOLDER / f"{case}.yaml"
    if case not in reference_cases():
        return ()
    data, _ = load_yaml(path)
    return tuple(
        ReferenceSet(
            case=case,
            name=entry["name"],
            kind=entry["kind"],
            source=entry["source"],
            values={name: float(value) for name, value in entry["values"].items()},
            units=data["units"],
            note=entry.get("note", ""),
        )
        for entry in data["sets"]
    )


def published(case: str, name: str = "DFT") -> ReferenceSet | None:
    """The set of one name (``DFT``, ``chgnet:0.2.0``) for a crystal, or None."""
    return next((s for s in reference_sets(case) if s.name == name), None)
