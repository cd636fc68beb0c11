"""Perturbed copies of a frame: rattled, strained, with thermal velocities. Running them is the walker's business."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from numpy.typing import ArrayLike

from aldriver.core.errors import InputError
from aldriver.explore.health import temperature


def rattle(atoms: Atoms, amplitude: float, *, seed: int = 0) -> Atoms:
    """Copy with each coordinate displaced by a normal deviate of standard deviation `amplitude`, Å.

    The mean displacement is removed, so that the crystal does not drift.
    """
    if amplitude < 0:
        raise InputError(f"rattle amplitude must not be negative (got {amplitude} Å)")
    moved = atoms.copy()
    shift = amplitude * np.random.default_rng(seed).normal(size=(len(atoms), 3))
    moved.positions += shift - np.mean(shift, axis=0)
    return moved


def strain(atoms: Atoms, strain: ArrayLike) -> Atoms:
    """Copy with a homogeneous strain; fractional coordinates are kept.

    Parameters
    ----------
    strain
        A number (the same along each axis), a Voigt vector of engineering strains (xx, yy, zz, yz, xz, xy), or a
        3×3 tensor ε; cell vectors become a(1 + ε).

    Raises
    ------
    InputError
        When the shape is none of these, or the strained cell would have no positive volume.
    """
    e = np.asarray(strain, dtype=float)
    if e.ndim == 0:
        e = e * np.eye(3)
    elif e.shape == (6,):
        xx, yy, zz, yz, xz, xy = e
        e = np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])
    if e.shape != (3, 3):
        raise InputError(f"a strain is a number, six Voigt components or a 3×3 tensor (got shape {e.shape})")
    deformation = np.eye(3) + e
    if not np.isfinite(deformation).all() or np.linalg.det(deformation) <= 0:
        raise InputError("the strained cell would have no positive volume; use smaller strains")
    strained = atoms.copy()
    strained.set_cell(np.asarray(atoms.cell) @ deformation, scale_atoms=True)
    return strained


def thermalise(atoms: Atoms, temperature_K: float, *, seed: int = 0) -> Atoms:
    """Copy with Maxwell–Boltzmann velocities at exactly `temperature_K` and zero total momentum."""
    hot = atoms.copy()
    masses = hot.get_masses()[:, None]
    momenta = np.random.default_rng(seed).normal(size=(len(hot), 3)) * np.sqrt(masses * units.kB * temperature_K)
    momenta -= masses * momenta.sum(axis=0) / masses.sum()
    hot.set_momenta(momenta)
    return rescale(hot, temperature_K)


def rescale(atoms: Atoms, temperature_K: float) -> Atoms:
    """Copy with momenta scaled to a temperature (3N−3 degrees of freedom); atoms at rest stay at rest."""
    scaled = atoms.copy()
    now = temperature(scaled)
    if now > 0:
        scaled.set_momenta(scaled.get_momenta() * np.sqrt(temperature_K / now))
    return scaled
