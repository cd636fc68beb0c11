"""Makes LAMMPS forms of a SevenNet checkpoint and evaluates them: ``python -m aldriver.export.make_sevennet``.

Runs in the Python that has sevenn. Which forms there are and what their numbers are compared with is
``program_forms.py``'s business.
"""

from __future__ import annotations

import argparse
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

Numbers = dict[str, Any]
"""energy (eV), forces (eV/Å), stress (Voigt, eV/Å³); ``unseen`` where the file was made and nothing evaluated."""


def serial(model: Path, out: Path, atoms: Atoms) -> Numbers:
    """TorchScript module of ``pair_style e3gnn``, evaluated by torch as that pair style does."""
    from sevenn.scripts.deploy import deploy

    deploy(model, str(out))
    notes = {"chemical_symbols_to_index": "", "cutoff": ""}
    module = torch.jit.load(str(out), _extra_files=notes)
    known = notes["chemical_symbols_to_index"].decode().split()  # type: ignore[attr-defined]
    i, j, vectors = neighbour_list("ijD", atoms, float(notes["cutoff"]))
    edges = torch.tensor(vectors, dtype=torch.float32, requires_grad=True)
    data = {
        "x": torch.tensor([known.index(symbol) for symbol in atoms.get_chemical_symbols()]),
        "edge_index": torch.tensor(np.stack([i, j]), dtype=torch.int64),
        "edge_vec": edges,
        "num_atoms": torch.tensor([len(atoms)]),
        "nlocal": torch.tensor([len(atoms)]),
    }
    energy = module(data)["inferred_total_energy"].squeeze()
    pairs = torch.autograd.grad(energy, [edges])[0].double().numpy()
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, pairs)
    np.add.at(forces, j, -pairs)
    return {
        "energy": float(energy),
        "forces": forces,
        "stress": matrix_to_voigt(vectors.T @ pairs / atoms.get_volume()),
    }


def parallel(model: Path, out: Path, atoms: Atoms) -> Numbers:
    """TorchScript modules of ``pair_style e3gnn/parallel``; they need LAMMPS' communication between them."""
    from sevenn.scripts.deploy import deploy_parallel

    deploy_parallel(model, str(out))
    parts = sorted(out.glob("*.pt"))
    for part in parts:
        torch.jit.load(str(part))
    return {"unseen": f"its {len(parts)} modules load in torch; nothing was evaluated, they need LAMMPS between them"}


def mliap(model: Path, out: Path, atoms: Atoms) -> Numbers:
    """Python object of ``pair_style mliap unified``, evaluated through a stand-in for LAMMPS."""
    from sevenn.mliap import SevenNetMLIAPWrapper

    torch.save(SevenNetMLIAPWrapper(model_path=str(model)), out)
    unified = torch.load(out, map_location="cpu", weights_only=False)
    return MLIAPCell(atoms, 2.0 * unified.rcutfac, unified.element_types).evaluate(unified)


MAKERS = {"serial": serial, "parallel": parallel, "mliap": mliap}


def main() -> int:
    """Make one form; the last line of the output is JSON, with ``error`` where it could not be made or evaluated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=MAKERS)
    for name in ("model", "out", "structure"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        result = MAKERS[given.form](given.model, given.out, read_frames(given.structure)[0])
    except Exception as error:  # whatever the other program says
        result = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    print("\n" + dumps(result, indent=None))
    return 1 if "error" in result else 0


if __name__ == "__main__":
    raise SystemExit(main())
