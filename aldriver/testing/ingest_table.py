"""Writes a table of what ``aldriver label ingest`` makes of the results under a folder.

Owns only the words of the table. Each folder named is taken in by itself, into a store that is thrown away.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from aldriver.label.ingest import Row, ingest


def table(data: Path, folders: Iterable[str]) -> str:
    """Markdown: of each folder below `data` a table of files, the steps accepted, and the reasons of the others."""
    parts = []
    for folder in folders:
        with tempfile.TemporaryDirectory() as store:
            found = ingest([data / folder], Path(store))
        rows = found.rows
        counts = Counter(r.fate for r in rows)
        parts.append(
            f"## {folder}\n\n{counts['accepted']} labels accepted into {len(found.datasets)} data sets, "
            f"{counts['refused']} refused, {counts['skipped']} files that are no results by themselves.\n\n"
            "| file | accepted | not accepted |\n|---|---|---|"
        )
        parts.append("\n".join(_lines(rows, data / folder)) + "\n")
    return "\n".join(parts)


def _lines(rows: Sequence[Row], folder: Path) -> list[str]:
    """One line a file; files that are no results are counted by their reason at the end."""
    files: dict[str, list[Row]] = {}
    for row in rows:
        files.setdefault(row.source.partition("#")[0], []).append(row)
    lines, skipped = [], Counter[str]()
    for name, own in files.items():
        if all(r.fate == "skipped" for r in own):
            skipped[own[0].reason] += 1
            continue
        good = [r for r in own if r.fate == "accepted"]
        reasons = Counter(_plain(r.reason) for r in own if r.fate == "refused")
        twins = sum(r.reason.startswith("the same label") for r in good)
        level = f" ({good[0].level.rpartition(' (')[0]})" if good else ""
        accepted = f"{len(good) or '–'}{level}" + (f"; {twins} known from a file above" if twins else "")
        reasons = Counter(_plain(r.reason) for r in own if r.fate == "refused")
        said = "; ".join(f"{n} × {text}" if len(own) > 1 else text for text, n in reasons.items())
        lines.append(f"| {Path(name).relative_to(folder)} | {accepted} | {said} |".replace("  ", " "))
    return lines + [f"| *{n} files* | | {reason} |" for reason, n in sorted(skipped.items())]


def _plain(reason: str) -> str:
    """A reason as one cell: no numbers of the energy's last change, which differ between the steps of a run."""
    return reason.partition(" (the energy still changed")[0].replace("|", "/").replace("\n", " ")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m aldriver.testing.ingest_table", description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds the folders of results")
    parser.add_argument("folders", nargs="*", default=["vasp_outputs", "qe_outputs", "fe_qe_vacancy"])
    parsed = parser.parse_args(arguments)
    sys.stdout.write(
        "# What `aldriver label ingest` makes of real results\n\n"
        "Written by `python -m aldriver.testing.ingest_table DATA` from a run over real outputs of VASP (fixtures of\n"
        "custodian and CHGNet), Quantum ESPRESSO (fixtures of aiida-quantumespresso) and a study of the vacancy in\n"
        "iron.\n\n" + table(parsed.data, parsed.folders)
    )


if __name__ == "__main__":
    main()
