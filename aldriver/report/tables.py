"""The report's tables and the timeline as HTML; every text that comes from a file is escaped here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from aldriver.report.data import Campaign, Generation
from aldriver.report.figures import core_hours, decision_word
from aldriver.report.summary import by_property, deviation
from aldriver.report.words import REASONS, duration, finite, number, percent, property_name, unit_name

GOOD, FAIR = 0.03, 0.10
"""Deviations up to these fractions of the reference count as good and fair."""


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, tall: bool = False, numeric: int = 99
) -> str:
    """An HTML table that scrolls within itself; cells are HTML, the first one of a row is its header.

    Columns from index `numeric` on are set flush right.
    """

    def cell(tag: str, i: int, content: str) -> str:
        right = ' class="num"' if i >= numeric else ""
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{scope}{right}>{content}</{tag}>"

    cells = [(row[0], "".join(cell("td", i, c) for i, c in enumerate(row[1:], start=1))) for row in rows]
    body = "\n".join(f'<tr><th scope="row">{first}</th>{rest}</tr>' for first, rest in cells)
    heads = "".join(cell("th", i, h) for i, h in enumerate(head))
    style = "scroll tall" if tall else "scroll"
    return (
        f'<div class="{style}" role="region" tabindex="0" aria-label="{escape(label)}"><table><thead><tr>{heads}</tr>'
        f"</thead><tbody>\n{body}\n</tbody></table></div>"
    )


def nothing(text: str) -> str:
    """A line where a table or figure would stand."""
    return f'<p class="missing">{escape(text)}</p>'


# ------------------------------------------------------------------------------------------------------ benchmark


def benchmark_table(campaign: Campaign) -> str:
    """Each property: the reference, the foundation and every generation with its deviation."""
    shown = [g for g in campaign.generations if g.records]
    wanted = by_property(campaign.reference)
    found = {g.number: by_property(g.records) for g in shown}
    keys = list(dict.fromkeys([*wanted, *(k for g in shown for k in found[g.number])]))
    if not keys:
        return nothing("No benchmark has been published yet.")
    current = campaign.current
    head = ["Property", "Reference"]
    for g in shown:
        mark = ' <span class="tag">in use</span>' if current is not None and g.number == current.number else ""
        head.append(f"{escape(g.title.capitalize())}{mark}")
    rows, notes = [], list[str]()
    for key in keys:
        case, prop = key
        records = [found[g.number].get(key) for g in shown]
        unit = next((str(r["unit"]) for r in [*records, wanted.get(key)] if r and r.get("unit")), "")
        name = f'{escape(property_name(prop))} <span class="sub">{escape(case)}, {escape(unit_name(unit))}</span>'
        row = [name, _value(wanted.get(key), None, notes)]
        rows.append(row + [_value(r, wanted.get(key), notes) for r in records])
    made = table(head, rows, label="Benchmark of each generation beside the reference", numeric=1)
    return made + ('<ol class="remarks">' + "".join(f"<li>{escape(n)}</li>" for n in notes) + "</ol>" if notes else "")


def _value(record: dict[str, Any] | None, reference: dict[str, Any] | None, notes: list[str]) -> str:
    """A cell: the value with its deviation; reasons for a missing or doubtful one are numbered remarks in `notes`."""
    if record is None:
        return '<span class="sub">not computed</span>'
    value, reason = finite(record.get("value")), str(record.get("reason") or "no reason given")
    doubtful = value is None or record.get("converged") is False
    if doubtful and reason not in notes:
        notes.append(reason)
    remark = f"<sup>{notes.index(reason) + 1}</sup>" if doubtful else ""
    if value is None:
        return f'<span class="tag bad">missing</span>{remark}'
    text = f'<span class="value">{number(value, 4)}</span>'
    off = deviation(record, reference)
    if off is not None:
        size = round(abs(off), 3)  # as printed: what reads 10.0 % is not graded as more than 10 %
        grade = "good" if size <= GOOD else "fair" if size <= FAIR else "bad"
        text += f' <span class="dev {grade}">{percent(off)}</span>'
    return text + (f' <span class="tag bad">not converged</span>{remark}' if doubtful else "")


# --------------------------------------------------------------------------------------------------- label ledger


def label_table(campaign: Campaign) -> str:
    """Every label, newest generation last: where it came from and what became of it."""
    rows = []
    for g in campaign.generations:
        for label in g.labels:
            status = str(label.get("status", "unknown"))
            grade = "good" if status == "ok" else "bad"
            frame = str(label.get("frame_id") or label.get("key") or "–")
            rows.append(
                [
                    str(g.number),
                    f"<code>{escape(frame[:12])}</code>",
                    escape(str(label.get("origin") or "–")),
                    f'<span class="tag {grade}">{escape(status)}</span>',
                    f'<span class="wrap">{escape(str(label.get("reason") or "–"))}</span>',
                    escape(duration(label.get("seconds"))),
                ]
            )
    if not rows:
        return nothing("No frame has been labelled yet.")
    head = ["Generation", "Frame", "Origin", "Status", "Reason", "Time"]
    return table(head, rows, label="Ledger of all labels", tall=True, numeric=5)


def walker_table(campaign: Campaign) -> str:
    """What each walker did and how it ended."""
    rows = []
    for g in campaign.generations:
        for w in g.walkers:
            r = w.result
            reason = str(r.get("reason") or "")
            words = REASONS.get(reason, reason.replace("_", " ") or "no result yet")
            message = str(r.get("message") or "")
            if message and reason != "completed":
                words += f" ({message})"
            strain = finite(r.get("strain"))
            ratio = w.scores.get("ratio")
            flagged = f"{int((~(ratio <= 1)).sum())} of {len(ratio)}" if ratio is not None else "–"
            rows.append(
                [
                    str(g.number),
                    escape(str(r.get("system") or w.name)),
                    f"{number(finite(r.get('temperature_K')))} K",
                    "–" if strain is None else percent(strain),
                    f'<span class="wrap">{escape(words)}</span>',
                    number(finite(r.get("steps_done")), 6),
                    flagged,
                    escape(duration(r.get("seconds"))),
                ]
            )
    if not rows:
        return nothing("No walker has run yet.")
    head = ["Generation", "System", "Temperature", "Strain", "How it ended", "Steps", "Frames flagged", "Time"]
    return table(head, rows, label="All exploration walkers", tall=True, numeric=5)


def cost_table(campaign: Campaign) -> str:
    """Core-hours by generation and stage."""
    hours = core_hours(campaign)
    if not hours:
        return ""
    numbers = sorted({n for by in hours.values() for n in by})
    rows = [
        [
            str(n),
            *(number(by[n], 2) if n in by else "–" for by in hours.values()),
            number(sum(by.get(n, 0.0) for by in hours.values()), 2),
        ]
        for n in numbers
    ]
    rows.append(["All", *(number(sum(by.values()), 2) for by in hours.values())])
    rows[-1].append(number(sum(sum(by.values()) for by in hours.values()), 2))
    head = ["Generation", *(escape(s) for s in hours), "all"]
    return table(head, rows, label="Core-hours by generation and stage", numeric=1)


# ------------------------------------------------------------------------------------------------------- timeline


def timeline(campaign: Campaign) -> str:
    """What was decided, when and why, in words."""
    when = {e.get("generation"): e.get("time") for e in campaign.ledger if e.get("event") == "decision"}
    entries = [
        _entry(
            _mood(g), g.title.capitalize(), decision_word(g), str(g.decision.get("reason") or ""), when.get(g.number)
        )
        for g in campaign.generations
        if g.decision and g.number > 0
    ]
    started = [e for e in campaign.ledger if e.get("event") == "campaign_created"]
    if started:
        start = f"from {campaign.recipe.get('potential') or 'the foundation potential'}"
        entries.insert(0, _entry("", "Campaign", "created", start, started[0].get("time")))
    for event in campaign.ledger:
        if event.get("event") == "recipe_changed":
            entries.append(_entry("hold", "Recipe", "changed", _changes(event.get("changes")), event.get("time")))
    if campaign.finished is not None:
        entries.append(_entry("good", "Campaign", "finished", campaign.finished, None))
    if not entries:
        return nothing("Nothing has been decided yet.")
    return '<ol class="timeline">' + "\n".join(entries) + "</ol>"


def _changes(changes: Any) -> str:
    """``explore.steps: 100 → 200; ...``."""
    if not isinstance(changes, list):
        return "accepted by the user"
    return "; ".join(f"{c.get('key')}: {c.get('old')} → {c.get('new')}" for c in changes if isinstance(c, dict))


def _mood(generation: Generation) -> str:
    if generation.decision.get("decision") == "rollback":
        return "bad"
    return "good" if generation.promoted else "hold"


def _entry(mood: str, what: str, word: str, reason: Any, at: Any) -> str:
    moment = finite(at)
    stamp = f" <time>{time.strftime('%Y-%m-%d %H:%M', time.localtime(moment))}</time>" if moment else ""
    text = f"<p>{escape(str(reason))}</p>" if reason else ""
    return f'<li class="{mood}"><strong>{escape(what)}: {escape(word)}</strong>{stamp}{text}</li>'
