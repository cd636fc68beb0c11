"""Relaxation of a cell together with its positions, for protocols that let a defect change its cell.

Relaxation at fixed cell is ``bench.py``'s and ``relax.py``'s, the lattice constant of a crystal ``lattice.py``'s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.filters import UnitCellFilter
from ase.optimize import LBFGS

from aldriver.benchmark.bench import Bench, cost_of
from aldriver.benchmark.relax import Relaxation
from aldriver.benchmark.store import Kept
from aldriver.core.frames import frame_hash

VERSION = 1


def relax_cell(bench: Bench, start: Atoms, slot: str, *, fmax: float, max_steps: int) -> Relaxation:
    """Relax positions and cell at zero stress; kept and warm-started like a relaxation at fixed cell.

    Parameters
    ----------
    fmax
        Largest force, and largest derivative of the energy by the cell's deformation per atom, eV/Å.

    Raises
    ------
    AldriverError
        When the potential gives numbers that are not finite.
    """
    facts = {"energy": 0.0, "last_gain": 0.0, "fmax": 0.0, "steps": 0, "converged": True}
    begin = Kept(facts=facts | {"cell": np.asarray(start.cell).tolist()}, displacement=np.zeros((len(start), 3)))
    what = {"free_cell": VERSION, "structure": frame_hash(start), "fmax": fmax, "max_steps": max_steps}

    def make(at: Kept) -> Kept:
        atoms = _placed(start, at)
        atoms.calc = bench.potential.calculator()
        energies: list[float] = []
        opt = LBFGS(UnitCellFilter(atoms), logfile=None)  # type: ignore[arg-type]
        opt.attach(lambda: energies.append(float(atoms.get_potential_energy())))
        opt.run(fmax=fmax, steps=max_steps)
        left = float(np.linalg.norm(UnitCellFilter(atoms).get_forces(), axis=1).max())
        made: dict[str, Any] = {
            "energy": energies[-1],
            "last_gain": abs(energies[-1] - energies[-2]) if len(energies) > 1 else 0.0,
            "fmax": left,
            "steps": int(opt.nsteps),
            "converged": left <= fmax,
            "cell": np.asarray(atoms.cell).tolist(),
        }
        return Kept(facts=made, displacement=_scaled(atoms) - _scaled(start))

    kept = bench.once(what, slot, start.numbers.tolist(), begin, make)
    cost = cost_of(kept)
    return Relaxation(atoms=_placed(start, kept), cost=cost, **{name: kept.facts[name] for name in facts})


def _scaled(atoms: Atoms) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(atoms.positions @ np.linalg.inv(np.asarray(atoms.cell)))


def _placed(start: Atoms, at: Kept) -> Atoms:
    """The atoms in the cell of `at`, moved as it says."""
    atoms = start.copy()
    cell = np.array(at.facts["cell"])
    atoms.set_cell(cell)
    atoms.positions = (_scaled(start) + at.displacement) @ cell
    return atoms
