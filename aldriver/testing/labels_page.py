"""Table and figure of the study of labels saved: errors against labels, and labels for the same error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aldriver.testing.runs import cpu_of, table

Facts = dict[str, Any]
NAMES = {"interval": "fixed interval", "random": "random", "aldriver": "aldriver"}
COLOURS = {"interval": "#8c8c8c", "random": "#edae49", "aldriver": "#00798c"}
ERROR = "forces_rmse_meV_A"
WANTED = 1.0 / 3.0
"""Labels of aldriver over those of fixed interval that were aimed at."""


def summary(facts: Facts) -> str:
    """One line about a finished run."""
    last = facts["points"][-1]
    return f"{last[ERROR]:.1f} meV/Å with {last['labels']} labels"


def sections(found: Sequence[Facts]) -> dict[str, str]:
    """Texts by marker."""
    return {"verdict": _verdict(found), "curves": _curves(found), "needed": _needed(found)}


def labels_for(points: Sequence[Facts], target: float) -> float:
    """Labels after which a run's force RMSE stays at or below `target`, meV/Å; infinite when it never does.

    Between two generations log(error) is taken as linear in the labels.
    """
    labels = [float(p["labels"]) for p in points]
    values = [math.inf if p[ERROR] is None else float(p[ERROR]) for p in points]
    above = [i for i, value in enumerate(values) if value > target]
    if not above:
        return labels[0]
    last = above[-1]
    if last == len(values) - 1:
        return math.inf
    if math.isinf(values[last]):
        return labels[last + 1]
    share = math.log(values[last] / target) / math.log(values[last] / values[last + 1])
    return labels[last] + share * (labels[last + 1] - labels[last])


def targets(found: Sequence[Facts]) -> list[float]:
    """Errors to reach: what fixed interval reaches with half of its labels, and with all (medians over the seeds)."""
    own = [run["points"] for run in found if run["sampler"] == "interval"]
    if not own:
        return []
    half, whole = (len(own[0]) - 1) // 2, len(own[0]) - 1
    return [float(np.median([points[k][ERROR] for points in own])) for k in (half, whole)]


def _by_sampler(found: Sequence[Facts]) -> dict[str, list[list[Facts]]]:
    samplers = [name for name in NAMES if any(run["sampler"] == name for run in found)]
    return {name: [run["points"] for run in found if run["sampler"] == name] for name in samplers}


def _verdict(found: Sequence[Facts]) -> str:
    lines = [f"* {cpu_of(found)}."]
    by = _by_sampler(found)
    for target in targets(found):
        needed = {name: _middle([labels_for(points, target) for points in own]) for name, own in by.items()}
        if "aldriver" not in needed or not needed["interval"] > 0.0:
            continue
        if math.isinf(needed["interval"]) and not math.isinf(needed["aldriver"]):
            spent = by["interval"][0][-1]["labels"]
            few = f"with {needed['aldriver']:.0f} labels; fixed interval does not with {spent}"
            lines.append(f"* {target:.1f} meV/Å: aldriver gets there, and stays, {few}.")
            continue
        ratio = needed["aldriver"] / needed["interval"]
        how = "reached" if ratio <= WANTED else "not reached"
        if math.isinf(ratio):
            lines.append(f"* {target:.1f} meV/Å: aldriver does not get there with as many labels ({how}).")
        else:
            shares = f"{100 * ratio:.0f} % of the labels of fixed interval (wanted: a third, {how})"
            lines.append(f"* {target:.1f} meV/Å: aldriver needs {shares}.")
    return "\n".join(lines)


def _curves(found: Sequence[Facts]) -> str:
    by = _by_sampler(found)
    first = next(iter(by.values()))[0]
    rows = [
        [str(point["labels"]), *(_spread([points[k][ERROR] for points in own]) for own in by.values())]
        for k, point in enumerate(first)
    ]
    return table(["labels", *(f"{NAMES[name]} ({len(own)} seeds)" for name, own in by.items())], rows)


def _needed(found: Sequence[Facts]) -> str:
    rows = [
        [f"{target:.1f} meV/Å", *(_spread([labels_for(points, target) for points in own]) for own in by.values())]
        for by in [_by_sampler(found)]
        for target in targets(found)
    ]
    return table(["force RMSE", *(NAMES[name] for name in _by_sampler(found))], rows)


def _middle(values: Sequence[float]) -> float:
    """Median, infinite where half of the runs do not arrive."""
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return high if math.isinf(high) else 0.5 * (low + high)


def _spread(values: Sequence[float | None]) -> str:
    known = [math.inf if v is None else float(v) for v in values]
    return f"{_shown(_middle(known))} ({_shown(min(known))}–{_shown(max(known))})"


def _shown(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.1f}"


def draw(found: Sequence[Facts], path: Path) -> None:
    """Force RMSE against labels: for each sampler the median of the seeds, and a band from the least to the largest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 3.8))
    for name, own in _by_sampler(found).items():
        labels = [point["labels"] for point in own[0]]
        values = np.array([[point[ERROR] or np.nan for point in points] for points in own])
        low, middle, high = values.min(axis=0), np.median(values, axis=0), values.max(axis=0)
        axes.plot(labels, middle, color=COLOURS[name], marker="o", ms=4, label=NAMES[name])
        axes.fill_between(labels, low, high, color=COLOURS[name], alpha=0.2, lw=0)
    axes.set(yscale="log", xlabel="labels", ylabel="force RMSE on independent frames (meV/Å)")
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
