"""The figure of a monitored run: score over limit against the step, with the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aldriver.core.store import disk_errors


def draw(
    path: Path, steps: Sequence[int], ratios: Sequence[float], outside: Sequence[bool], *, title: str, limit: str
) -> None:
    """Write a PNG.

    Parameters
    ----------
    ratios
        Score over limit; NaN where a frame has none (drawn at the bottom when it counts as outside).
    limit
        What the threshold is, in words.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    x, y, bad = np.asarray(steps, dtype=float), np.asarray(ratios, dtype=float), np.asarray(outside, dtype=bool)
    y = np.where(np.isinf(y), np.nan, y)
    lines = np.where(np.diff(x, prepend=x[:1]) < 0, np.nan, y)  # no line back where a run was restarted
    axes.plot(x, lines, color="#9aa5b1", linewidth=0.8, zorder=1)
    for mask, colour, name in ((~bad, "#00798c", "inside"), (bad, "#d1495b", "outside")):
        shown = mask & np.isfinite(y)
        axes.scatter(x[shown], y[shown], s=9, color=colour, label=f"{name}: {int(mask.sum())}", zorder=2)
    axes.axhline(1.0, color="#d1495b", linestyle="--", linewidth=1.0, label=limit)
    lost = bad & ~np.isfinite(y)
    if lost.any():
        axes.scatter(x[lost], np.zeros(lost.sum()), marker="x", color="#d1495b", label="no finite score", zorder=3)
    if np.isfinite(y).any() and np.nanmax(y) > 20:
        axes.set_yscale("symlog", linthresh=1.0)
    axes.set(xlabel="step", ylabel="score / threshold", title=title, ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    with disk_errors(path):
        figure.savefig(path, dpi=130)
