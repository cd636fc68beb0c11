"""Tables of the detection bench: ranking, promises and costs, as they stand on its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aldriver.testing.detect_scored import BASELINES, FUSED, SIZE
from aldriver.testing.runs import table

Facts = dict[str, Any]
DEFAULT = next(iter(FUSED))
FRAME_TARGET, ATOM_TARGET, COST_TARGET = 0.95, 0.88, 0.03
NAMES = {"soap_q": "soap_q (Wong & Yang: mean)", "committee": "committee of 3", SIZE: "size of the force"}


def summary(facts: Facts) -> str:
    """One line about a finished run."""
    if "costs" in facts:
        return f"step of {facts['costs']['step_ms']:.0f} ms"
    found = facts["ranking"][DEFAULT]
    return f"{facts['rmse_meV_A']:.0f} meV/Å, AUROC frames {_frames(found, 'rms'):.3f}, atoms {_atoms(found):.3f}"


def sections(runs: Sequence[Facts]) -> dict[str, str]:
    """Texts by marker."""
    ranked = [run for run in runs if "ranking" in run]
    costs = next((run["costs"] for run in runs if "costs" in run), None)
    return {
        "verdict": verdict(ranked, costs) if ranked else "",
        "ranking": _ranking(ranked) if ranked else "",
        "elements": "\n\n".join(_element(name, own) for name, own in _by_element(ranked).items()),
        "coverage": _coverage(ranked) if ranked else "",
        "costs": _costs(costs) if costs else "",
    }


def verdict(ranked: Sequence[Facts], costs: Facts | None) -> str:
    """What holds of the targets, and what does not."""
    frames, atoms = _mean(ranked, DEFAULT, _rms_frames), _mean(ranked, DEFAULT, _atoms)
    found = f"{frames:.3f} for frames (wanted: {FRAME_TARGET:g}), {atoms:.3f} for atoms (wanted: {ATOM_TARGET:g})"
    lines = [f"* {len(ranked)} runs, {len(_by_element(ranked))} elements.", f"* The default score: mean AUROC {found}."]
    lines += [f"* Best of all: {_best(ranked)}."]
    lines += [f"* Against {NAMES.get(name, name)}: {_against(name, ranked)}." for name in BASELINES]
    if costs is not None:
        share = costs["feature_distance"]
        lines.append(f"* feature_distance costs {100 * share:.1f} % of an MD step (wanted: ≤ {100 * COST_TARGET:g} %).")
    return "\n".join(lines)


def _best(ranked: Sequence[Facts]) -> str:
    """The signal with the largest mean AUROC for frames (of the rms), and that for atoms."""
    found = []
    for kind, value in (("frames", _rms_frames), ("atoms", _atoms)):
        means = {name: _mean(ranked, name, value) for name in ranked[0]["ranking"]}
        name = max(means, key=lambda n: means[n])
        found.append(f"{name} for {kind} ({means[name]:.3f})")
    return ", ".join(found)


def _against(baseline: str, ranked: Sequence[Facts]) -> str:
    """On which elements the default is not better than a baseline, whichever way that one's frames get their value."""
    ways = (
        ("frames", _rms_frames, _mean_frames),
        ("frames by rms", _rms_frames, _rms_frames),
        ("atoms", _atoms, _atoms),
    )
    behind = []
    for element, own in _by_element(ranked).items():
        for kind, of_default, of_baseline in ways:
            ours, theirs = _mean(own, DEFAULT, of_default), _mean(own, baseline, of_baseline)
            behind += [f"{element} ({kind}: {ours:.3f} against {theirs:.3f})"] if ours <= theirs else []
    return f"not better for {', '.join(behind)}" if behind else "better on each element, for frames and for atoms"


def _ranking(ranked: Sequence[Facts]) -> str:
    head = ["signal", "atoms", "frames (mean)", "frames (rms)", "frames (max)", "ρ atoms", "ρ frames", "ρ in a frame"]
    rows = []
    for name in ranked[0]["ranking"]:
        found = [run["ranking"][name] for run in ranked]
        cells = [_with_least([_atoms(f) for f in found])]
        cells += [_with_least([_frames(f, how) for f in found]) for how in ("mean", "rms", "max")]
        cells += [_plain(f"{_average([f[key] for f in found]):.2f}") for key in ("rank_atoms", "rank_frames", "within")]
        rows.append([NAMES.get(name, name), *cells])
    return table(head, rows)


def _element(element: str, own: Sequence[Facts]) -> str:
    head = ["signal", "atoms [95 %]", "frames (mean) [95 %]", "frames (rms) [95 %]"]
    rows = [
        [
            NAMES.get(name, name),
            _with_interval([run["ranking"][name]["atoms"] for run in own]),
            *(_with_interval([run["ranking"][name]["frames"][how] for run in own]) for how in ("mean", "rms")),
        ]
        for name in own[0]["ranking"]
    ]
    rmse = ", ".join(f"{run['rmse_meV_A']:.0f}" for run in own)
    kinds = {k: _average([run["error_by_kind_eV_A"][k] for run in own]) for k in own[0]["error_by_kind_eV_A"]}
    by_kind = ", ".join(f"{kind} {1e3 * error:.0f}" for kind, error in kinds.items())
    size = f"{len(own)} splits, {own[0]['n_frames']} frames of {own[0]['n_atoms']} atoms"
    errors = f"force RMSE {rmse} meV/Å; frame errors by kind (meV/Å): {by_kind}"
    return f"**{element}**: {size}; {errors}\n\n{table(head, rows)}"


def _coverage(ranked: Sequence[Facts]) -> str:
    head = [
        "element",
        "tolerance",
        "above it",
        "α",
        "certified",
        "promised",
        "missed",
        "band ends at",
        "splits within it",
        "false alarms",
    ]
    rows = []
    for element, own in _by_element(ranked).items():
        for k, first in enumerate(own[0]["coverage"]):
            found = [run["coverage"][k] for run in own]
            splits, certified = sum(f["splits"] for f in found), sum(f["outcomes"].get("certified", 0) for f in found)
            above = " + ".join(str(f["above"]) for f in found)
            rows.append(
                [
                    element,
                    f"{first['tolerance_meV_A']:g}",
                    f"{above} of {first['frames']}",
                    f"{first['asked']:g}",
                    f"{certified} of {splits}",
                    *(_share(found, key) for key in ("promised", "miss_rate", "band", "within_band", "false_alarms")),
                ]
            )
    return table(head, rows)


def _share(found: Sequence[Facts], key: str) -> str:
    values = [f[key] for f in found if f[key] is not None]
    weights = [f["outcomes"]["certified"] for f in found if f[key] is not None]
    return f"{np.average(values, weights=weights):.3f}" if values else ""


def _costs(costs: Facts) -> str:
    rows = [[name, f"{100 * share:.1f} %"] for name, share in costs.items() if name != "step_ms"]
    return f"The step: {costs['step_ms']:.0f} ms.\n\n" + table(["signal", "added to a step"], rows)


def _by_element(ranked: Sequence[Facts]) -> dict[str, list[Facts]]:
    found: dict[str, list[Facts]] = {}
    for run in ranked:
        found.setdefault(run["element"], []).append(run)
    return found


def _atoms(found: Facts) -> float:
    return float(found["atoms"]["value"])


def _frames(found: Facts, how: str) -> float:
    return float(found["frames"][how]["value"])


def _mean_frames(found: Facts) -> float:
    return _frames(found, "mean")


def _rms_frames(found: Facts) -> float:
    return _frames(found, "rms")


def _mean(ranked: Sequence[Facts], name: str, value: Callable[[Facts], float]) -> float:
    return _average([value(run["ranking"][name]) for run in ranked])


def _average(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else float("nan")


def _with_least(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} (≥ {min(values):.3f})"


def _with_interval(found: Sequence[Facts]) -> str:
    value, low, high = (_average([f[key] for f in found]) for key in ("value", "low", "high"))
    return f"{value:.3f} [{low:.2f}, {high:.2f}]"


def _plain(text: str) -> str:
    return "" if text == "nan" else text
