"""Figure and tables of the learning-curve study: errors and drift against the number of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOURS = {
    "scratch": "#8c8c8c",
    "naive": "#d1495b",
    "model-5": "#edae49",
    "f4": "#edae49",
    "replay": "#7a5195",
    "ewc": "#6a994e",
    "default": "#00798c",
}
MARKERS = {"scratch": "x", "naive": "o", "model-5": "s", "f4": "s", "replay": "^", "ewc": "v", "default": "D"}
ROWS = (
    ("force RMSE (meV/Å)", lambda run: run["test"]["forces_rmse_meV_A"]),
    ("energy RMSE (meV/atom)", lambda run: run["test"]["energy_rmse_meV_atom"]),
    ("stress RMSE (GPa)", lambda run: run["test"]["stress_rmse_GPa"]),
    ("drift on other elements (meV/atom)", lambda run: run["others"]["mean"]),
)


BEGIN, END = "<!-- runs -->", "<!-- /runs -->"


def write_tables(page: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Replace what stands between the two markers of a Markdown page by tables of the runs."""
    text = page.read_text()
    if BEGIN in text and END in text:
        head, tail = text.split(BEGIN)[0], text.split(END)[1]
        page.write_text(f"{head}{BEGIN}\n{tables(runs)}\n{END}{tail}")


def tables(runs: Sequence[dict[str, Any]]) -> str:
    """A Markdown table for each start and data set, and one of the dopants left out."""
    parts = []
    for start, data, left in dict.fromkeys((r["start"], r["data"], bool(r["leave_out"])) for r in runs):
        here = [r for r in runs if (r["start"], r["data"], bool(r["leave_out"])) == (start, data, left)]
        parts.append(f"**{data}, {start}{', a dopant left out' if left else ''}**\n\n{_table(here, left)}")
    return "\n\n".join(parts)


def _table(runs: Sequence[dict[str, Any]], left: bool) -> str:
    head = [
        "strategy",
        "frames",
        "valid. F MAE",
        "test F",
        "cool F",
        "test E",
        "test S",
        "drift, others",
        "drift, probe",
    ]
    rows = []
    for r in sorted(runs, key=lambda r: (r["leave_out"], r["rule"], -r["n_train"], r["strategy"])):
        zero = r["strategy"] == "zero-shot"
        frames = "none" if zero else str(r["n_train"])
        name = f"{r['strategy']}, {r['rule']} without {r['leave_out']}" if left else r["strategy"]
        cells = [
            (r["valid_before" if zero else "valid_after"]["forces_mae_meV_A"], ".0f"),
            (r["test"]["forces_rmse_meV_A"], ".0f"),
            (r["test_cool"]["forces_rmse_meV_A"], ".0f"),
            (r["test"]["energy_rmse_meV_atom"], ".1f"),
            (r["test"]["stress_rmse_GPa"], ".2f"),
            (None if zero else r["others"]["mean"], ".1f"),
            (None if zero else r["probe"].get("mean_drift_meV_atom"), ".1f"),
        ]
        rows.append([name, frames, *("" if value is None else format(value, style) for value, style in cells)])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain_ticks(axes: Any, frames: Sequence[int]) -> None:
    """Numbers of frames, and 1–2–5 of each decade, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.set_xticks(frames, labels=[str(n) for n in frames])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(NullFormatter())


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """One column per data set, one row per error, one line per strategy; zero-shot as a dashed line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plain = [run for run in runs if not run["leave_out"]]
    columns = list(dict.fromkeys((run["data"], run["start"]) for run in plain))
    if not columns:
        return
    size = (3.3 * len(columns), 2.5 * len(ROWS))
    figure, grid = pyplot.subplots(len(ROWS), len(columns), figsize=size, sharex="col", squeeze=False)
    for at, (data, start) in enumerate(columns):
        here = [run for run in plain if (run["data"], run["start"]) == (data, start)]
        for row, (title, value) in enumerate(ROWS):
            axes = grid[row][at]
            for strategy, colour in COLOURS.items():
                line = sorted((run["n_train"], value(run)) for run in here if run["strategy"] == strategy)
                line = [(n, y) for n, y in line if y is not None]
                if line:
                    axes.plot(*zip(*line, strict=True), color=colour, marker=MARKERS[strategy], ms=5, label=strategy)
            for run in here:
                if run["strategy"] == "zero-shot" and value(run):
                    axes.axhline(value(run), color="black", ls="--", lw=1, label="zero-shot")
            axes.set(xscale="log", yscale="log")
            _plain_ticks(axes, sorted({run["n_train"] for run in here if run["strategy"] != "zero-shot"}))
            axes.grid(alpha=0.25, which="both")
            if row == 0:
                axes.set_title(f"{data}\n{start}", fontsize=10)
            if at == 0:
                axes.set_ylabel(title, fontsize=9)
            if row == len(ROWS) - 1:
                axes.set_xlabel("training frames")
    known = {label: h for axes in grid[0] for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(known.values()), list(known), loc="upper center", ncol=len(known), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
