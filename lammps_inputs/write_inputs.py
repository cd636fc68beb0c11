"""Writes the templates of this folder (run it after changing what they are made from)."""

from __future__ import annotations

from pathlib import Path

from aldriver.explore.commands import TEMPLATE
from aldriver.export.inputs import Ensemble, lammps_input

HERE = Path(__file__).resolve().parent
ENSEMBLES: dict[Ensemble, str] = {
    "nve": "Constant energy (NVE)",
    "nvt": "Constant temperature (NVT, Nosé–Hoover chain)",
    "langevin": "Constant temperature (NVT, Langevin)",
    "npt": "Constant temperature and pressure (NPT, Martyna–Tobias–Klein)",
    "deform": "Tension along z at constant lateral pressure",
}


def templates() -> dict[str, str]:
    """File name: text."""
    out = {
        f"in.{name}": lammps_input(
            title=f"{what}, classical potential",
            run=f"lmp -in in.{name} -var data structure.data -var potential Fe_mm.eam.fs -var T 600",
            elements=["Fe"],
            pair_style="eam/fs",
            potential_file="Fe_mm.eam.fs",
            ensemble=name,
        )
        for name, what in ENSEMBLES.items()
    }
    out["in.external"] = lammps_input(
        title="Any potential aldriver loads, through fix external",
        run="python run_fix_external.py STRUCTURE --potential chgnet:0.3.0 --temperature 600",
        elements=["Fe"],
    )
    out["in.walker"] = TEMPLATE
    return out


if __name__ == "__main__":
    for name, text in templates().items():
        (HERE / name).write_text(text)
