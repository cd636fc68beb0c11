"""Tables and figure of the monitor study: alarms beside true errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aldriver.testing.runs import cpu_of, table

Facts = dict[str, Any]
KINDS = {
    "heated": "heated into the melt",
    "hop": "vacancy hop at 1500 K",
    "quenched": "melt, quenched",
    "inside": "inside the domain",
}
COLOURS = {"heated": "#d1495b", "hop": "#edae49", "quenched": "#66a182", "inside": "#00798c"}
WANTED = 0.9
"""Share of the runs that must be alarmed in time."""


def summary(facts: Facts) -> str:
    """One line about a finished run."""
    return f"alarm at {facts['first_alarm']}, error above the tolerance at {facts['first_bad']}: {outcome(facts)}"


def outcome(facts: Facts) -> str:
    """``before``, ``together``, ``late``, or ``never`` when neither came; an alarm without an error is ``before``."""
    alarm, bad = facts["first_alarm"], facts["first_bad"]
    if bad is None:
        return "never" if alarm is None else "before"
    if alarm is None or alarm > bad:
        return "late"
    return "before" if alarm < bad else "together"


def sections(found: Sequence[Facts]) -> dict[str, str]:
    """Texts by marker."""
    return {"verdict": _verdict(found), "runs": _runs(found)}


def _verdict(found: Sequence[Facts]) -> str:
    from aldriver.detect.calibrate import interval

    driven = [run for run in found if run["kind"] != "inside"]
    inside = [run for run in found if run["kind"] == "inside"]
    lines = [f"* {cpu_of(found)}, and the preparation."]
    if driven:
        counts = {name: sum(outcome(run) == name for run in driven) for name in ("before", "together", "late", "never")}
        left = [run for run in driven if run["first_bad"] is not None]
        early = sum(outcome(run) == "before" for run in left)
        low, high = interval(early, len(left))
        timely = early + sum(outcome(run) == "together" for run in left)
        how = "reached" if left and early >= WANTED * len(left) else "not reached"
        lines.append(
            f"* {len(driven)} runs driven out, {len(left)} of them to errors above the tolerance. The alarm came at an "
            f"earlier look in {early} ({100 * early / max(len(left), 1):.0f} %, 95 % interval {100 * low:.0f}–"
            f"{100 * high:.0f} %), not later in {timely}, too late in {counts['late']}. "
            f"Wanted: {100 * WANTED:.0f} % earlier, {how}."
        )
        missed, bad = sum(run["bad_missed"] for run in driven), sum(run["bad"] for run in driven)
        lines.append(f"* Frames above the tolerance that were not flagged: {missed} of {bad}.")
    if inside:
        alarmed, seen = (sum(run[key] for run in inside) for key in ("apart_alarmed", "apart"))
        low, high = interval(alarmed, seen)
        n = inside[0]["calibration_frames"]
        lines.append(f"* The detector: {inside[0]['promise']}.")
        lines.append(
            f"* Inside the domain, {alarmed} of {seen} frames at least 20 steps apart raised a false alarm "
            f"({100 * alarmed / max(seen, 1):.1f} %, 95 % interval {100 * low:.1f}–{100 * high:.1f} %). Promised, for "
            f"frames exchangeable with the {n} that set the limit: at most 1/{n + 1} = {100 / (n + 1):.1f} % of the "
            f"frames; {'kept' if low <= 1 / (n + 1) else 'not kept'}. Of the {len(inside)} runs, "
            f"{sum(run['first_alarm'] is not None for run in inside)} had an alarm at any of their looks."
        )
    shares = [run["share"] for run in found if run["share"] is not None]
    if shares:
        lines.append(
            f"* Looks took {100 * float(np.median(shares)):.1f} % of a run (median; at most 5 % was asked for), with "
            f"{np.median([run['looks'] for run in found]):.0f} looks in "
            f"{np.median([run['steps'] for run in found]):.0f} steps (medians)."
        )
    return "\n".join(lines)


def _runs(found: Sequence[Facts]) -> str:
    rows = []
    for kind, words in KINDS.items():
        own = [run for run in found if run["kind"] == kind]
        if not own:
            continue
        counts = [sum(outcome(run) == name for run in own) for name in ("before", "together", "late", "never")]
        lead = [run["first_bad"] - run["first_alarm"] for run in own if outcome(run) in ("before", "together")
                and run["first_bad"] is not None]  # fmt: skip
        rows.append([words, str(len(own)), *map(str, counts), f"{np.median(lead):.0f}" if lead else "–"])
    head = ["", "runs", "alarm earlier", "at the same look", "too late", "neither", "steps of warning (median)"]
    return table(head, rows)


def draw(found: Sequence[Facts], path: Path) -> None:
    """Score over limit and true error of each run against the step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    labelled = set()
    for run in found:
        steps, ratios, errors = (np.array(column, dtype=float) for column in zip(*run["trace"], strict=True))
        name = None if run["kind"] in labelled else KINDS[run["kind"]]
        labelled.add(run["kind"])
        style = {"color": COLOURS[run["kind"]], "linewidth": 0.8, "alpha": 0.8}
        axes[0].plot(steps, np.maximum(ratios, 1e-2), label=name, **style)
        axes[1].plot(steps, np.maximum(errors, 1.0), **style)
    axes[0].axhline(1.0, color="black", linestyle="--", linewidth=1.0)
    axes[1].axhline(100.0, color="black", linestyle="--", linewidth=1.0)
    axes[0].set(xlabel="step (2 fs)", ylabel="score / threshold", yscale="log", title="what the guard sees")
    axes[1].set(xlabel="step (2 fs)", ylabel="true force error, meV/Å", yscale="log", title="what it does not see")
    axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=130)
