"""Tables and figure of the monitor study: alarms beside true errors, for several tolerances."""

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
TOLERANCES_MEV_A = (100.0, 150.0, 200.0)
"""The limit does not depend on the tolerance as long as no calibration frame is above it."""
WANTED = 0.9
"""Share of the runs that must be alarmed in time."""
APART = 20
"""Steps between frames that count as independent, as those of the calibration do."""


def summary(facts: Facts) -> str:
    """One line about a finished run."""
    return ", ".join(f"{tolerance:g} meV/Å: {outcome(facts, tolerance)}" for tolerance in TOLERANCES_MEV_A)


def firsts(facts: Facts, tolerance: float) -> tuple[int | None, int | None]:
    """Steps of the first look outside, and of the first with an error above the tolerance (meV/Å)."""
    alarms = [step for step, _, _, outside in facts["trace"] if outside]
    bad = [step for step, _, error, _ in facts["trace"] if error > tolerance]
    return (alarms or [None])[0], (bad or [None])[0]


def outcome(facts: Facts, tolerance: float) -> str:
    """``before``, ``together``, ``late``, or ``never`` when neither came; an alarm without an error is ``before``."""
    alarm, bad = firsts(facts, tolerance)
    if bad is None:
        return "never" if alarm is None else "before"
    if alarm is None or alarm > bad:
        return "late"
    return "before" if alarm < bad else "together"


def sections(found: Sequence[Facts]) -> dict[str, str]:
    """Texts by marker."""
    return {"verdict": _verdict(found), "runs": _runs(found)}


def _verdict(found: Sequence[Facts]) -> str:
    driven = [run for run in found if run["kind"] != "inside"]
    inside = [run for run in found if run["kind"] == "inside"]
    lines = [f"* {cpu_of(found)}, and the preparation."]
    lines += [_promptness(driven, tolerance) for tolerance in TOLERANCES_MEV_A]
    if inside:
        lines += _inside(inside)
    shares = [run["share"] for run in found if run["share"] is not None]
    if shares:
        looks, steps = np.median([len(run["trace"]) for run in found]), np.median([run["steps"] for run in found])
        lines.append(
            f"* Looks took {100 * float(np.median(shares)):.1f} % of a run (at most 5 % was asked for), with "
            f"{looks:.0f} looks in {steps:.0f} steps (medians)."
        )
    return "\n".join(lines)


def _promptness(driven: Sequence[Facts], tolerance: float) -> str:
    """How early the alarms came; a run whose first frame is above the tolerance cannot be alarmed earlier."""
    from aldriver.detect.calibrate import interval

    above = [run for run in driven if firsts(run, tolerance)[1] is not None]
    at_once = [run for run in above if firsts(run, tolerance)[1] == run["trace"][0][0]]
    left = [run for run in above if run not in at_once]
    early, together = (sum(outcome(run, tolerance) == name for run in left) for name in ("before", "together"))
    low, high = interval(early, len(left))
    how = "reached" if left and early >= WANTED * len(left) else "not reached"
    bad = [outside for run in above for _, _, error, outside in run["trace"] if error > tolerance]
    text = (
        f"* Tolerance {tolerance:g} meV/Å: in {early} of the {len(left)} runs that came to exceed it the alarm came at "
        f"an earlier look ({100 * early / max(len(left), 1):.0f} %, 95 % interval {100 * low:.0f}–{100 * high:.0f} %), "
        f"in {together} at the same, in {len(left) - early - together} too late. Wanted: {100 * WANTED:.0f} % "
        f"earlier, {how}."
    )
    if at_once:
        prompt = sum(outcome(run, tolerance) == "together" for run in at_once)
        text += f" {len(at_once)} runs began above it: {prompt} of them were alarmed at that first frame."
    return text + f" Of all {len(bad)} frames above it, {bad.count(False)} were not flagged."


def _inside(inside: Sequence[Facts]) -> list[str]:
    from aldriver.detect.calibrate import interval

    alarmed, seen = false_alarms(inside)
    low, high = interval(alarmed, seen)
    n = inside[0]["calibration_frames"]
    runs = sum(any(outside for *_, outside in run["trace"]) for run in inside)
    share, promised = 100 * alarmed / max(seen, 1), 1 / (n + 1)
    kept = "the interval holds it" if low <= promised else "not kept"
    text = (
        f"* Inside the domain, {alarmed} of {seen} frames at least {APART} steps apart raised a false alarm "
        f"({share:.1f} %, 95 % interval {100 * low:.1f}–{100 * high:.1f} %). Promised, for frames exchangeable with "
        f"the {n} that set the limit: at most 1/{n + 1} = {100 * promised:.1f} % of the frames; {kept}. "
        f"Of the {len(inside)} runs, {runs} had an alarm at any of their looks."
    )
    return [f"* The detector: {inside[0]['promise']}.", text]


def false_alarms(inside: Sequence[Facts]) -> tuple[int, int]:
    """Frames outside, and all, of looks within the tolerance that lie apart; the start is not among them."""
    alarmed = seen = 0
    for run in inside:
        last = 0
        for step, _, error, outside in run["trace"]:
            if step >= last + APART:
                last = step
                if error <= TOLERANCES_MEV_A[0]:
                    alarmed, seen = alarmed + bool(outside), seen + 1
    return alarmed, seen


def _runs(found: Sequence[Facts]) -> str:
    rows = []
    for kind in [kind for kind in KINDS if kind != "inside"]:
        own = [run for run in found if run["kind"] == kind]
        for tolerance in TOLERANCES_MEV_A if own else ():
            counts = [sum(outcome(run, tolerance) == name for run in own) for name in ("before", "together", "late")]
            pairs = [firsts(run, tolerance) for run in own]
            lead = [bad - alarm for alarm, bad in pairs if alarm is not None and bad is not None]
            warning = f"{np.median(lead):.0f}" if lead else "–"
            rows.append([KINDS[kind], f"{tolerance:g}", str(len(own)), *map(str, counts), warning])
    head = ["", "tolerance, meV/Å", "runs", "alarm earlier", "same look", "too late", "steps of warning (median)"]
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
        steps, ratios, errors, _ = (np.array(column, dtype=float) for column in zip(*run["trace"], strict=True))
        name = None if run["kind"] in labelled else KINDS[run["kind"]]
        labelled.add(run["kind"])
        style = {"color": COLOURS[run["kind"]], "linewidth": 0.8, "alpha": 0.8}
        axes[0].plot(steps, np.maximum(ratios, 1e-2), label=name, **style)
        axes[1].plot(steps, np.maximum(errors, 1.0), **style)
    axes[0].axhline(1.0, color="black", linestyle="--", linewidth=1.0)
    for tolerance in TOLERANCES_MEV_A:
        axes[1].axhline(tolerance, color="black", linestyle="--", linewidth=0.7)
    axes[0].set(xlabel="step (2 fs)", ylabel="score / threshold", yscale="log", title="what the guard sees")
    axes[1].set(xlabel="step (2 fs)", ylabel="true force error, meV/Å", yscale="log", title="what it does not see")
    axes[0].legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=130)
