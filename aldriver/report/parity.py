"""The parity figure of an evaluation: energies, force components and stresses, predicted against reference.

One figure of three panels, coloured by group: HTML with Plotly inside, or PNG and SVG by matplotlib. The errors
themselves are ``benchmark/evaluate.py``'s.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.core.frames import label_of
from aldriver.core.store import atomic_write
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.report.figures import thin
from aldriver.report.words import number

if TYPE_CHECKING:
    from aldriver.potentials.base import Prediction

SUFFIXES = (".html", ".png", ".svg")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195")
"""Told apart with any colour vision (Okabe & Ito, 2008), and on paper by their lightness."""
REST, REST_COLOUR = "other groups", "#8a8a8a"
POINTS = 6000
"""Most points drawn in a panel; errors are computed from all."""
KINDS = {
    "energy": ("Energy, from the mean of its composition", "eV/atom", "meV/atom", 1e3),
    "forces": ("Force components", "eV/Å", "meV/Å", 1e3),
    "stress": ("Stress components", "GPa", "GPa", 1.0),
}
"""Title, unit of the axes, unit of the errors, and the one in the other."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One kind of quantity: reference and predicted values, and which group each belongs to."""

    kind: str
    reference: NDArray[np.float64]
    predicted: NDArray[np.float64]
    group: NDArray[np.int64]

    @property
    def summary(self) -> str:
        """MAE and RMSE in words."""
        off = (self.predicted - self.reference) * KINDS[self.kind][3]
        if not len(off):
            return "no labels"
        return f"MAE {number(np.abs(off).mean())}, RMSE {number(np.sqrt(np.mean(off**2)))} {KINDS[self.kind][2]}"

    @property
    def ends(self) -> tuple[float, float]:
        """Of both axes."""
        values = np.concatenate([self.reference, self.predicted])
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        pad = 0.05 * (high - low) or 0.5
        return low - pad, high + pad


def parity_panels(
    frames: Sequence[Atoms],
    predictions: Sequence[Prediction],
    groups: Sequence[str],
    *,
    e0_shift: Mapping[str, float] | None = None,
) -> tuple[list[Panel], list[str]]:
    """Panels of an evaluation, and the names of the groups in them.

    Parameters
    ----------
    groups
        One a frame; the largest keep their names, where there are more than colours.
    e0_shift
        Added to reference energies, by element, eV.
    """
    names, place = _named(groups)
    compositions: list[str] = []
    rows: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64], int]]] = {kind: [] for kind in KINDS}
    for atoms, p, name in zip(frames, predictions, groups, strict=True):
        shift = sum((e0_shift or {}).get(s, 0.0) for s in atoms.get_chemical_symbols())
        energies = np.array([label_of(atoms, "energy") + shift, p.energy]) / len(atoms)
        compositions.append(atoms.symbols.formula.reduce()[0].format("hill"))
        rows["energy"].append((energies[:1], energies[1:], place[name]))
        rows["forces"].append((np.ravel(label_of(atoms, "forces")), np.ravel(p.forces), place[name]))
        stress = label_of(atoms, "stress")
        if stress is not None and p.stress is not None:
            rows["stress"].append((stress * EV_A3_TO_GPA, p.stress * EV_A3_TO_GPA, place[name]))
    panels = []
    for kind, found in rows.items():
        columns = [np.concatenate([row[k] for row in found]) if found else np.zeros(0) for k in (0, 1)]
        members = [np.full(len(row[0]), row[2]) for row in found]
        group = np.concatenate(members) if found else np.zeros(0, dtype=int)
        if kind == "energy":  # absolute energies of different compositions lie so far apart that errors drown
            columns = [column - _means(columns[0], compositions) for column in columns]
        good = np.isfinite(columns[0]) & np.isfinite(columns[1])
        panels.append(Panel(kind=kind, reference=columns[0][good], predicted=columns[1][good], group=group[good]))
    return panels, names


def _means(values: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64]:
    """Mean over all that share a name, for each."""
    own = np.array(names)
    return np.array([values[own == name].mean() for name in names])


def write_parity(path: str | Path, panels: Sequence[Panel], names: Sequence[str], *, title: str) -> Path:
    """Write the figure; the ending of `path` says as what.

    Raises
    ------
    InputError
        When the ending is none of ``.html``, ``.png`` and ``.svg``, or the folder is not there.
    """
    path = check_path(path)
    if path.suffix == ".html":
        atomic_write(path, _html(panels, names, title))
    else:
        atomic_write(path, _picture(panels, names, title, path.suffix[1:]))
    return path


def check_path(path: str | Path) -> Path:
    """The path, if a figure can be written there (asked before anything is computed)."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a parity figure ends in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    return path


def _named(groups: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Names of the groups told apart, the largest first (small ones lie on top), and the place of each group."""
    sizes = dict.fromkeys(groups, 0)
    for name in groups:
        sizes[name] += 1
    names = sorted(sizes, key=lambda name: -sizes[name])[: len(COLOURS)]
    place = {name: names.index(name) if name in names else len(names) for name in sizes}
    return (names if len(sizes) <= len(COLOURS) else [*names, REST]), place


def _colour(names: Sequence[str], k: int) -> str:
    return REST_COLOUR if names[k] == REST else COLOURS[k % len(COLOURS)]


def _drawn(panel: Panel, k: int) -> NDArray[np.intp]:
    """Places of the points of group `k` that are drawn; each group keeps its share."""
    own = np.flatnonzero(panel.group == k)
    limit = max(50, int(POINTS * len(own) / max(len(panel.group), 1)))
    return own[thin(own, limit)]


def _size(points: NDArray[np.intp]) -> int:
    return 5 if len(points) > 200 else 8


def _html(panels: Sequence[Panel], names: Sequence[str], title: str) -> str:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = [f"<b>{KINDS[p.kind][0]}</b><br><span style='font-size:13px'>{p.summary}</span>" for p in panels]
    figure: Any = make_subplots(cols=len(panels), subplot_titles=titles, horizontal_spacing=0.08)
    for column, panel in enumerate(panels, start=1):
        unit, ends = KINDS[panel.kind][1], panel.ends
        diagonal = {"mode": "lines", "line": {"color": "#9a9a9a", "width": 1}, "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(go.Scatter(x=ends, y=ends, **diagonal), col=column, row=1)
        for k, name in enumerate(names):
            kept = _drawn(panel, k)
            if not len(kept):
                continue
            points = go.Scatter(
                x=np.round(panel.reference[kept], 6),
                y=np.round(panel.predicted[kept], 6),
                mode="markers",
                name=escape(name),
                legendgroup=name,
                showlegend=panel.kind == "energy",
                marker={"size": _size(kept), "color": _colour(names, k), "opacity": 0.6},
                hovertemplate=f"reference %{{x:.5g}}, predicted %{{y:.5g}} {unit}<extra>{escape(name)}</extra>",
            )
            figure.add_trace(points, col=column, row=1)
        anchor = "x" if column == 1 else f"x{column}"
        figure.update_xaxes(title=f"reference ({unit})", range=ends, constrain="domain", col=column, row=1)
        figure.update_yaxes(title=f"predicted ({unit})", range=ends, scaleanchor=anchor, col=column, row=1)
    figure.update_layout(
        title={"text": escape(title), "x": 0.5, "y": 0.97},
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 14},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.2, "itemsizing": "constant"},
        height=600,
        margin={"t": 110, "l": 70, "r": 20, "b": 70},
    )
    page: str = figure.to_html(include_plotlyjs=True, config={"displaylogo": False, "responsive": True})
    head = f"<head><title>{escape(title)}</title>"
    return page.replace("<head>", head, 1)


def _picture(panels: Sequence[Panel], names: Sequence[str], title: str, form: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels), 5.4), dpi=160, layout="constrained")
    figure.suptitle(title, fontsize=13)
    axes = figure.subplots(1, len(panels))
    handles: dict[str, Any] = {}
    for ax, panel in zip(axes, panels, strict=True):
        name, unit, _, _ = KINDS[panel.kind]
        ends = panel.ends
        ax.plot(ends, ends, color="#9a9a9a", linewidth=1, zorder=1)
        for k, group in enumerate(names):
            kept = _drawn(panel, k)
            if len(kept):
                points = ax.scatter(
                    panel.reference[kept], panel.predicted[kept], s=1.8 * _size(kept), alpha=0.55, linewidths=0,
                    color=_colour(names, k), label=group, zorder=2, rasterized=len(kept) > 1000,
                )  # fmt: skip
                handles.setdefault(group, points)
        ax.set(xlim=ends, ylim=ends, box_aspect=1, xlabel=f"reference ({unit})", ylabel=f"predicted ({unit})")
        ax.set_title(f"{name}\n{panel.summary}", fontsize=10)
        ax.grid(color="#e6e6e6", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    shown: Any = legend.legend_handles
    for handle in shown:
        handle.set_alpha(1.0)
        handle.set_sizes([30])
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, metadata={"Title": title})
    return buffer.getvalue()
