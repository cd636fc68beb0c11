"""Makes LAMMPS forms of a mace ``.model`` and evaluates each on one cell: ``python -m aldriver.export.make_mace``.

Runs in a process of its own (it unpickles a file this program has just written). Which forms there are and what their
numbers are compared with is ``program_forms.py``'s business.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from matscipy.neighbours import neighbour_list

from aldriver.core.frames import read_frames
from aldriver.core.records import dumps
from aldriver.core.units import matrix_to_voigt
from aldriver.export.mliap_cell import MLIAPCell
from aldriver.potentials.mace_library import mace_library

Numbers = dict[str, Any]
"""energy (eV), forces (eV/Å), stress (Voigt, eV/Å³)."""


def libtorch(model: Path, out: Path, atoms: Atoms, head: str) -> Numbers:
    """TorchScript module of ``pair_style mace``; its own numbers when torch runs it, periodic images as LAMMPS'."""
    from e3nn.util import jit
    from mace.calculators import LAMMPS_MACE

    network = torch.load(model, map_location="cpu", weights_only=False).double()
    jit.compile(LAMMPS_MACE(network, head=head)).save(str(out))
    module = torch.jit.load(str(out))
    cell = torch.tensor(np.asarray(atoms.cell))
    i, j, shift = neighbour_list("ijS", atoms, float(module.r_max))
    table = [int(z) for z in module.atomic_numbers]
    rows = torch.tensor([table.index(z) for z in atoms.numbers])
    data = {
        "positions": torch.tensor(atoms.positions, requires_grad=True),
        "node_attrs": torch.nn.functional.one_hot(rows, len(table)).double(),
        "edge_index": torch.tensor(np.stack([i, j]), dtype=torch.int64),
        "unit_shifts": torch.tensor(shift, dtype=torch.float64),
        "shifts": torch.tensor(shift, dtype=torch.float64) @ cell,
        "cell": cell,
        "batch": torch.zeros(len(atoms), dtype=torch.int64),
        "ptr": torch.tensor([0, len(atoms)]),
    }
    found = module(data, torch.ones(len(atoms), dtype=torch.float64), True)
    virial = found["virials"].reshape(3, 3).numpy()
    return {
        "energy": float(found["total_energy_local"]),
        "forces": found["forces"].numpy(),
        "stress": matrix_to_voigt(-virial / atoms.get_volume()),
    }


def mliap(model: Path, out: Path, atoms: Atoms, head: str) -> Numbers:
    """Python object of ``pair_style mliap unified``; its own numbers when a stand-in for LAMMPS asks for them."""
    from mace.calculators.lammps_mliap_mace import LAMMPS_MLIAP_MACE

    network = torch.load(model, map_location="cpu", weights_only=False).double()
    network.lammps_mliap = True
    torch.save(LAMMPS_MLIAP_MACE(network, head=head), out)
    unified = torch.load(out, map_location="cpu", weights_only=False)
    return MLIAPCell(atoms, 2.0 * unified.rcutfac, unified.element_types).evaluate(unified)


def symmetrix(model: Path, out: Path, atoms: Atoms, head: str) -> Numbers:
    """JSON of symmetrix; its numbers from symmetrix' own ASE calculator."""
    from symmetrix import Symmetrix

    command = [str(Path(sys.executable).with_name("symmetrix_extract_mace")), "-m", str(model), "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
    atoms.calc = Symmetrix(str(out), dtype="float64")
    return {
        "energy": float(atoms.get_potential_energy()),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }


MAKERS = {"libtorch": libtorch, "mliap": mliap, "symmetrix": symmetrix}


def main() -> int:
    """Make one form; the last line of the output is JSON, with ``error`` where it could not be made or evaluated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=MAKERS)
    for name in ("model", "out", "structure"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--head", default="Default")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        with mace_library(scripted=True):
            result = MAKERS[given.form](given.model, given.out, read_frames(given.structure)[0], given.head)
    except subprocess.CalledProcessError as error:
        result = {"error": (error.stderr.strip().splitlines() or ["no message"])[-1]}
    except Exception as error:  # whatever the other program says
        result = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    print("\n" + dumps(result, indent=None))
    return 1 if "error" in result else 0


if __name__ == "__main__":
    raise SystemExit(main())
