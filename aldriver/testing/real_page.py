"""Tables and figure of the campaigns with real DFT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aldriver.testing.runs import table

Facts = dict[str, Any]
TITLES = {"si": "Silicon", "al": "Aluminium"}
CLASSES = ("bulk", "vacancy", "hop", "hot", "other")
COLOURS = {"bulk": "#8c8c8c", "vacancy": "#00798c", "hop": "#edae49", "hot": "#d1495b", "other": "#66a182"}
PROPERTIES = (
    ("lattice_constant", "lattice constant, Å", ".3f"),
    ("bulk_modulus", "bulk modulus, GPa", ".0f"),
    ("vacancy_unrelaxed", "vacancy, unrelaxed, eV", ".2f"),
    ("vacancy_relaxed", "vacancy, relaxed, eV", ".2f"),
)


def summary(facts: Facts) -> str:
    """One line about a finished campaign."""
    first, *others = _measured(facts)
    steps = [f"{_force(row):.0f}" for row in [first, *others]]
    return f"force RMSE {' → '.join(steps)} meV/Å"


def sections(found: Sequence[Facts]) -> dict[str, str]:
    """Texts by marker."""
    texts = {"verdict": "\n".join(_verdict(facts) for facts in found)}
    for name, make in {
        "errors": _errors,
        "classes": _classes,
        "properties": _properties,
        "audit": _audit,
        "dft": _dft,
        "cost": _cost,
    }.items():
        texts[name] = "\n\n".join(f"**{TITLES[facts['name']]}**\n\n{make(facts)}" for facts in found)
    return texts


def outcome(facts: Facts) -> Facts:
    """The last generation that the gate promoted; where it promoted none, the last one."""
    measured = _measured(facts)
    return next((row for row in reversed(measured[1:]) if row["decision"] == "promote"), measured[-1])


def _measured(facts: Facts) -> list[Facts]:
    return [row for row in facts["generations"] if row["errors"] is not None]


def _force(row: Facts) -> float:
    return float(row["errors"]["forces_rmse_meV_A"])


def _name(row: Facts) -> str:
    return "foundation" if row["generation"] == 0 else f"generation {row['generation']}"


def _verdict(facts: Facts) -> str:
    first, best = _measured(facts)[0], outcome(facts)
    frames = sum(facts["frames"].values())
    worse = [n for n in CLASSES if n in facts["frames"] and _of(best, n) >= _of(first, n)]
    kinds = "all classes of frames" if not worse else f"all classes but {', '.join(worse)}"
    fate = "promoted" if best["decision"] == "promote" else "held: the gate promoted none"
    return (
        f"* {TITLES[facts['name']]}: force RMSE on {frames} independent DFT frames {_force(first):.0f} → "
        f"{_force(best):.0f} meV/Å, energy {first['errors']['energy_rmse_meV_atom']:.0f} → "
        f"{best['errors']['energy_rmse_meV_atom']:.0f} meV/atom ({_name(best)}, {best['labels']} labels, {fate}); "
        f"forces are better in {kinds}."
        + ("" if facts["state"] == "finished" else " The campaign had not ended when these numbers were taken.")
    )


def _of(row: Facts, group: str) -> float:
    return float(row["errors"]["groups"][group]["forces_rmse_meV_A"])


def _errors(facts: Facts) -> str:
    rows = []
    for row in facts["generations"]:
        cells = [_name(row), str(row["labels"]), "–" if row["generation"] == 0 else row["decision"]]
        if row["errors"] is None:
            rows.append([*cells, "–", "–", "–"])
            continue
        pairs = (("forces", "meV_A", ".1f"), ("energy", "meV_atom", ".1f"), ("stress", "GPa", ".2f"))
        for key, unit, form in pairs:
            rmse, mae = row["errors"][f"{key}_rmse_{unit}"], row["errors"][f"{key}_mae_{unit}"]
            cells.append(f"{rmse:{form}} / {mae:{form}}")
        rows.append(cells)
    head = ["potential", "labels", "gate", "forces, meV/Å", "energy, meV/atom", "stress, GPa"]
    return table(head, rows)


def _classes(facts: Facts) -> str:
    measured = _measured(facts)
    rows = [
        [name, str(facts["frames"][name]), *(f"{_of(row, name):.1f}" for row in measured)]
        for name in CLASSES
        if name in facts["frames"]
    ]
    return table(["class", "frames", *(_name(row) for row in measured)], rows)


def _properties(facts: Facts) -> str:
    columns = {"DFT": facts["properties"]["dft"]}
    for row in _measured(facts):
        columns[_name(row)] = facts["properties"][f"generation-{row['generation']}"]
    rows = []
    for key, title, form in PROPERTIES:
        cells = [f"{values[key]:{form}}" for values in columns.values()]
        if key == "vacancy_relaxed":
            cells = [
                cell if values["vacancy_converged"] else f"{cell} (not converged)"
                for cell, values in zip(cells, columns.values(), strict=True)
            ]
        rows.append([title, *cells])
    return table(["", *columns], rows)


def _audit(facts: Facts) -> str:
    lines = [
        f"* {_name(row)}: {row['reason'].rstrip('.')}."
        + (f" Detector: {row['audit']['sentence']}." if row["audit"] else "")
        for row in facts["generations"]
        if row["generation"] > 0
    ]
    return "\n".join(lines)


def _dft(facts: Facts) -> str:
    found, dft = facts["convergence"], facts["dft"]
    grid = "×".join(str(n) for n in dft["kpoints"])
    files = ", ".join(dft["pseudopotentials"].values())
    settings = (
        f"{files}, {dft['ecutwfc_Ry']:g} Ry, {grid} k-points, {dft['smearing']} smearing of {dft['degauss_Ry']:g} Ry. "
        f"What other settings change on a warm {found['frame']} (its own forces: RMS "
        f"{found['forces_rms_meV_A']:.0f} meV/Å):"
    )
    rows = [
        [name, f"{row['forces_rms_meV_A']:.1f}", f"{row['stress_max_GPa']:.2f}"]
        for name, row in found["changes"].items()
    ]
    return f"{settings}\n\n{table(['instead', 'forces, RMS, meV/Å', 'stress, largest, GPa'], rows)}"


def _cost(facts: Facts) -> str:
    spent = facts["cost"]
    rows = [[f"DFT, {spent['labels']} labels of the campaign", f"{spent['dft_cpu_s']:.0f}"]]
    rows += [[stage, f"{row['cpu_s']:.0f}"] for stage, row in spent["stages"].items() if row["cpu_s"] >= 0.5]
    rows.append([f"*DFT of the {sum(facts['frames'].values())} test frames*", f"*{spent['test_dft_cpu_s']:.0f}*"])
    rows.append(["*DFT of the properties*", f"*{facts['properties']['dft']['cpu_s']:.0f}*"])
    return table(["", "CPU seconds"], rows)


def draw(found: Sequence[Facts], path: Path) -> None:
    """Force RMSE by class of frames against the labels, a panel for each campaign."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(4.2 * len(found), 3.6), squeeze=False)
    for axes, facts in zip(panels[0], found, strict=True):
        measured = _measured(facts)
        labels = [row["labels"] for row in measured]
        for name in facts["frames"]:
            values = [_of(row, name) for row in measured]
            axes.plot(labels, values, color=COLOURS[name], marker="o", ms=4, label=name)
        axes.plot(labels, [_force(row) for row in measured], color="black", marker="s", ms=5, lw=2, label="all")
        axes.set(yscale="log", xlabel="DFT labels", ylabel="force RMSE (meV/Å)", title=TITLES[facts["name"]])
        axes.set_xticks(labels)
        axes.grid(alpha=0.25, which="both")
    panels[0][-1].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
