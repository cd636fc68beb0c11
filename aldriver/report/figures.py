"""Figures of errors, parity and costs as plain Plotly specifications, with captions and alternative texts.

Colours are names of CSS variables (``var(--name)``) that the page resolves, so that a figure follows light and dark.
Figures of what the detector saw are in ``detection.py``; where figures stand on the page is ``html.py``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aldriver.report.data import Arrays, Campaign, Generation
from aldriver.report.words import DECISIONS, METRICS, STAGES, count, finite, listed, number, percent

Spec = dict[str, Any]
POINTS = 2500
"""Most points drawn in a series; errors are always computed from all of them."""
SERIES = ("var(--series-foundation)", "var(--series-latest)")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure: its Plotly specification, or `missing` in words when there is nothing to draw yet."""

    key: str
    title: str
    caption: str
    alt: str = ""
    spec: Spec | None = None
    missing: str = ""


def layout(x: str, y: str, **extra: Any) -> Spec:
    """Layout that all figures share; `x` and `y` are axis titles."""

    def axis(title: str) -> Spec:
        return {
            "title": {"text": title, "standoff": 8, "font": {"size": 13}},
            "automargin": True,
            "gridcolor": "var(--grid)",
            "linecolor": "var(--axis)",
            "zerolinecolor": "var(--grid)",
            "ticks": "outside",
            "tickcolor": "var(--axis)",
            "ticklen": 4,
        }

    base: Spec = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 13, "color": "var(--text)"},
        "margin": {"l": 12, "r": 16, "t": 12, "b": 12},
        "xaxis": axis(x),
        "yaxis": axis(y),
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        "hoverlabel": {"bgcolor": "var(--surface)", "bordercolor": "var(--axis)", "font": {"color": "var(--text)"}},
        "hovermode": "closest",
    }
    for key, value in extra.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return base


def thin(values: NDArray[Any], limit: int, seed: int = 0) -> NDArray[np.intp]:
    """Sorted indices of at most `limit` entries, drawn reproducibly."""
    n = len(values)
    return np.arange(n) if n <= limit else np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))


def rounded(values: Any, digits: int = 5) -> list[float]:
    """Floats with few digits: the page stays small."""
    return [float(f"{v:.{digits}g}") for v in np.asarray(values, dtype=float).ravel()]


# ---------------------------------------------------------------------------------------------- errors by generation

_MARKERS = {"promote": ("promoted", "circle"), "hold": ("held", "circle-open"), "rollback": ("rolled back", "x-open")}


def error_figures(campaign: Campaign) -> list[Figure]:
    """Energy, force and stress RMSE of each generation, with the gate's decision as the marker."""
    return [_error_figure(campaign, key) for key in METRICS]


def _marker(generation: Generation) -> tuple[str, str]:
    if generation.number == 0:
        return "foundation", "diamond"
    decision = str(generation.decision.get("decision", ""))
    if decision in _MARKERS:
        return _MARKERS[decision]
    if decision == "stop":
        return _MARKERS["promote" if generation.promoted else "hold"]
    return "not decided yet", "circle-open-dot"


def _error_figure(campaign: Campaign, key: str) -> Figure:
    name, unit = METRICS[key]
    where = "the independent test set" if campaign.metric_set == "test" else "the validation frames"
    title = f"{name} error ({unit})"
    caption = f"{name} RMSE on {where}. The line is the potential in use after each generation."
    points = [(g, v) for g in campaign.generations if (v := finite(campaign.metrics(g).get(key))) is not None]
    if not points:
        return Figure(
            key=f"error-{key}", title=title, caption=caption, missing=f"No {name.lower()} error is known yet."
        )
    traces: list[Spec] = [_promoted_line(points)]
    for label in dict.fromkeys(_marker(g)[0] for g, _ in points):
        mine = [(g, v) for g, v in points if _marker(g)[0] == label]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": label,
                "x": [g.number for g, _ in mine],
                "y": rounded([v for _, v in mine]),
                "text": [number(v) for _, v in mine],
                "textposition": "top center" if label == "foundation" else "top right",
                "cliponaxis": False,
                "marker": {
                    "symbol": _marker(mine[0][0])[1],
                    "size": 11,
                    "color": "var(--series-foundation)" if label == "foundation" else "var(--series-latest)",
                    "line": {"width": 2},
                },
                "hovertemplate": f"generation %{{x}}: %{{y:.4g}} {unit}<extra>{label}</extra>",
            }
        )
    top = max(v for _, v in points)
    spec = {
        "data": traces,
        "layout": layout(
            "generation (0 = foundation)",
            f"RMSE ({unit})",
            xaxis={"dtick": max(1, len(points) // 8), "range": [-0.4, max(g.number for g, _ in points) + 0.8]},
            yaxis={"range": [0, 1.18 * top if top > 0 else 1.0]},
            **_goal(campaign, key),
        ),
    }
    values = ", ".join(f"{g.title} {number(v)} ({_marker(g)[0]})" for g, v in points)
    return Figure(key=f"error-{key}", title=title, caption=caption, spec=spec, alt=f"{name} RMSE in {unit}: {values}.")


def _promoted_line(points: list[tuple[Generation, float]]) -> Spec:
    xs, ys, last = [], [], None
    for g, value in points:
        last = value if g.promoted or last is None else last
        xs.append(g.number)
        ys.append(last)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "in use",
        "x": xs,
        "y": rounded(ys),
        "line": {"color": "var(--series-latest)", "width": 2},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _goal(campaign: Campaign, key: str) -> Spec:
    stop = campaign.recipe.get("stop")
    goal = finite(stop.get("force_rmse_meV_A")) if isinstance(stop, dict) and key == "forces_rmse_meV_A" else None
    if goal is None:
        return {}
    line = {"color": "var(--muted)", "dash": "dash", "width": 1.5}
    return {
        "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": goal, "y1": goal, "line": line}],
        "annotations": [
            {
                "xref": "paper",
                "x": 0.01,
                "xanchor": "left",
                "y": goal,
                "yanchor": "bottom",
                "text": f"goal {number(goal)}",
                "showarrow": False,
                "font": {"color": "var(--muted)"},
            }
        ],
    }


# -------------------------------------------------------------------------------------------------------- parity

_KEYS = {
    "forces": ("Force components", "eV/Å", "meV/Å", 1000.0),
    "energies": ("Energies", "eV/atom", "meV/atom", 1000.0),
}


def pair(arrays: Arrays, what: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Reference and predicted values, flat and finite; total energies become energies per atom."""
    stems = (what, {"energies": "energy", "forces": "force"}[what])
    names = [(f"{s}_ref", f"{s}_pred") for s in stems] + [(f"ref_{s}", f"pred_{s}") for s in stems]
    found = next(((r, p) for r, p in names if r in arrays and p in arrays), None)
    if found is None:
        return None
    try:
        ref, pred = (np.asarray(arrays[k], dtype=float).ravel() for k in found)
    except (ValueError, TypeError):
        return None
    atoms = np.asarray(arrays.get("n_atoms", ())).ravel()
    if what == "energies" and len(atoms) == len(ref):
        ref, pred = ref / atoms, pred / atoms
    if len(ref) != len(pred) or not len(ref):
        return None
    good = np.isfinite(ref) & np.isfinite(pred)
    return (ref[good], pred[good]) if good.any() else None


def parity_figures(campaign: Campaign) -> list[Figure]:
    """Predicted against reference forces and energies: the foundation and the latest potential."""
    latest = campaign.current
    if latest is None or latest.number == 0 or not latest.predictions:
        later = [g for g in campaign.generations if g.number > 0 and g.predictions]
        latest = later[-1] if later else None
    sources = [g for g in (campaign.foundation, latest) if g is not None and g.predictions]
    return [_parity(sources, what) for what in _KEYS]


def _parity(sources: list[Generation], what: str) -> Figure:
    name, unit, error_unit, scale = _KEYS[what]
    title, key = f"{name} ({unit})", f"parity-{what}"
    series = [(g, xy) for g in sources if (xy := pair(g.predictions, what)) is not None]
    if not series:
        missing = f"No predictions of {name.lower()} have been stored yet."
        return Figure(key=key, title=title, caption="Predicted against reference values.", missing=missing)
    traces, errors, total = [], [], 0
    for g, (ref, pred) in series:
        rmse = scale * float(np.sqrt(np.mean((pred - ref) ** 2)))
        kept = thin(ref, POINTS)
        total = max(total, len(ref))
        label = g.title if g.number == 0 or g.promoted else f"{g.title} (not promoted)"
        errors.append(f"{label} {number(rmse)} {error_unit}")
        colour = SERIES[0 if g.number == 0 else 1]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{label}: RMSE {number(rmse)} {error_unit}",
                "x": rounded(ref[kept], 6),
                "y": rounded(pred[kept], 6),
                "marker": {
                    "symbol": "circle-open" if g.number == 0 else "circle",
                    "size": 5 if len(kept) > 200 else 7,
                    "color": colour,
                    "opacity": 0.65,
                },
                "hovertemplate": "reference %{x:.4g}, predicted %{y:.4g} " + unit + f"<extra>{label}</extra>",
            }
        )
    values = np.concatenate([v for _, xy in series for v in xy])
    low, high = float(values.min()), float(values.max())
    pad = 0.04 * (high - low or 1.0)
    ends = rounded([low - pad, high + pad], 7)
    line = {"type": "line", "x0": ends[0], "x1": ends[1], "y0": ends[0], "y1": ends[1], "layer": "below"}
    line["line"] = {"color": "var(--muted)", "width": 1}
    spec = {
        "data": traces,
        "layout": layout(
            f"reference ({unit})", f"predicted ({unit})", shapes=[line], xaxis={"range": ends}, yaxis={"range": ends}
        ),
    }
    shown = f" {POINTS} of {total} values are drawn, the errors count all." if total > POINTS else ""
    caption = (
        f"{name} on frames that were not trained on: on the diagonal the potential agrees with the reference.{shown}"
    )
    return Figure(key=key, title=title, caption=caption, spec=spec, alt=f"Parity plot. RMSE: {listed(errors)}.")


# --------------------------------------------------------------------------------------------------------- costs


def core_hours(campaign: Campaign) -> dict[str, dict[int, float]]:
    """Core-hours by stage and generation: cores × wall time of a stage; for a label its CPU time where that is more.

    A label's key counts once: read from the store it costs nothing again.
    """
    hours: dict[str, dict[int, float]] = {}
    seen: set[str] = set()
    for entry in campaign.ledger:
        generation, event = entry.get("generation"), entry.get("event")
        if not isinstance(generation, int) or event not in ("published", "label"):
            continue
        spent = (finite(entry.get("seconds")) or 0.0) * (finite(entry.get("cores")) or 1.0)
        stage = str(entry.get("stage"))
        if event == "label":
            key, stage = str(entry.get("key")), "label"
            spent = 0.0 if key in seen else max(spent, finite(entry.get("cpu_s")) or 0.0)
            seen.add(key)
        by = hours.setdefault({"collect": "label", "baseline": "train", "relax": "benchmark"}.get(stage, stage), {})
        by[generation] = by.get(generation, 0.0) + spent / 3600
    order = {stage: i for i, stage in enumerate(STAGES)}
    return dict(sorted(hours.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def cost_figure(campaign: Campaign) -> Figure:
    """Core-hours of each stage, summed over generations."""
    hours = {stage: sum(by.values()) for stage, by in core_hours(campaign).items()}
    caption = "Core-hours (cores × time) each stage has used, all generations together."
    title = "Cost by stage (core-hours)"
    if not hours:
        return Figure(key="cost", title=title, caption=caption, missing="The ledger records no cost yet.")
    total = sum(hours.values())
    names = list(hours)[::-1]
    share = [hours[n] / total if total else 0.0 for n in names]
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": [escape(n) for n in names],
        "x": rounded([hours[n] for n in names]),
        "text": [f"{number(hours[n], 2)} ({100 * s:.0f} %)" for n, s in zip(names, share, strict=True)],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": "var(--series-latest)"},
        "hovertemplate": "%{y}: %{x:.3g} core-hours<extra></extra>",
    }
    top = max(hours.values()) or 1.0
    spec = {
        "data": [bar],
        "layout": layout("core-hours", "", showlegend=False, xaxis={"range": [0, 1.35 * top]}, yaxis={"ticklen": 0}),
    }
    parts = ", ".join(f"{n} {number(h, 2)}" for n, h in hours.items())
    return Figure(key="cost", title=title, caption=caption, spec=spec, alt=f"Core-hours by stage: {parts}.")


def change(before: float, after: float) -> str:
    """``−84 %`` from a value before and one after."""
    return percent(after / before - 1.0) if before else "from zero"


def decision_word(generation: Generation) -> str:
    """The gate's decision in a word or two."""
    decision = str(generation.decision.get("decision", ""))
    if decision == "stop":
        decision = "promote" if generation.promoted else "hold"
    word = DECISIONS.get(decision, decision) or "not decided yet"
    return f"{word}; the campaign stops" if generation.stops else word


def labels_by_status(labels: list[dict[str, Any]]) -> str:
    """``18 ok, 1 failed``."""
    statuses = [str(label.get("status", "unknown")) for label in labels]
    order = sorted(set(statuses), key=lambda s: (s != "ok", s))
    return ", ".join(f"{statuses.count(s)} {s}" for s in order) or count(0, "label")
