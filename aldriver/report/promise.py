"""What each generation's detector promised, whether it still fitted, and what audit labels measured: one table.

Shows what the stages published; the statistics are ``detect/``'s.
"""

from __future__ import annotations

from html import escape
from typing import Any

from aldriver.report.data import Campaign, Generation
from aldriver.report.tables import nothing, table
from aldriver.report.words import number

HEAD = ["Generation", "Promise of the detector", "New candidates", "Measured by audit labels", "What changed"]


def promise_table(campaign: Campaign) -> str:
    """A row per generation that selected frames."""
    rows = [_row(g) for g in campaign.generations if isinstance(g.selection.get("promise"), dict)]
    if not rows:
        return nothing("No detector has been put to use yet.")
    return table(HEAD, rows, label="Promise of the detector in each generation, and what was measured")


def _row(g: Generation) -> list[str]:
    promise = g.selection["promise"]
    asked = f"tolerance {number(promise.get('tolerance_meV_A'))} meV/Å, miss rate {number(promise.get('miss_rate'), 2)}"
    audit = g.decision.get("audit")
    step = g.decision.get("step")
    recalibrated = g.decision.get("recalibrated")
    promised = [asked, *_texts(promise.get("sentences"))]
    if isinstance(recalibrated, dict):
        promised += [f"after this generation: {text}" for text in _texts(recalibrated.get("sentences"))[:1]]
    measured = []
    if isinstance(audit, dict):
        so_far = audit.get("so_far")
        measured = [str(audit.get("sentence") or "")]
        measured += [f"so far: {so_far.get('sentence')}"] if isinstance(so_far, dict) else []
    return [
        str(g.number),
        _paragraphs(promised),
        _paragraphs(_candidates(g.selection)),
        _paragraphs(measured),
        _paragraphs([str(step.get("sentence"))] if isinstance(step, dict) else []),
    ]


def _candidates(selection: dict[str, Any]) -> list[str]:
    reasons = selection.get("reasons")
    far = reasons.get("unphysical", 0) if isinstance(reasons, dict) else 0
    lines = [f"{selection.get('n_flagged', '–')} of {selection.get('n_candidates', '–')} flagged"]
    lines += [f"{far} unphysical, not sent to the reference"] if far else []
    drift = selection.get("drift")
    return lines + ([str(drift.get("sentence"))] if isinstance(drift, dict) else [])


def _texts(found: Any) -> list[str]:
    return [str(text) for text in found] if isinstance(found, list) else []


def _paragraphs(texts: list[str]) -> str:
    return "<br>".join(f'<span class="wrap">{escape(text)}</span>' for text in texts) or "–"
