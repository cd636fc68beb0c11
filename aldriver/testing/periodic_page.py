"""Tables and figure of periodic against naive fine-tuning, laid out as in Wong & Yang (arXiv:2603.10159)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aldriver.testing.runs import cpu_of, table

Facts = dict[str, Any]
ENERGY, FORCES, STRESS = "energy_rmse_meV_atom", "forces_rmse_meV_A", "stress_rmse_GPa"
RESIDUAL = "residual_meV_atom"
COLOURS = {"N": "#d1495b", "F": "#00798c", "U": "#8c8c8c"}


def summary(facts: Facts) -> str:
    """One line about a finished run."""
    naive, periodic = _last(facts)
    own = facts["independent"]
    return f"energies {own[naive][ENERGY]:.1f} (naive) and {own[periodic][ENERGY]:.1f} (periodic) meV/atom"


def sections(found: Sequence[Facts]) -> dict[str, str]:
    """Texts by marker."""
    return {
        "verdict": _verdict(found),
        "independent": _table(found, "independent", "potential", (ENERGY, FORCES, STRESS)),
        "in_md": _table(found, "in_md", "potential", (ENERGY, FORCES, STRESS, RESIDUAL)),
        "long": _table(found, "long", "potential on trajectory of", (ENERGY, FORCES, STRESS, RESIDUAL)),
    }


def _last(facts: Facts) -> tuple[str, str]:
    """Names of the two final potentials."""
    labels = list(facts["independent"])
    return [n for n in labels if n.startswith("N-")][-1], [n for n in labels if n.startswith("FT")][-1]


def _verdict(found: Sequence[Facts]) -> str:
    naive, periodic = _last(found[0])
    lines = [f"* {cpu_of(found)}; means over the seeds, in brackets the smallest and the largest."]
    for where, what in (("independent", "independent frames"), ("in_md", "its own MD")):
        parts = []
        for key, name, unit in ((ENERGY, "energies", "meV/atom"), (FORCES, "forces", "meV/Å")):
            ours, theirs = (_average(_values(found, where, label, key)) for label in (periodic, naive))
            parts.append(f"{name} {ours:.1f} against {theirs:.1f} {unit}")
        lines.append(f"* On {what}: {periodic} {', '.join(parts)} of {naive}.")
    return "\n".join(lines)


def _table(found: Sequence[Facts], where: str, first: str, keys: Sequence[str]) -> str:
    heads = {
        ENERGY: "RMSE E (meV/atom)",
        FORCES: "RMSE F (meV/Å)",
        STRESS: "RMSE S (GPa)",
        RESIDUAL: "mean E − E_truth (meV/atom)",
    }
    rows = []
    for label in found[0][where]:
        cells = [_spread(_values(found, where, label, key), 3 if key == STRESS else 1) for key in keys]
        rows.append([label, *cells, str(sum(run[where][label]["n_frames"] for run in found))])
    return table([first, *(heads[key] for key in keys), "frames"], rows)


def _values(found: Sequence[Facts], where: str, label: str, key: str) -> list[float]:
    values = [run[where][label].get(key) for run in found]
    return [float(v) for v in values if v is not None]


def _average(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{_average(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def draw(found: Sequence[Facts], path: Path) -> None:
    """Mean residual of the energy in each potential's own MD, a point for each seed (their Fig. 2)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = list(found[0]["in_md"])
    figure, axes = pyplot.subplots(figsize=(6.5, 3.6))
    for at, label in enumerate(labels):
        values = _values(found, "in_md", label, RESIDUAL)
        axes.plot([at] * len(values), values, "o", color=COLOURS[label[0]], ms=5)
        axes.plot([at - 0.3, at + 0.3], [_average(values)] * 2, color=COLOURS[label[0]], lw=2)
    axes.axhline(0.0, color="black", lw=0.8)
    axes.set_xticks(range(len(labels)), labels, rotation=45)
    axes.set_ylabel("E − E_truth in own MD (meV/atom)")
    axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
