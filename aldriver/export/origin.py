"""What the model card says of where a potential comes from: its data, its benchmark, licences and papers to cite."""

from __future__ import annotations

from importlib import metadata
from typing import Any

PACKAGES = {"chgnet": "chgnet", "mace": "mace-torch", "sevennet": "sevenn"}
PAPERS = {
    "chgnet": "B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023), doi:10.1038/s42256-023-00716-3",
    "mace": "I. Batatia et al., NeurIPS 2022, arXiv:2206.07697; and the paper of the foundation model",
    "sevennet": "Y. Park et al., J. Chem. Theory Comput. 20, 4857 (2024), doi:10.1021/acs.jctc.4c00190",
    "eam": "the reference in the head of the potential's file",
}
POD_PAPER = "N. C. Nguyen, A. Rohskopf, J. Comput. Phys. 480, 112030 (2023)"


def data_lines(training: dict[str, Any]) -> list[str]:
    """SHA-256 sums of the files it was trained and validated on."""
    sums: dict[str, str] = training.get("data_sha256") or {}
    return [f"- {name}: SHA-256 `{digest}`" for name, digest in sums.items()]


def benchmark_lines(training: dict[str, Any]) -> list[str]:
    """Its benchmark, beside the reference's."""
    rows: dict[str, dict[str, Any]] = training.get("benchmark") or {}
    if not rows:
        return []
    lines = ["", "## Benchmark", "", "| property | this potential | reference |", "|---|---|---|"]
    for name, row in rows.items():
        value, reference = ("–" if row[key] is None else f"{row[key]:.4g}" for key in ("value", "reference"))
        lines.append(f"| {name}, {row['unit']} | {value} | {reference} |")
    return lines


def rights_lines(family: str, surrogate: bool) -> list[str]:
    """Licences that apply, and what to cite."""
    lines = ["", "## Licence and citation", ""]
    package = PACKAGES.get(family)
    if package is not None:
        lines += [f"- Licence of {package}, as its package says: {_licence(package)}."]
        lines += ["- The weights start from a foundation model: its licence goes on to apply to them."]
    lines += ["- The labels it was trained on may have terms of their own.", "- LAMMPS is GPL-2.0."]
    if family in PAPERS:
        lines.append(f"- Cite {PAPERS[family]}.")
    if surrogate:
        lines.append(f"- For the surrogate, cite {POD_PAPER}.")
    return [*lines, "- Cite what aldriver is built on: docs/citations.md."]


def _licence(package: str) -> str:
    try:
        about = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return "not known here, the package lies in another Python"
    found = next((about[key] for key in ("License-Expression", "License") if key in about), "")
    named = [line.split(" :: ")[-1] for line in about.get_all("Classifier") or [] if line.startswith("License")]
    first = (found.strip().splitlines() or [""])[0]
    return first or (named[0] if named else "not named there")
