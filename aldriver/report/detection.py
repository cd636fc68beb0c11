"""Figures of what the detector saw: score distributions, the share beyond the threshold, the map of explored space.

Draws stored scores and vectors; computing them is ``detect/``'s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aldriver.report.data import Arrays, Campaign, Generation, detector_of
from aldriver.report.figures import Figure, Spec, layout, rounded, thin
from aldriver.report.words import SIGNALS, number, signal_name

BINS = 24
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "pentagon")
GENERATION_COLOURS = 6
"""How many colours ``style.css`` has for generations; later ones begin again, with another symbol."""


def explored(generation: Generation, signal: str) -> NDArray[np.float64]:
    """Scores of one signal of all frames explored in a generation."""
    arrays = [w.scores[signal] for w in generation.walkers if signal in w.scores]
    return np.concatenate(arrays) if arrays else np.empty(0)


def latest_explored(campaign: Campaign) -> Generation | None:
    """Last generation that stored scores of explored frames."""
    return next((g for g in reversed(campaign.generations) if any(w.scores for w in g.walkers)), None)


# ---------------------------------------------------------------------------------------------- score distributions


def distribution_figures(campaign: Campaign) -> list[Figure]:
    """Distribution of each signal for training, held-out and explored frames, with the threshold."""
    generation = latest_explored(campaign)
    guard = campaign.before(generation) if generation else campaign.current
    detector = detector_of(campaign, generation)
    found = {*detector.thresholds, *detector.train, *detector.heldout} & set(SIGNALS)
    section = campaign.recipe.get("detect")
    wanted = section.get("signals") if isinstance(section, dict) else None
    found |= {str(s) for s in wanted} if isinstance(wanted, list) else set()
    figures = []
    for signal in [s for s in SIGNALS if s in found or not found]:
        sets = {
            "trained on": detector.train.get(signal, np.empty(0)),
            "held out": detector.heldout.get(signal, np.empty(0)),
            f"explored by MD in generation {generation.number}" if generation else "explored by MD": (
                explored(generation, signal) if generation else np.empty(0)
            ),
        }
        figures.append(_distribution(signal, sets, detector.thresholds.get(signal), guard))
    return figures


def _distribution(signal: str, sets: Arrays, threshold: float | None, guard: Generation | None) -> Figure:
    key, title = f"scores-{signal}", signal_name(signal)
    of = f" Scored by the detector of the {guard.title} potential." if guard else ""
    clean = {}
    lost = 0
    for name, values in sets.items():
        values = np.asarray(values, dtype=float).ravel()
        lost += int((~np.isfinite(values)).sum())
        clean[name] = values[np.isfinite(values)]
    everything = np.concatenate(list(clean.values()))
    positive = everything[everything > 0]
    if not len(positive):
        caption = f"Distribution of frame scores.{of}"
        return Figure(key=key, title=title, caption=caption, missing="No scores are stored yet.")
    edges = _edges(positive, threshold)
    shown = {name: values for name, values in clean.items() if len(values)}
    traces = [_histogram(name, v, edges, len(shown) - 1 - row) for row, (name, v) in enumerate(shown.items())]
    extra: Spec = {}
    beyond = []
    if threshold is not None and threshold > 0:
        extra = _threshold_line(threshold, left=threshold**2 > edges[0] * edges[-1])
        beyond = [f"{100 * float(np.mean(v > threshold)):.0f} % of those {n}" for n, v in shown.items()]
    axes = {"xaxis": _log_ticks(edges), "yaxis": _rows(shown)}
    spec = {"data": traces, "layout": layout("frame score", "", showlegend=False, **axes, **extra)}
    text = "No threshold is stored."
    if beyond:
        text = f"Frames beyond the threshold ({number(threshold)}): {', '.join(beyond)}."
    absent = [name for name, values in clean.items() if not len(values)]
    if absent:
        text += f" No scores stored for frames {' or '.join(absent)}."
    if lost:
        text += f" {lost} scores that are not finite were set aside."
    return Figure(key=key, title=title, caption=f"{text}{of}", spec=spec, alt=f"Distribution of {title}. {text}")


def _edges(positive: NDArray[np.float64], threshold: float | None) -> NDArray[np.float64]:
    low, high = float(positive.min()), float(positive.max())
    if threshold is not None and threshold > 0:
        low, high = min(low, threshold), max(high, threshold)
    return np.geomspace(max(low / 1.2, high * 1e-9), high * 1.2, BINS + 1)


def _histogram(name: str, values: NDArray[np.float64], edges: NDArray[np.float64], base: int) -> Spec:
    """A histogram on its own baseline: sets stand above each other, so that none hides another."""
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    height = 0.82 * counts / counts.max()
    role = {"t": "train", "h": "heldout", "e": "explored"}[name[0]]
    outline = np.concatenate([[0.0], np.repeat(height, 2), [0.0]])
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": rounded(np.append(np.repeat(edges, 2), edges[0])),
        "y": rounded(base + np.append(outline, 0.0)),
        "line": {"color": f"var(--set-{role})", "width": 1.5},
        "fill": "toself",
        "fillcolor": f"var(--set-{role}-fill)",
        "hoverinfo": "skip",
    }


def _rows(sets: Arrays) -> Spec:
    text = [f"{name.replace(' by MD', '').replace(' in ', '<br>in ')}<br>({len(v)} frames)" for name, v in sets.items()]
    places = [len(sets) - 1 - row + 0.3 for row in range(len(sets))]
    plain = {"showgrid": False, "zeroline": False, "showline": False, "ticklen": 0}
    top = len(sets) + 0.2  # room for the word at the threshold
    return {**plain, "tickmode": "array", "tickvals": places, "ticktext": text, "range": [-0.04, top]}


def _log_ticks(edges: NDArray[np.float64]) -> Spec:
    """Ticks at 1, 2, 5 (or only 1) times powers of ten, never more than about six."""
    low, high = np.log10(edges[0]), np.log10(edges[-1])
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**p for p in powers for m in steps if edges[0] <= m * 10.0**p <= edges[-1]]
        if len(ticks) <= 6:
            break
    ticks = ticks[:: len(ticks) // 6 + 1]
    return {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": [number(t, 1) for t in ticks]}


def _threshold_line(threshold: float, *, left: bool) -> Spec:
    line = {"color": "var(--bad)", "width": 2, "dash": "dash"}
    return {
        "shapes": [{"type": "line", "x0": threshold, "x1": threshold, "yref": "paper", "y0": 0, "y1": 1, "line": line}],
        "annotations": [
            {
                "x": float(np.log10(threshold)),
                "yref": "paper",
                "y": 1,
                "yanchor": "top",
                "xanchor": "right" if left else "left",
                "xshift": -4 if left else 4,
                "text": "threshold",
                "showarrow": False,
                "font": {"color": "var(--bad)"},
            }
        ],
    }


# ------------------------------------------------------------------------------------------------------- coverage


def coverage_figure(campaign: Campaign) -> Figure:
    """Share of explored frames beyond the threshold, by generation: falling means that the potential knows more."""
    title, key = "Frames beyond the threshold (%)", "coverage"
    caption = (
        "Share of the explored frames that a signal puts beyond its threshold, measured by the detector in use during "
        "that generation. A falling share means that the potential comes to know what its own MD visits."
    )
    share: dict[str, dict[int, float]] = {}
    for g in campaign.generations:
        thresholds = detector_of(campaign, g).thresholds if g.walkers else {}
        signals = {k: v for k, v in thresholds.items() if k != "score"}  # the ratio is what that was compared with
        for signal, limit in {**signals, "ratio": 1.0}.items():
            values = explored(g, signal)
            if len(values):  # what is not finite is not known either
                share.setdefault(signal, {})[g.number] = 100 * float(np.mean(~(values <= limit)))
    if not share:
        return Figure(key=key, title=title, caption=caption, missing="No explored frames have been scored yet.")
    traces: list[Spec] = []
    order = [*SIGNALS, "ratio"]
    for i, signal in enumerate(sorted(share, key=lambda s: order.index(s) if s in order else len(order))):
        name = "any signal" if signal == "ratio" else signal_name(signal)
        colour = "var(--text)" if signal == "ratio" else f"var(--gen-{i % GENERATION_COLOURS})"
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": list(share[signal]),
                "y": rounded(list(share[signal].values())),
                "line": {"color": colour, "width": 2, "dash": "dot" if signal == "ratio" else "solid"},
                "marker": {"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 9, "color": colour},
                "cliponaxis": False,
                "hovertemplate": f"generation %{{x}}: %{{y:.0f}} %<extra>{name}</extra>",
            }
        )
    last = max(n for by in share.values() for n in by)
    across: Spec = {"dtick": max(1, last // 8), "range": [0.6, last + 0.4]}
    axes = layout("generation", "beyond threshold (%)", xaxis=across, yaxis={"range": [0, 104]})
    words = [
        f"{t['name']}: " + ", ".join(f"generation {x} {y:.0f} %" for x, y in zip(t["x"], t["y"], strict=True))
        for t in traces
    ]
    alt = f"Share beyond the threshold. {'; '.join(words)}."
    return Figure(key=key, title=title, caption=caption, spec={"data": traces, "layout": axes}, alt=alt)


# ------------------------------------------------------------------------------------------------------------- map


def map_figure(campaign: Campaign) -> Figure:
    """Principal-component map of the frames each generation explored; rings mark those chosen for labelling."""
    title, key = "Map of explored frames", "map"
    caption = "Each dot is a frame that MD visited, placed by the two main directions of its descriptor vector."
    clouds = _clouds(campaign)
    if sum(len(v) for _, v, _ in clouds) < 3:
        return Figure(
            key=key, title=title, caption=caption, missing="Fewer than three explored frames have vectors yet."
        )
    points, share = project(np.concatenate([v for _, v, _ in clouds]))
    traces, rings, start = [], [], 0
    for g, vectors, chosen in clouds:
        mine = points[start : start + len(vectors)]
        start += len(vectors)
        i = g.number - 1
        kept = thin(mine, 1500)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": g.title,
                "x": rounded(mine[kept, 0]),
                "y": rounded(mine[kept, 1]),
                "marker": {
                    "symbol": SYMBOLS[i % len(SYMBOLS)],
                    "size": 7,
                    "opacity": 0.75,
                    "color": f"var(--gen-{i % GENERATION_COLOURS})",
                },
                "hovertemplate": f"%{{x:.3g}}, %{{y:.3g}}<extra>{g.title}</extra>",
            }
        )
        rings.append(mine[chosen])
    labelled = np.concatenate(rings)
    if len(labelled):
        traces.append(_rings(labelled))
        caption += f" Rings: the {len(labelled)} frames chosen for labelling."
    axes = [f"component {i + 1} ({100 * s:.0f} % of the variance)" for i, s in enumerate(share)]
    parts = ", ".join(f"{g.title} {len(v)} frames" for g, v, _ in clouds)
    spec = {"data": traces, "layout": layout(axes[0], axes[1], xaxis={"zeroline": False}, yaxis={"zeroline": False})}
    return Figure(key=key, title=title, caption=caption, spec=spec, alt=f"Map of explored frames: {parts}.")


def _rings(points: NDArray[np.float64]) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "chosen for labelling",
        "x": rounded(points[:, 0]),
        "y": rounded(points[:, 1]),
        "marker": {"symbol": "circle-open", "size": 13, "color": "var(--text)", "line": {"width": 1.5}},
        "hoverinfo": "skip",
    }


def _clouds(campaign: Campaign) -> list[tuple[Generation, NDArray[np.float64], NDArray[np.bool_]]]:
    """Vectors of each generation and which of their frames were chosen; only vectors of the most recent length fit."""
    clouds: list[tuple[Generation, NDArray[np.float64], NDArray[np.bool_]]] = []
    lengths = [
        w.vectors.shape[1] for g in campaign.generations for w in g.walkers if w.vectors is not None and w.vectors.size
    ]
    for g in campaign.generations:
        chosen, scale = set(g.selected), detector_of(campaign, g).vector_scale
        parts, marks = [], []
        for w in g.walkers:
            if w.vectors is None or not w.vectors.size or w.vectors.shape[1] != lengths[-1]:
                continue
            vectors = scale * np.asarray(w.vectors, dtype=float)  # back to one unit: each detector scales its own way
            steps, group = w.scores.get("step", np.empty(0)), str(w.result.get("group", w.name))
            known = len(steps) == len(vectors)
            mark = [known and (group, int(s)) in chosen for s in (steps if known else range(len(vectors)))]
            good = np.isfinite(vectors).all(axis=1)
            parts.append(vectors[good])
            marks.append(np.asarray(mark, dtype=bool)[good])
        if parts and sum(map(len, parts)):
            clouds.append((g, np.concatenate(parts), np.concatenate(marks)))
    return clouds


def project(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """First two principal components of (n, d) vectors, (n, 2), and the share of the variance each explains.

    The sign of a component is fixed by its largest loading, so the same data give the same map.
    """
    centred = vectors - vectors.mean(axis=0)
    if centred.shape[1] < 2:
        centred = np.pad(centred, ((0, 0), (0, 2 - centred.shape[1])))
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    axes = vt[:2]
    axes = axes * np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    total = float((s**2).sum()) or 1.0
    return centred @ axes.T, (float(s[0] ** 2) / total, float(s[1] ** 2) / total)
