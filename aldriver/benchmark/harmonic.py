"""Harmonic crystals: force constants from displaced supercells, frequencies, and what they give at a temperature.

The algebra of force constants is phonopy's (A. Togo, J. Phys. Soc. Jpn. 92, 012001 (2023)). Which frequencies are
reported is ``phonon.py``'s business, what becomes of free energies ``qha.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from ase import Atoms
from ase.units import _hplanck, _k, kB
from numpy.typing import ArrayLike, NDArray

from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.cases import conventional_cell, times
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_thermal import Phonon, Repeats

if TYPE_CHECKING:
    from phonopy import Phonopy

THZ_K = 1e12 * _hplanck / _k
"""A frequency of 1 THz as a temperature, K."""
SUPERCELLS: dict[str, Repeats] = {"diamond": (2, 2, 2), "hcp": (6, 6, 2)}
PRIMITIVE: dict[str, Literal["I", "F"]] = {"bcc": "I", "fcc": "F", "diamond": "F"}
"""Centring of the conventional cell; others are primitive."""


@dataclass(frozen=True, kw_only=True)
class Harmonic:
    """A crystal with force constants, on which the acoustic sum rule and the exchange of both atoms are imposed."""

    phonopy: Phonopy

    def frequencies(self, q: ArrayLike) -> NDArray[np.float64]:
        """Frequencies (n, modes), ascending, THz, imaginary ones negative.

        Parameters
        ----------
        q
            (n, 3) in units of the reciprocal vectors of the conventional cell (2π/a in a cubic crystal).
        """
        points = np.asarray(q, dtype=float) @ np.asarray(self.phonopy.primitive_matrix)
        found: NDArray[np.float64] = self.phonopy.run_qpoints(points).frequencies
        return found

    def mesh(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Frequencies (q, modes), THz, and weights (q,) that add up to one, of an n×n×n mesh of the primitive cell.

        Γ is left out: its acoustic modes have no frequency.
        """
        found = self.phonopy.run_mesh([n] * 3, is_gamma_center=True)
        off = np.abs(found.qpoints).max(axis=1) > 1e-9
        return found.frequencies[off], found.weights[off] / found.weights[off].sum()


def harmonic(bench: Bench, case: Case, wanted: Sequence[tuple[float, Phonon]]) -> list[Harmonic]:
    """Force constants of a crystal at each of some lattice constants (Å), with the settings beside it.

    One atom after the other is moved in as few directions as the symmetry asks for, and back where that is another
    geometry (K. Parlinski, Z. Q. Li, Y. Kawazoe, Phys. Rev. Lett. 78, 4063 (1997)).
    """
    perfect = {(a, n): _crystal(case, a, n) for a, n in {(a, repeats(case, options)) for a, options in wanted}}
    crystals = [_displaced(perfect[a, repeats(case, options)], options.displacement_A) for a, options in wanted]
    jobs = [
        Job(atoms=_to_ase(cell), slot=f"{case.name} {times(repeats(case, options))} phonon a={a:.4f} {k}")
        for (a, options), crystal in zip(wanted, crystals, strict=True)
        for k, cell in enumerate(crystal.supercells_with_displacements or [])
    ]
    forces = iter(bench.forces(jobs))
    found = []
    for crystal in crystals:
        crystal.forces = [next(forces) for _ in crystal.supercells_with_displacements or []]
        crystal.produce_force_constants(show_drift=False, calculate_full_force_constants=False)
        crystal.symmetrize_force_constants(show_drift=False)
        found.append(Harmonic(phonopy=crystal))
    return found


def repeats(case: Case, options: Phonon) -> Repeats:
    """Repeats of the conventional cell in which the atoms are displaced."""
    return options.supercell or SUPERCELLS.get(case.lattice, (4, 4, 4))


def free_energy(frequencies: ArrayLike, weights: ArrayLike, temperature: float) -> float:
    """Free energy of the vibrations of a primitive cell, eV: Σ w [hν/2 + kT ln(1 − exp(−hν/kT))]."""
    x = np.asarray(frequencies) * THZ_K
    thermal = temperature * np.log(-np.expm1(-x / temperature)) if temperature > 0 else np.zeros_like(x)
    return float(np.asarray(weights) @ (x / 2 + thermal).sum(axis=1) * kB)


def heat_capacity(frequencies: ArrayLike, weights: ArrayLike, temperature: float) -> float:
    """Heat capacity of the vibrations of a primitive cell at constant volume, in units of k: 3 per atom when hot."""
    x = np.asarray(frequencies) * THZ_K / temperature
    return float(np.asarray(weights) @ ((x / 2 / np.sinh(x / 2)) ** 2).sum(axis=1))


def _displaced(perfect: Phonopy, distance: float) -> Phonopy:
    crystal = copy(perfect)  # shares the symmetry, whose search takes longer than all else here
    crystal.generate_displacements(distance=distance)
    return crystal


def _crystal(case: Case, a: float, supercell: Repeats) -> Phonopy:
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = conventional_cell(case, a)
    return Phonopy(
        PhonopyAtoms(
            numbers=cell.numbers,
            cell=np.asarray(cell.cell),
            scaled_positions=cell.get_scaled_positions(),
            masses=cell.get_masses(),
        ),
        supercell_matrix=supercell,
        primitive_matrix=PRIMITIVE.get(case.lattice, "P"),
    )


def _to_ase(cell: object) -> Atoms:
    return Atoms(numbers=cell.numbers, scaled_positions=cell.scaled_positions, cell=cell.cell, pbc=True)  # type: ignore[attr-defined]
