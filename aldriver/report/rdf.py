"""Radial distribution functions of liquids with several potentials, one figure for each pair of elements.

What the curves are is the benchmark's business (``aldriver.benchmark.rdf``).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from aldriver.benchmark.comparison import Candidate
from aldriver.benchmark.rdf import ALL
from aldriver.report.figures import Figure, layout
from aldriver.report.phonons import COLOURS


def rdf_figures(candidates: Sequence[Candidate]) -> list[Figure]:
    """A figure for each liquid and pair of elements of which a candidate has a curve."""
    curves = {
        (record.case, pair, candidate.name): (record.curve["r"], column)
        for candidate in candidates
        for record in candidate.records
        if record.property == "rdf_first_peak" and "r" in record.curve
        for pair, column in record.curve.items()
        if pair != "r"
    }
    return [
        _figure(case, pair, [(name, *xy) for (c, p, name), xy in curves.items() if (c, p) == (case, pair)])
        for case, pair in dict.fromkeys((case, pair) for case, pair, _ in curves)
    ]


def _figure(case: str, pair: str, curves: Sequence[tuple[str, list[float], list[float]]]) -> Figure:
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "line": {"color": f"var(--gen-{i % COLOURS})", "width": 1.5},
            "x": r,
            "y": g,
            "hovertemplate": f"%{{y:.2f}} at %{{x:.2f}} Å<extra>{escape(name)}</extra>",
        }
        for i, (name, r, g) in enumerate(curves)
    ]
    what = "all pairs" if pair == ALL else pair
    return Figure(
        key=f"rdf-{case}-{pair}",
        title=f"Radial distribution of {what}, {case}",
        caption="1 where atoms lie at random. Up to half the cell.",
        alt=f"Radial distribution function of {what} in the liquid of {case} with "
        f"{', '.join(name for name, *_ in curves)}.",
        spec={"data": traces, "layout": layout("distance (Å)", "g(r)", height=320)},
    )
