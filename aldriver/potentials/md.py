"""How a network is run in MD: in single precision where that is good enough, natively where that is as good.

Owns the comparisons that decide it, made on the walker's own frame. What else can run a network is the family's
business (``NetworkPotential.native_stepper``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.potentials.base import Prediction, Stepper

if TYPE_CHECKING:
    from aldriver.potentials.network import NetworkPotential

FORCES, STRESS, RELATIVE = 1e-3, 6e-5, 1e-4
"""Allowed differences: eV/Å, eV/Å³ (0.01 GPa), and this share of the largest value."""
PIECE = (32, 256)
"""Least and most atoms of the piece on which precisions are compared."""

log = logging.getLogger(__name__)


def md_stepper(potential: NetworkPotential, atoms: Atoms, precision: str) -> Stepper:
    """What evaluates the steps of a walker that starts at `atoms`.

    ``float64`` is the network in double precision. ``float32`` is the network in single precision if forces and stress
    there agree with double precision, and native code of the family if that agrees too; else, with a warning, double
    precision, or torch.

    Raises
    ------
    InputError
        When the precision has another name, or the network does not know an element.
    """
    potential.check_elements([atoms])
    if precision not in ("float32", "float64"):
        raise InputError(f"precision '{precision}' is not known; there is float32 and float64")
    if precision == "float64":
        return in_precision(potential, precision).stepper(atoms)
    single = in_precision(potential, precision)
    worse = single_precision_fault(single, atoms)
    if worse:
        log.warning("%s runs in float64: %s", potential.name, worse)
        return in_precision(potential, "float64").stepper(atoms)
    return single.native_stepper(atoms) or single.stepper(atoms)


def in_precision(potential: NetworkPotential, precision: str) -> NetworkPotential:
    """The same network in that precision; itself where it has it."""
    return potential if potential.precision == precision else potential.astype(precision)


def single_precision_fault(single: NetworkPotential, atoms: Atoms) -> str:
    """What speaks against single precision on a piece of this frame; empty when nothing does."""
    part = piece(atoms)
    double = single.astype("float64")
    fault = disagreement(single.evaluate([part])[0], double.evaluate([part])[0])
    return f"in float32 {fault}" if fault else ""


def disagreement(a: Prediction, b: Prediction) -> str:
    """Where forces or stress of two predictions differ by more than is allowed; empty when they agree."""
    worst, most = float(np.abs(a.forces - b.forces).max(initial=0)), float(np.abs(b.forces).max(initial=0))
    if not worst <= FORCES + RELATIVE * most:
        return f"forces are off by {1e3 * worst:.2g} meV/Å (of {1e3 * most:.3g})"
    if a.stress is None or b.stress is None:
        return ""
    worst, most = float(np.abs(a.stress - b.stress).max()), float(np.abs(b.stress).max())
    if not worst <= STRESS + RELATIVE * most:
        return f"the stress is off by {worst:.2g} eV/Å³ (of {most:.2g})"
    return ""


def piece(atoms: Atoms) -> Atoms:
    """Half of the atoms, the ones around the first, as a cluster: double precision takes twice the memory.

    Small cells come whole.
    """
    n = min(len(atoms) // 2, PIECE[1])
    if n < PIECE[0]:
        return atoms
    vectors = atoms.get_distances(0, range(len(atoms)), mic=True, vector=True)
    near = np.sort(np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")[:n])
    cluster = Atoms(atoms.numbers[near], positions=vectors[near])
    cluster.center(vacuum=5.0)
    return cluster
