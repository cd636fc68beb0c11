"""A fixed probe of general knowledge: the same cells for every potential, and how far their energies have drifted.

Which drift is too much is the caller's decision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from aldriver.potentials.base import Potential
from aldriver.potentials.general import distort, evaluate_each

PROBE_ELEMENTS = (
    *("Li", "Na", "K", "Mg", "Ca", "Al", "Si", "Ge", "Ti", "V", "Cr", "Fe"),
    *("Co", "Ni", "Cu", "Zn", "Zr", "Nb", "Mo", "Ag", "W", "Pt", "Au", "Pb"),
)
"""In the crystal and at the lattice constant of ase's reference states (room temperature or below)."""
PROBE_COMPOUNDS = {
    "MgO": ("rocksalt", 4.212),
    "NaCl": ("rocksalt", 5.640),
    "TiC": ("rocksalt", 4.328),
    "GaAs": ("zincblende", 5.653),
    "CaF2": ("fluorite", 5.463),
    "NiAl": ("cesiumchloride", 2.887),
}
"""Structure and lattice constant (Å), as tabulated in any handbook."""
PROBE_RATTLES_A = (0.03, 0.10)


def probe_cells(exclude: Collection[str] = (), *, seed: int = 0) -> list[Atoms]:
    """The fixed general cells: 24 elements and 6 compounds near their experimental structure, two cells of each.

    The same for every potential. Every cell holds 2 to 4 atoms and is strained by up to ±4 % and rattled by 0.03 or
    0.10 Å; ``info['group']`` is the formula.

    Parameters
    ----------
    exclude
        Elements whose energies are meant to change; cells with any of them are left out.
    """
    frames = []
    ideal: dict[str, Atoms] = {e: bulk(e) for e in PROBE_ELEMENTS}
    ideal |= {name: bulk(name, structure, a=a) for name, (structure, a) in PROBE_COMPOUNDS.items()}
    for number, (name, perfect) in enumerate(ideal.items()):
        rng = np.random.default_rng([seed, number])
        for rattle in PROBE_RATTLES_A:
            atoms = perfect.copy() if len(perfect) > 1 else perfect.repeat((2, 1, 1))
            distort(atoms, rng, rattle)
            atoms.info = {"group": name}
            if not set(atoms.get_chemical_symbols()) & set(exclude):
                frames.append(atoms)
    return frames


class Probe:
    """The general cells with the foundation's energies.

    Parameters
    ----------
    exclude
        Elements of the campaign: what is said of them is meant to change, and is not forgetting.
    """

    def __init__(self, foundation: Potential, *, exclude: Collection[str] = (), seed: int = 0) -> None:
        cells = [a for a in probe_cells(exclude, seed=seed) if set(a.get_chemical_symbols()) <= foundation.elements]
        energies = energies_per_atom(foundation, cells)
        self.frames = [a for a, e in zip(cells, energies, strict=True) if np.isfinite(e)]
        self.energies = energies[np.isfinite(energies)]

    def drift(
        self, predict: Callable[[list[Atoms]], Sequence[float]], elements: Collection[str] | None = None
    ) -> dict[str, Any]:
        """How far energies have moved from the foundation's.

        Parameters
        ----------
        predict
            Energies (eV/atom) of cells.
        elements
            Those the potential knows, where that may be fewer than the foundation's.

        Returns
        -------
        dict
            ``drift_meV_atom`` (RMS over cells), ``mean_drift_meV_atom`` (mean over substances of the RMS of each),
            ``worst`` (substance) and ``worst_meV_atom``, ``cells``. Empty when no cell can be compared; a model that
            gives no finite number drifts by infinity.
        """
        known = [
            k for k, a in enumerate(self.frames) if elements is None or set(a.get_chemical_symbols()) <= set(elements)
        ]
        if not known:
            return {}
        frames = [self.frames[k] for k in known]
        change = 1e3 * (np.asarray(predict(frames), dtype=float) - self.energies[known])
        change = np.where(np.isfinite(change), change, math.inf)
        groups = np.array([a.info["group"] for a in frames])
        each = {str(g): rms(change[groups == g]) for g in dict.fromkeys(groups)}
        worst = max(each, key=lambda g: each[g])
        return {
            "drift_meV_atom": rms(change),
            "mean_drift_meV_atom": float(np.mean(list(each.values()))),
            "worst": worst,
            "worst_meV_atom": each[worst],
            "cells": len(known),
        }


def energies_per_atom(potential: Potential, frames: Sequence[Atoms]) -> NDArray[np.float64]:
    """Energies of a potential, eV/atom; NaN for a frame it cannot read."""
    predictions = evaluate_each(potential, frames)
    return np.array([math.nan if p is None else p.energy / len(a) for p, a in zip(predictions, frames, strict=True)])


def rms(values: NDArray[np.float64]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))
