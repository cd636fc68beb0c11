"""The verdict: potentials side by side against a reference, each value with its error, deviation and score.

How a deviation becomes a score is ``score.py``'s business, where reference values come from ``reference.py``'s, and
what follows for a generation ``gate.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from aldriver.benchmark.dispersion import Dispersion
from aldriver.benchmark.reference import Target, contradictions, published_targets, reference_sets
from aldriver.benchmark.score import Key, Score, deviation, figures_of_merit, score, total
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.records import PropertyRecord, read_json


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is compared: a potential and its records, of failed properties too, and its phonons by case."""

    name: str
    records: Sequence[PropertyRecord]
    phonons: Mapping[str, Dispersion] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value of a candidate against the reference; `deviation` (relative) and `score` only of a trusted value."""

    value: float | None
    error: float | None
    converged: bool
    deviation: float | None
    score: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A property of a case: the reference and one cell for each candidate (None where it was not computed)."""

    case: str
    property: str
    unit: str
    reference: Target | None
    cells: dict[str, Cell | None]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole table.

    Attributes
    ----------
    scores
        On the fixed scale, by candidate: no other candidate moves them.
    merit
        Figures of merit within this group; None where there is nobody to compare with.
    warnings
        What to know about the reference.
    """

    candidates: list[str]
    rows: list[Row]
    scores: dict[str, Score]
    merit: dict[str, float | None]
    warnings: list[str]


def by_shell(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows line by line: shells 1, 2, ... of a pair (modes of a phonon) in one, where no more is to be said of them."""

    def line(row: Row) -> tuple[str, str]:
        pair, comma, shell = row.property.rpartition(",")
        plain = row.reference is None and all(c and c.value is not None and not c.reason for c in row.cells.values())
        return (row.case, pair if comma and shell.rstrip(")").isdigit() and plain else row.property)

    return [list(group) for _, group in groupby(rows, line)]


def shells(rows: Sequence[Row]) -> str:
    """Name of a line of :func:`by_shell`: ``binding_energy(Cu-Ni,1-5)``."""
    first, last = rows[0].property, rows[-1].property.rpartition(",")[2]
    return first if len(rows) == 1 else f"{first.rstrip(')')}-{last}"


def compare(candidates: Sequence[Candidate], reference: Mapping[Key, Target] | None = None) -> Comparison:
    """Put candidates side by side.

    Parameters
    ----------
    reference
        Values to come near to; default: the published DFT values of the cases.

    Raises
    ------
    InputError
        When there is no candidate, or two have one name.
    """
    names = [c.name for c in candidates]
    if not names:
        raise InputError("there is nothing to compare")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"two of what is compared are called '{twice[0]}'; give each once")
    cases = list(dict.fromkeys(r.case for c in candidates for r in c.records))
    targets = published_targets(cases) if reference is None else dict(reference)
    found = {c.name: {(r.case, r.property): r for r in c.records} for c in candidates}
    keys = list(dict.fromkeys(key for c in candidates for key in found[c.name]))
    rows = [_row(key, targets.get(key), found) for key in keys]
    judged = {c.name: _deviations(rows, c.name) for c in candidates}
    return Comparison(
        candidates=names,
        rows=rows,
        scores={name: total(mine) for name, mine in judged.items()},
        merit=figures_of_merit(judged),
        warnings=_warnings(rows, cases, published=reference is None),
    )


def targets_of(records: Iterable[PropertyRecord], source: str) -> dict[Key, Target]:
    """Trusted values of measured records as the reference."""
    return {
        (r.case, r.property): Target(value=r.value, unit=r.unit, error=r.error, source=source)
        for r in records
        if r.value is not None and r.converged
    }


def published_candidates(cases: Iterable[str]) -> list[Candidate]:
    """Potentials whose values are printed in papers, as candidates called ``chgnet:0.2.0 (published)``."""
    records: dict[str, list[PropertyRecord]] = {}
    for case in cases:
        for entry in reference_sets(case):
            if entry.kind == "potential":
                records.setdefault(f"{entry.name} (published)", []).extend(
                    PropertyRecord(property=name, case=case, value=value, unit=entry.units[name], protocol="published")
                    for name, value in entry.values.items()
                )
    return [Candidate(name=name, records=rows) for name, rows in records.items()]


def read_candidate(path: Path) -> Candidate:
    """What ``aldriver benchmark --json FILE`` wrote.

    Raises
    ------
    InputError
        When it is something else.
    """
    try:
        data = read_json(path)
        return Candidate(
            name=str(data["potential"]),
            records=[PropertyRecord(**r) for r in data["records"]],
            phonons={case: Dispersion(**curves) for case, curves in data.get("phonons", {}).items()},
        )
    except (AldriverError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a result of `aldriver benchmark --json {path.name}` ({str(error) or type(error).__name__})"
        ) from error


def _row(key: Key, target: Target | None, found: Mapping[str, Mapping[Key, PropertyRecord]]) -> Row:
    case, name = key
    records = {who: mine.get(key) for who, mine in found.items()}
    units = [r.unit for r in records.values() if r is not None and r.unit]
    unit = units[0] if units else target.unit if target else ""
    return Row(
        case=case,
        property=name,
        unit=unit,
        reference=target,
        cells={who: None if r is None else _cell(r, target) for who, r in records.items()},
    )


def _cell(record: PropertyRecord, target: Target | None) -> Cell:
    trusted = record.value if record.converged else None
    off = None if target is None else deviation(record.property, trusted, target.value)
    judged = target is not None and (off is not None or trusted is None)
    reason = record.reason or ("" if record.converged else "not converged")
    return Cell(
        value=record.value,
        error=record.error,
        converged=record.converged,
        deviation=off,
        score=score(record.property, off) if judged else None,
        reason=reason,
    )


def _deviations(rows: Sequence[Row], name: str) -> dict[Key, float | None]:
    """Of each record that has a reference; what others list and this one does not is not held against it."""
    cells = {(row.case, row.property): row.cells[name] for row in rows}
    return {key: cell.deviation for key, cell in cells.items() if cell is not None and cell.score is not None}


def _warnings(rows: Sequence[Row], cases: Sequence[str], *, published: bool) -> list[str]:
    found = contradictions(cases) if published else []
    lacking = [f"{row.property} of {row.case}" for row in rows if row.reference is None]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        found.append(f"no reference, so not judged: {', '.join(lacking[:3])}{more}")
    return found
