"""Phonon dispersions and densities of states of potentials, over each other, one figure for each crystal.

What the curves are is the benchmark's business (``aldriver.benchmark.dispersion``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from aldriver.benchmark.comparison import Candidate
from aldriver.benchmark.dispersion import Dispersion
from aldriver.report.figures import Figure, layout

COLOURS = 6
"""Colours of the style's generations."""
BANDS, STATES = [0.0, 0.74], [0.78, 1.0]
"""Where on the width of the figure both parts are."""
GAMMA = {"G": "Γ"}


def phonon_figures(candidates: Sequence[Candidate]) -> list[Figure]:
    """A figure for each crystal of which a candidate has curves."""
    cases = dict.fromkeys(case for c in candidates for case in c.phonons)
    return [_figure(case, {c.name: c.phonons[case] for c in candidates if case in c.phonons}) for case in cases]


def _figure(case: str, curves: Mapping[str, Dispersion]) -> Figure:
    traces: list[dict[str, Any]] = []
    for i, (name, found) in enumerate(curves.items()):
        line = {"color": f"var(--gen-{i % COLOURS})", "width": 1.5}
        shared = {"type": "scatter", "mode": "lines", "name": name, "legendgroup": name, "line": line}
        drawn = [point for mode in found.frequencies for point in _lines(found.distance, mode)]
        traces.append(
            shared
            | {"x": [x for x, _ in drawn], "y": [y for _, y in drawn],
               "hovertemplate": f"%{{y:.2f}} THz<extra>{escape(name)}</extra>"}
        )  # fmt: skip
        traces.append(
            shared
            | {"x": found.states, "y": found.levels, "xaxis": "x2", "showlegend": False,
               "hovertemplate": f"%{{x:.3f}} at %{{y:.2f}} THz<extra>{escape(name)}</extra>"}
        )  # fmt: skip
    first = next(iter(curves.values()))
    axes = {
        "xaxis": {"domain": BANDS, "tickvals": first.ticks, "ticktext": [_words(x) for x in first.labels]},
        "xaxis2": layout("states per THz and atom", "")["xaxis"] | {"domain": STATES, "rangemode": "tozero"},
    }
    title = f"Phonons of {case} (THz)"
    return Figure(
        key=f"phonons-{case}",
        title=title,
        caption="Left the dispersion along lines of the Brillouin zone, right the density of states. Imaginary "
        "frequencies are drawn below zero.",
        alt=f"Phonon dispersion and density of states of {case} with {', '.join(curves)}.",
        spec={"data": traces, "layout": layout("", "frequency (THz)", height=420, **axes)},
    )


def _lines(distance: Sequence[float], mode: Sequence[float]) -> Iterator[tuple[float | None, float | None]]:
    """Points of a mode, with a gap where one line ends and the next begins: perhaps elsewhere in the zone."""
    before = None
    for x, y in zip(distance, mode, strict=True):
        if x == before:
            yield None, None
        yield x, y
        before = x
    yield None, None


def _words(label: str) -> str:
    return "|".join(GAMMA.get(part, part) for part in label.split("|"))
