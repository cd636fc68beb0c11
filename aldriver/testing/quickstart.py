"""What the quickstart promises, checked on its campaign: ``python -m aldriver.testing.quickstart DIR``.

Owns the promises (they are the README's); running the campaign is ``make quickstart``'s.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aldriver.core.records import read_json

MAX_LABELS = 60
MAX_FORCE_RMSE = 40.0
"""meV/Å, on the test set made by the reference's own MD."""
MAX_BULK_MODULUS = 0.03
"""Relative deviation from the reference, same protocol."""
MAX_VACANCY = 0.05
"""eV, deviation of the vacancy formation energy from the reference, same protocol and cell."""


@dataclass(frozen=True)
class Promise:
    """One promise: what was found, what was promised, and whether it holds."""

    name: str
    found: str
    promised: str
    kept: bool


def check(campaign: Path) -> list[Promise]:
    """Promises of the quickstart against what its campaign published."""
    final = max(g for g in range(100) if (_stage(campaign, g) / "gate" / "decision.json").is_file())
    decisions = [read_json(_stage(campaign, g) / "gate" / "decision.json") for g in range(final + 1)]
    best = max(g for g, d in enumerate(decisions) if d["decision"] == "promote")
    reference = _values(read_json(_stage(campaign, 0) / "reference" / "records.json"))
    values = _values(read_json(_stage(campaign, best) / "benchmark" / "records.json"))
    error = read_json(_stage(campaign, best) / "benchmark" / "evaluation.json")["test"]["forces_rmse_meV_A"]
    labels = sum(1 for d in (campaign / "labels").iterdir() if (d / "label.json").is_file())
    promises = [
        Promise("labels", str(labels), f"≤ {MAX_LABELS}", labels <= MAX_LABELS),
        Promise("force RMSE", f"{error:.1f} meV/Å", f"≤ {MAX_FORCE_RMSE:g} meV/Å", error <= MAX_FORCE_RMSE),
    ]
    for name in ("bulk_modulus", "bulk_modulus_eos"):
        off = abs(values[name] / reference[name] - 1.0)
        found = f"{values[name]:.1f} GPa (reference {reference[name]:.1f})"
        promises.append(Promise(name, found, f"within {MAX_BULK_MODULUS:.0%}", off <= MAX_BULK_MODULUS))
    name = "vacancy_formation_energy"
    found = f"{values[name]:.3f} eV (reference {reference[name]:.3f})"
    promises.append(
        Promise(name, found, f"within {MAX_VACANCY} eV", abs(values[name] - reference[name]) <= MAX_VACANCY)
    )
    for d in decisions[1:]:
        kept = d["decision"] == "promote" or bool(d["reason"])
        promises.append(Promise(f"generation {d['generation']}", d["decision"], "better, or held with a reason", kept))
    return promises


def _stage(campaign: Path, generation: int) -> Path:
    return campaign / f"generation-{generation:03d}"


def _values(records: list[dict[str, Any]]) -> dict[str, float]:
    return {r["property"]: r["value"] for r in records if r["value"] is not None and r["converged"]}


def main() -> int:
    """Print the promises; the exit status is 1 when one is not kept."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("campaign", type=Path)
    promises = check(parser.parse_args().campaign)
    table = Table("promise", "found", "promised", "kept")
    for p in promises:
        table.add_row(p.name, p.found, p.promised, "yes" if p.kept else "NO")
    Console().print(table)
    return 0 if all(p.kept for p in promises) else 1


if __name__ == "__main__":
    raise SystemExit(main())
