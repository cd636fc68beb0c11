"""Compares the first step of a LAMMPS run with what the exported potential gives: python check/compare.py [RUN_FOLDER].

Needs nothing but Python. A copy of it lies in the folder of each export; the numbers are in expected.json beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def thermo(log: Path) -> dict[str, float]:
    """The first line of thermo output."""
    lines = log.read_text(errors="replace").splitlines()
    head = next((k for k, line in enumerate(lines) if line.split()[:1] == ["Step"]), None)
    if head is None or head + 1 >= len(lines):
        sys.exit(f"{log}: LAMMPS wrote no thermo line")
    return dict(zip(lines[head].split(), map(float, lines[head + 1].split()), strict=True))


def forces(dump: Path, count: int) -> list[list[float]]:
    """Forces of the first dumped frame, in the order of the atoms' ids."""
    lines = dump.read_text().splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("ITEM: ATOMS"))
    names = lines[head].split()[2:]
    rows = [dict(zip(names, line.split(), strict=True)) for line in lines[head + 1 : head + 1 + count]]
    rows.sort(key=lambda row: int(row["id"]))
    return [[float(row[key]) for key in ("fx", "fy", "fz")] for row in rows]


def main(folder: Path) -> int:
    """Print each difference; 1 when one is too large."""
    expected = json.loads((Path(__file__).parent / "expected.json").read_text())
    first = thermo(folder / "log.lammps")
    found = forces(folder / "dump.lammpstrj", expected["atoms"])
    pressure = sum(first[f"c_virial[{k}]"] for k in (1, 2, 3)) / 3.0
    rows = zip(found, expected["forces_eV_A"], strict=True)
    off = {
        "energy_eV": abs(first["PotEng"] - expected["energy_eV"]),
        "forces_eV_A": max(abs(a - b) for one, other in rows for a, b in zip(one, other, strict=True)),
        "pressure_bar": abs(pressure - expected["pressure_bar"]),
    }
    good = True
    for key, value in off.items():
        fine = value <= expected["tolerance"][key]
        good = good and fine
        print(f"{key}: differs by {value:.3g}, allowed {expected['tolerance'][key]:.3g}: {'good' if fine else 'WRONG'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
