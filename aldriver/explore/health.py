"""Health of a walker: limits outside which it has left physics, and the reason codes it ends with.

Deciding what to do with a sick walker is ``walker.py``; whether a frame is *novel* is the detector's question.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.data import chemical_symbols, covalent_radii

from aldriver.potentials.base import Prediction

ReasonCode = Literal[
    "completed", "hot", "too_close", "not_finite", "energy_jump", "lost_atoms", "force", "guard", "error"
]


@dataclass(frozen=True)
class Reason:
    """Why a walker ended: a code for programs, a sentence for people."""

    code: ReasonCode
    message: str


@dataclass(frozen=True, kw_only=True)
class HealthLimits:
    """Limits of a healthy frame.

    Attributes
    ----------
    max_temperature_K
        Instantaneous kinetic temperature.
    min_distance
        Shortest distance between two atoms, as a fraction of the sum of their covalent radii (Cordero et al., Dalton
        Trans. 2008, 2832, as in ``ase.data``).
    max_energy_jump_eV_atom
        Change of the potential energy between two samples, per atom.
    max_force_eV_A
        Largest force on an atom.
    """

    max_temperature_K: float = 10000.0
    min_distance: float = 0.6
    max_energy_jump_eV_atom: float = 1.0
    max_force_eV_A: float = 100.0


def temperature(atoms: Atoms) -> float:
    """Kinetic temperature, K, of 3N−3 degrees of freedom (the centre of mass is at rest; 3 for one atom)."""
    dof = max(3 * len(atoms) - 3, 3)
    return float(2.0 * atoms.get_kinetic_energy() / (dof * units.kB))


def closest_pair(atoms: Atoms, fraction: float) -> tuple[float, int, int, float] | None:
    """The pair closest relative to its covalent radii, if it is closer than `fraction` of their sum.

    Returns
    -------
    tuple or None
        Ratio d/(r_i + r_j), atom i, atom j, distance in Å (periodic images count, also an atom's own).
    """
    from matscipy.neighbours import neighbour_list

    radii = covalent_radii[atoms.numbers]
    cutoff = max(2.0 * fraction * float(radii.max()), 1.0)  # a tiny cutoff would make matscipy's grid overflow
    i, j, d = neighbour_list("ijd", atoms, cutoff)
    if len(d) == 0:
        return None
    ratio = d / (radii[i] + radii[j])
    k = int(np.argmin(ratio))
    return (float(ratio[k]), int(i[k]), int(j[k]), float(d[k])) if ratio[k] < fraction else None


def check(
    atoms: Atoms,
    prediction: Prediction,
    limits: HealthLimits,
    *,
    previous_energy: float | None = None,
    n_atoms: int | None = None,
) -> Reason | None:
    """Why this frame has left physics, or None while it is healthy.

    Parameters
    ----------
    previous_energy
        Potential energy of the sample before, eV.
    n_atoms
        How many atoms the walker started with.
    """
    if n_atoms is not None and len(atoms) != n_atoms:
        return Reason("lost_atoms", f"{n_atoms - len(atoms)} of {n_atoms} atoms are lost")
    if not is_finite(atoms, prediction):
        return Reason("not_finite", "positions, energy, forces or stress are not finite numbers")
    pair = closest_pair(atoms, limits.min_distance)
    if pair is not None:
        ratio, i, j, d = pair
        names = f"{chemical_symbols[atoms.numbers[i]]}{i} and {chemical_symbols[atoms.numbers[j]]}{j}"
        return Reason(
            "too_close",
            f"atoms {names} are {d:.2f} Å apart: {ratio:.2f} of their covalent radii (limit {limits.min_distance:g})",
        )
    kelvin = temperature(atoms)
    if kelvin > limits.max_temperature_K:
        return Reason("hot", f"temperature {kelvin:.0f} K is above the limit of {limits.max_temperature_K:.0f} K")
    force = float(np.linalg.norm(prediction.forces, axis=1).max())
    if force > limits.max_force_eV_A:
        return Reason("force", f"a force of {force:.1f} eV/Å is above the limit of {limits.max_force_eV_A:g} eV/Å")
    if previous_energy is not None:
        jump = abs(prediction.energy - previous_energy) / len(atoms)
        if jump > limits.max_energy_jump_eV_atom:
            return Reason(
                "energy_jump",
                f"the energy jumped by {jump:.2f} eV/atom between two samples "
                f"(limit {limits.max_energy_jump_eV_atom:g} eV/atom)",
            )
    return None


def is_finite(atoms: Atoms, prediction: Prediction) -> bool:
    """Whether the frame (with a cell of non-zero volume) and all that was predicted of it are finite."""
    arrays = [atoms.positions, np.asarray(atoms.cell), atoms.get_momenta(), prediction.forces]
    if prediction.stress is not None:
        arrays.append(prediction.stress)
    return (
        math.isfinite(prediction.energy)
        and all(bool(np.isfinite(a).all()) for a in arrays)
        and abs(np.linalg.det(np.asarray(atoms.cell))) > 1e-6
    )
