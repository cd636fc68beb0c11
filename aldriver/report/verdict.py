"""The verdict on potentials as figures and a table, in a campaign's report and on the page of ``aldriver compare``.

What the numbers are is the benchmark's business (``aldriver.benchmark.comparison``).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from aldriver.benchmark.comparison import (
    Candidate,
    Cell,
    Comparison,
    Row,
    by_shell,
    compare,
    published_candidates,
    shells,
    targets_of,
)
from aldriver.benchmark.reference import reference_sets
from aldriver.benchmark.score import scale_of, score
from aldriver.core.records import PropertyRecord
from aldriver.report.data import Campaign
from aldriver.report.figures import Figure, layout, rounded
from aldriver.report.words import count, number, percent, property_name, signed, unit_name

SHOWN = 40
"""Most properties in a figure: those on which the potentials differ most."""
COLOURS = 6
"""Colours of the style's generations."""
_FIELDS = ("property", "case", "value", "unit", "error", "converged", "reason", "protocol")


def score_figure(found: Comparison) -> Figure:
    """Score on the fixed scale and figure of merit of each potential."""
    title = "Score of the benchmark"
    caption = (
        "Score: mean over the properties on a fixed scale from 0 (bad) to 1 (good); no other potential moves it. "
        "Figure of merit: 1 is the best in everything among those shown, 0 the worst."
    )
    names = [name for name in found.candidates if found.scores[name].value is not None]
    if not names:
        return Figure(key="benchmark-score", title=title, caption=caption, missing="No value could be judged yet.")
    series = {
        "score": ([found.scores[name].value for name in names], "var(--series-latest)", "circle"),
        "figure of merit": ([found.merit[name] for name in names], "var(--series-foundation)", "diamond-open"),
    }
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": label,
            "x": [name for name, value in zip(names, values, strict=True) if value is not None],
            "y": rounded([value for value in values if value is not None]),
            "marker": {"size": 10, "color": colour, "symbol": symbol},
            "line": {"color": colour, "dash": "dot"},
            "hovertemplate": f"%{{x}}: %{{y:.2f}}<extra>{label}</extra>",
        }
        for label, (values, colour, symbol) in series.items()
        if any(value is not None for value in values)
    ]
    spec = {"data": traces, "layout": layout("", "0 bad, 1 good", yaxis={"range": [-0.05, 1.08]})}
    alt = "Score of the benchmark: " + ", ".join(f"{n} {number(found.scores[n].value, 2)}" for n in names) + "."
    return Figure(key="benchmark-score", title=title, caption=caption, spec=spec, alt=alt)


def deviation_figure(found: Comparison) -> Figure:
    """Deviation of each property from the reference, one series for each potential."""
    title = "Deviation from the reference (%)"
    rows = [row for row in found.rows if any(cell and cell.deviation is not None for cell in row.cells.values())]
    rows = sorted(rows, key=_spread, reverse=True)[:SHOWN]
    rows = [row for row in found.rows if row in rows]
    caption = "Each mark is a property of a potential; only values that can be trusted are drawn."
    if len(rows) < len(found.rows):
        caption += f" Shown: {count(len(rows), 'property', 'properties')} of {len(found.rows)}."
    if not rows:
        return Figure(key="benchmark-deviation", title=title, caption=caption, missing="No deviation is known yet.")
    traces = []
    for i, name in enumerate(found.candidates):
        mine = [(row, cell.deviation) for row in rows if (cell := row.cells[name]) and cell.deviation is not None]
        if mine:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": rounded([100 * off for _, off in mine]),
                    "y": [_row_name(row) for row, _ in mine],
                    "marker": {"size": 10, "color": f"var(--gen-{i % COLOURS})"},
                    "hovertemplate": "%{y}: %{x:.3g} %<extra>%{fullData.name}</extra>",
                }
            )
    height = 120 + 26 * len(rows)
    spec = {
        "data": traces,
        "layout": layout("deviation (%)", "", height=max(height, 300), yaxis={"autorange": "reversed"}),
    }
    alt = f"Deviation from the reference of {count(len(rows), 'property', 'properties')} for {found.candidates}."
    return Figure(key="benchmark-deviation", title=title, caption=caption, spec=spec, alt=alt)


def comparison_table(found: Comparison) -> str:
    """All values with errors and deviations as an HTML table, then scores, remarks and warnings."""
    from aldriver.report.tables import table

    notes: list[str] = []

    def name(line: list[Row]) -> str:
        where = escape(f"{line[0].case}, {unit_name(line[0].unit)}")
        return f'{escape(property_name(shells(line)))} <span class="sub">{where}</span>'

    rows = [
        [
            name(line),
            _target(line[0]),
            *(
                _cell(line[0], line[0].cells[n], notes) if len(line) == 1 else _values(line, n)
                for n in found.candidates
            ),
        ]
        for line in by_shell(found.rows)
    ]
    rows.append(["Score (fixed scale)", "1", *(number(found.scores[n].value, 2) for n in found.candidates)])
    rows.append(["Figure of merit", "–", *(number(found.merit[n], 2) for n in found.candidates)])
    made = table(
        ["Property", "Reference", *map(escape, found.candidates)],
        rows,
        label="Potentials beside the reference",
        numeric=1,
    )
    remarks = "".join(f"<li>{escape(note)}</li>" for note in notes)
    warned = "".join(f'<p class="missing">{escape(text)}</p>' for text in found.warnings)
    return made + (f'<ol class="remarks">{remarks}</ol>' if notes else "") + warned


def _values(line: list[Row], name: str) -> str:
    """Values of the shells of a pair, one after the other."""
    cells = (row.cells[name] for row in line)
    return " &nbsp; ".join(signed(cell.value, 3) for cell in cells if cell is not None and cell.value is not None)


def write_page(found: Comparison, out: Path, candidates: Sequence[Candidate] = ()) -> None:
    """The comparison, phonons and liquids of the candidates, as one HTML page that loads nothing from a network."""
    from aldriver.core.store import atomic_write, disk_errors
    from aldriver.report.html import document, grid
    from aldriver.report.phonons import phonon_figures
    from aldriver.report.rdf import rdf_figures

    phonons, liquids = phonon_figures(candidates), rdf_figures(candidates)
    plots = [score_figure(found), deviation_figure(found)]
    sources = sorted({row.reference.source for row in found.rows if row.reference is not None})
    listed = "".join(f"<li>{escape(source)}</li>" for source in sources) or "<li>none</li>"
    title = "Potentials side by side"
    names = escape(", ".join(found.candidates))
    page = document(
        title=title,
        header=f'<p class="kicker">aldriver compare</p>\n<h1>{title}</h1>\n<p class="state">{names}</p>',
        sections=[
            ("scores", "Scores", "How near each potential comes to the reference.", grid(plots)),
            ("values", "Values", "Each with its numerical error and its deviation.", comparison_table(found)),
            *(
                [("phonons", "Phonons", "Of each crystal, the potentials over each other.", grid(phonons))]
                * bool(phonons)
            ),
            *(
                [("liquids", "Liquids", "Of each pair of elements, the potentials over each other.", grid(liquids))]
                * bool(liquids)
            ),
            ("sources", "Sources", "Where the reference comes from.", f"<ul>{listed}</ul>"),
        ],
        figures=[*plots, *phonons, *liquids],
    )
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, page)


def campaign_figures(campaign: Campaign) -> list[Figure]:
    """Scores over the generations, and their deviations."""
    found = _of_generations(campaign)
    if found is None:
        missing = "No benchmark has been published yet."
        return [
            Figure(key="benchmark-score", title="Score of the benchmark", caption="", missing=missing),
            Figure(key="benchmark-deviation", title="Deviation from the reference", caption="", missing=missing),
        ]
    return [score_figure(found), deviation_figure(found)]


def published_table(campaign: Campaign) -> str:
    """The foundation and the current generation beside DFT and potentials whose values are printed; empty without."""
    mine = [g for g in (campaign.foundation, campaign.current) if g is not None and g.records]
    shown = {g.number: Candidate(name=g.title, records=_records(g.records)) for g in mine}
    cases = list(dict.fromkeys(r.case for c in shown.values() for r in c.records))
    printed = [*_published_dft(cases), *published_candidates(cases)]
    if not shown or not printed:
        return ""
    return comparison_table(compare([*shown.values(), *printed], _reference(campaign)))


def _of_generations(campaign: Campaign) -> Comparison | None:
    shown = [Candidate(name=g.title, records=_records(g.records)) for g in campaign.generations if g.records]
    return compare(shown, _reference(campaign)) if shown else None


def _reference(campaign: Campaign) -> Any:
    """The campaign's own reference; None (published DFT) where it has none."""
    return targets_of(_records(campaign.reference), "the campaign's reference") or None


def _published_dft(cases: list[str]) -> list[Candidate]:
    sets = [entry for case in cases for entry in reference_sets(case) if entry.kind == "dft"]
    records: dict[str, list[PropertyRecord]] = {}
    for entry in sets:
        records.setdefault(f"{entry.name} (published)", []).extend(
            PropertyRecord(property=name, case=entry.case, value=value, unit=entry.units[name], protocol="published")
            for name, value in entry.values.items()
        )
    return [Candidate(name=name, records=rows) for name, rows in records.items()]


def _records(rows: list[dict[str, Any]]) -> list[PropertyRecord]:
    """Records as stored; what is no record is left out, as the report does with all damaged pieces."""
    found = []
    for row in rows:
        value = row.get("value")
        if row.get("property") and row.get("case") and (value is None or isinstance(value, int | float)):
            found.append(PropertyRecord(**{"unit": ""} | {name: row[name] for name in _FIELDS if name in row}))
    return found


def _spread(row: Row) -> float:
    return max(abs(c.deviation) for c in row.cells.values() if c is not None and c.deviation is not None)


def _row_name(row: Row) -> str:
    return f"{property_name(row.property)}, {row.case}"


def _target(row: Row) -> str:
    if row.reference is None:
        return '<span class="sub">none</span>'
    error = "" if row.reference.error is None else f" ± {number(row.reference.error, 1)}"
    return f'<span class="value" title="{escape(row.reference.source)}">{number(row.reference.value, 4)}{error}</span>'


def _cell(row: Row, cell: Cell | None, notes: list[str]) -> str:
    if cell is None:
        return '<span class="sub">not computed</span>'
    mark = ""
    if cell.reason:
        if cell.reason not in notes:
            notes.append(cell.reason)
        mark = f"<sup>{notes.index(cell.reason) + 1}</sup>"
    if cell.value is None:
        return f'<span class="tag bad">missing</span>{mark}'
    error = "" if cell.error is None else f' <span class="sub">± {number(cell.error, 1)}</span>'
    text = f'<span class="value">{number(cell.value, 4)}</span>{error}'
    if cell.deviation is not None:
        text += f' <span class="dev {_grade(row.property, cell.deviation)}">{percent(cell.deviation)}</span>'
    return text + ("" if cell.converged else ' <span class="tag bad">not converged</span>') + mark


def _grade(name: str, off: float) -> str:
    """By the property's scale: good, bad, or in between."""
    got = score(name, off)
    return "good" if abs(off) <= scale_of(name).good else "bad" if got == 0 else "fair"
