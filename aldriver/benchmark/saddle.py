"""From the highest image of a rough band to the saddle point: the dimer method.

For paths on which a band finds no rest: where a long flat way leads to a narrow pass, one image at most lies on it, and
its tangent jumps with its neighbours. The dimer asks nothing of neighbours. Which pass it found is for the property
module to check, by going down on both sides. The path is ``band.py``'s.

Protocol: G. Henkelman, H. Jónsson, J. Chem. Phys. 111, 7010 (1999), as in ASE, from the highest image along the band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.mep import DimerControl, MinModeAtoms, MinModeTranslate
from numpy.typing import NDArray

from aldriver.benchmark.band import Band
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.store import Kept
from aldriver.core.frames import frame_hash
from aldriver.core.records import jsonable

VERSION = 1
ROTATIONS = 3  # at most, in a step
LONGEST_STEP = 0.05  # Å
TRIAL = 0.01  # Å, to see the curvature along a step

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Saddle:
    """A saddle point.

    Attributes
    ----------
    atoms
        Where it is.
    mode
        (N, 3), of length one: the way down, towards the end of the band.
    energy, last_change
        Total energy, and what the last step changed, eV.
    fmax
        Largest force left, eV/Å.
    curvature
        Along `mode`, eV/Å²; negative at a saddle point.
    """

    atoms: Atoms
    mode: Array
    energy: float
    last_change: float
    fmax: float
    curvature: float
    steps: int
    converged: bool

    def beside(self, step: float) -> Atoms:
        """A place `step` Å down the way: positive towards the end of the band."""
        atoms = self.atoms.copy()
        atoms.set_positions(atoms.positions + step * self.mode)
        return atoms


def saddle(bench: Bench, band: Band, slot: str, *, fmax: float, max_steps: int) -> Saddle:
    """The saddle point next to the highest image of a band; kept, shared and warm-started like a relaxation.

    Parameters
    ----------
    fmax, max_steps
        Largest force to reach, eV/Å, and the steps allowed; a step takes some 8 force calls.

    Raises
    ------
    AldriverError
        When the potential gives numbers that are not finite.
    """
    first, cell = band.images[0], np.asarray(band.images[0].cell)
    top = int(np.argmax(band.energies[1:-1])) + 1
    along = band.images[top + 1].positions - band.images[top - 1].positions
    free = np.ones(len(first), dtype=bool)
    for constraint in first.constraints:
        free[constraint.get_indices()] = False
    along[~free] = 0.0
    along /= np.linalg.norm(along)
    facts = {"energy": 0.0, "last_change": 0.0, "fmax": 0.0, "curvature": -1.0, "steps": 0, "converged": True}
    start = np.concatenate([band.images[top].positions - first.positions, along])
    begin = Kept(facts=facts, displacement=start @ np.linalg.inv(cell))
    what = {
        "saddle": VERSION,
        "structure": frame_hash(band.images[top]),
        "along": along.round(6).tolist(),
        "constraints": [jsonable(c.todict()) for c in first.constraints],
        "fmax": fmax,
        "max_steps": max_steps,
    }

    def make(at: Kept) -> Kept:
        moved, mode = np.split(at.displacement @ cell, 2)
        atoms = first.copy()
        atoms.set_positions(first.positions + moved)
        found = _climb(bench, atoms, mode, free, fmax, max_steps)
        end = np.concatenate([found.atoms.positions - first.positions, found.mode])
        return Kept(facts={name: getattr(found, name) for name in facts}, displacement=end @ np.linalg.inv(cell))

    kept = bench.once(what, slot, first.numbers.tolist(), begin, make)
    moved, mode = np.split(kept.displacement @ cell, 2)
    atoms = first.copy()
    atoms.set_positions(first.positions + moved)
    forwards = 1.0 if float((mode * along).sum()) >= 0 else -1.0
    return Saddle(atoms=atoms, mode=forwards * mode, **{name: kept.facts[name] for name in facts})


def _climb(bench: Bench, atoms: Atoms, mode: Array, free: NDArray[np.bool_], fmax: float, max_steps: int) -> Saddle:
    atoms.calc = bench.potential.calculator()
    control = DimerControl(
        initial_eigenmode_method="displacement", displacement_method="vector", logfile=None, eigenmode_logfile=None,
        mask=free.tolist(), max_num_rot=ROTATIONS, maximum_translation=LONGEST_STEP, trial_trans_step=TRIAL,
    )  # fmt: skip
    dimer = MinModeAtoms(atoms, control)
    dimer.displace(displacement_vector=np.zeros(mode.shape), mask=free.tolist())
    dimer.eigenmodes = [mode / np.linalg.norm(mode)]
    energies: list[float] = []
    walk = MinModeTranslate(dimer, logfile=None)
    for _ in walk.irun(fmax=fmax, steps=max_steps):
        energies.append(float(atoms.get_potential_energy()))
    left = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    curvature = float(dimer.get_curvature())
    atoms.calc = None
    return Saddle(
        atoms=atoms,
        mode=np.asarray(dimer.get_eigenmode()),
        energy=energies[-1],
        last_change=abs(energies[-1] - energies[-2]) if len(energies) > 1 else 0.0,
        fmax=left,
        curvature=curvature,
        steps=int(walk.nsteps),
        converged=left <= fmax and curvature < 0,
    )
