"""Published values of the benchmark's crystals, with their sources (``reference/*.yaml``), and where they disagree.

They are for people to compare with (``comparison.py``); a campaign is judged against its own reference (``gate.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Literal

from aldriver.benchmark.score import Key, deviation
from aldriver.core.yamlfile import load_yaml

FOLDER = Path(__file__).parent / "reference"
APART = 0.10
"""Deviation between two sources of DFT values that is worth a warning."""


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
    functional
        Of DFT values: ``PBE``.
    warning
        Why the source is not to be relied on: it contradicts itself. Such a set is shown and judges nobody.
    values, units
        By property name.
    """

    case: str
    name: str
    kind: Literal["dft", "potential"]
    source: str
    values: dict[str, float]
    units: dict[str, str]
    functional: str = ""
    note: str = ""
    warning: str = ""


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
            functional=entry.get("functional", ""),
            note=entry.get("note", ""),
            warning=entry.get("warning", ""),
        )
        for entry in data["sets"]
    )


def published(case: str, name: str = "DFT") -> ReferenceSet | None:
    """The set of one name (``DFT``, ``chgnet:0.2.0``) for a crystal, or None."""
    return next((s for s in reference_sets(case) if s.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reference value, its numerical error where known, and where it comes from."""

    value: float
    unit: str
    source: str
    error: float | None = None


def published_targets(cases: Iterable[str]) -> dict[Key, Target]:
    """DFT values of crystals: of each property the first set that has it and is without warnings."""
    found: dict[Key, Target] = {}
    for case in cases:
        for entry in reference_sets(case):
            if entry.kind == "dft" and not entry.warning:
                for name, value in entry.values.items():
                    target = Target(value=value, unit=entry.units[name], source=f"{entry.name}: {entry.source}")
                    found.setdefault((case, name), target)
    return found


def contradictions(cases: Iterable[str]) -> list[str]:
    """Where sources contradict themselves or each other, in sentences."""
    found = []
    for case in cases:
        sets = [entry for entry in reference_sets(case) if entry.kind == "dft"]
        found += [f"{case}, {entry.name}: {entry.warning}" for entry in sets if entry.warning]
        for one, other in combinations([entry for entry in sets if not entry.warning], 2):
            for name in one.values.keys() & other.values.keys():
                off = deviation(name, other.values[name], one.values[name])
                if off is not None and abs(off) > APART:
                    values = f"{one.values[name]:g} and {other.values[name]:g} {one.units[name]}"
                    found.append(f"{case}, {name}: {one.name} and {other.name} differ ({values})")
    return sorted(found)
