"""Units and tensor orders; everything inside is eV, Å, eV/Å and eV/Å³ with ASE's stress sign (tension positive).

Conversion happens at the edge; engines convert with the helpers here.
"""

from __future__ import annotations

import numpy as np
from ase import units
from numpy.typing import ArrayLike, NDArray

EV_A3_TO_GPA = 1.0 / units.GPa
"""1 eV/Å³ in GPa (160.21766208)."""
EV_A3_TO_BAR = EV_A3_TO_GPA * 1.0e4
"""1 eV/Å³ in bar."""
A_FS_TO_ASE = 1.0 / units.fs
"""1 Å/fs in ASE velocity units."""


def voigt_to_matrix(stress: ArrayLike) -> NDArray[np.float64]:
    """3×3 tensor from ASE Voigt order (xx, yy, zz, yz, xz, xy)."""
    xx, yy, zz, yz, xz, xy = np.asarray(stress, dtype=float)
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def matrix_to_voigt(stress: ArrayLike) -> NDArray[np.float64]:
    """ASE Voigt order (xx, yy, zz, yz, xz, xy) from a 3×3 tensor, symmetrised."""
    s = np.asarray(stress, dtype=float)
    s = 0.5 * (s + s.T)
    return np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])


def lammps_virial(stress: ArrayLike, volume: float) -> list[float]:
    """Virial for ``fix external``: W = −V·σ in eV, order xx, yy, zz, xy, xz, yz.

    Parameters
    ----------
    stress
        3×3, eV/Å³, ASE sign.
    volume
        Å³.
    """
    w = -volume * np.asarray(stress, dtype=float)
    return [w[0, 0], w[1, 1], w[2, 2], w[0, 1], w[0, 2], w[1, 2]]


def kbar_to_ase(stress_kbar: ArrayLike) -> NDArray[np.float64]:
    """VASP/QE-style stress in kbar (compression positive) to eV/Å³ with ASE's sign."""
    return -0.1 * np.asarray(stress_kbar, dtype=float) * units.GPa
