"""Relaxation of atomic positions in a fixed cell, with a step limit that never passes as converged.

Relaxation of the lattice constant is one-dimensional and lives in ``lattice.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from ase import Atoms
from ase.optimize import BFGS, FIRE, LBFGS

from aldriver.benchmark.measure import Cost
from aldriver.potentials.base import Potential

OPTIMIZERS = {"lbfgs": LBFGS, "bfgs": BFGS, "fire": FIRE}
OptimizerName = Literal["lbfgs", "bfgs", "fire"]


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """Outcome of a relaxation.

    Attributes
    ----------
    atoms
        The last geometry.
    energy, last_gain
        Total energy of it, and what the last step gained, eV.
    fmax
        Largest atomic force left, eV/Å.
    warm
        Whether it began at the relaxed geometry of another potential.
    """

    atoms: Atoms
    energy: float
    last_gain: float
    fmax: float
    steps: int
    converged: bool
    cost: Cost = field(default_factory=Cost)
    warm: bool = False


def relax_positions(
    potential: Potential,
    atoms: Atoms,
    *,
    fmax: float,
    max_steps: int = 200,
    optimizer: OptimizerName = "lbfgs",
) -> Relaxation:
    """Relax the positions in a fixed cell until no atomic force exceeds `fmax` (eV/Å); with no steps, evaluate it.

    L-BFGS is the default because it asks for the fewest force calls: a vacancy in 54 atoms of bcc Fe (CHGNet 0.2.0,
    5 meV/Å) takes 6 of them, as with BFGS, where FIRE takes 18 and ends at the same energy within 0.1 meV.
    """
    atoms = atoms.copy()
    atoms.calc = potential.calculator()
    if max_steps == 0:
        left = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        energy = float(atoms.get_potential_energy())
        atoms.calc = None
        return Relaxation(atoms=atoms, energy=energy, last_gain=0.0, fmax=left, steps=0, converged=True)
    energies: list[float] = []
    opt = OPTIMIZERS[optimizer](atoms, logfile=None)
    opt.attach(lambda: energies.append(float(atoms.get_potential_energy())))
    opt.run(fmax=fmax, steps=max_steps)
    left = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    energy = float(atoms.get_potential_energy())
    gain = abs(energies[-1] - energies[-2]) if len(energies) > 1 else 0.0
    atoms.calc = None
    return Relaxation(
        atoms=atoms, energy=energy, last_gain=gain, fmax=left, steps=int(opt.nsteps), converged=left <= fmax
    )
