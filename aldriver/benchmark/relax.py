"""Relaxation of atomic positions in a fixed cell, with a step limit that never passes as converged.

Relaxation of the lattice constant is one-dimensional and lives in ``lattice.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from ase import Atoms
from ase.optimize import BFGS, FIRE, LBFGS

from aldriver.benchmark.measure import Cost
from aldriver.potentials.base import Potential

CURVATURE = 25.0
"""What L-BFGS takes the curvature of the energy to be before it has seen any, eV/Å²: ASE's 70 is that of a bond that is
stretched alone, while the atoms around a defect move together. See :func:`relax_positions` for what it saves."""
OPTIMIZERS = {"lbfgs": partial(LBFGS, alpha=CURVATURE), "bfgs": BFGS, "fire": FIRE}
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

    @property
    def shortfall(self) -> str:
        """Why it is not to be trusted; empty when it is."""
        return "" if self.converged else f"the relaxation {stopped(self.steps, self.fmax)}"


def stopped(steps: int, fmax: float) -> str:
    """How something that met its step limit ended, `fmax` in eV/Å: a relaxation, a band."""
    return f"stopped after {steps} steps with {fmax * 1e3:.0f} meV/Å left"


def relax_positions(
    potential: Potential,
    atoms: Atoms,
    *,
    fmax: float,
    max_steps: int = 200,
    optimizer: OptimizerName = "lbfgs",
) -> Relaxation:
    """Relax the positions in a fixed cell until no atomic force exceeds `fmax` (eV/Å); with no steps, evaluate it.

    L-BFGS is the default because it asks for the fewest force calls. Measured to 5 meV/Å (all end within 0.2 meV of
    each other), with the initial curvature of L-BFGS in eV/Å² in parentheses:

    ======================================= ==== ========== ========== ========== ========== ======
    force calls                             FIRE L-BFGS(70) L-BFGS(40) L-BFGS(25) L-BFGS(15) precon
    ======================================= ==== ========== ========== ========== ========== ======
    10 pairs, vacancy in bcc Fe, CHGNet      369        170          –         93         77      –
    10 pairs of V, vacancy in bcc Fe, EAM    366        151        111         93         76     89
    10 pairs of Al, vacancy in bcc Fe, EAM   319        137        111         91          –     97
    vacancy, rattled, in bcc W, EAM           52         16         12         10          9      –
    vacancy, rattled, in fcc Cu, EAM          47         22         17         14         11      –
    ======================================= ==== ========== ========== ========== ========== ======

    Below 15 stiff crystals take more again (W at 10: 13). ``precon`` is ASE's PreconLBFGS with an exponential
    preconditioner (A = 3): no fewer calls, and a linear system to solve in each.
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
