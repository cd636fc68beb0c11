"""Guards against forgetting: what a refined potential still says of everything it was not refined on.

Two measures: the drift of energies from the foundation on a fixed probe (needs no labels), and the error on labelled
general frames beside the foundation's. Whether validation got better is judged in ``train/__init__.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.core.frames import label_of, read_frames
from aldriver.core.recipe_train import Guard
from aldriver.potentials.base import Potential
from aldriver.potentials.general import distort, evaluate_each
from aldriver.train.energies import AUTO_THRESHOLD_EV_ATOM, reference_energy, shift_of, shifted_energy

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
FRAMES_PER_ELEMENT = 3
"""Labelled frames for each element below which no energy shift is fitted: it would fit the errors away."""
SMALLEST_RMSE_EV_ATOM = 1e-3
"""Ratios are taken to no less than this."""


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
        each = {str(g): _rms(change[groups == g]) for g in dict.fromkeys(groups)}
        worst = max(each, key=lambda g: each[g])
        return {
            "drift_meV_atom": _rms(change),
            "mean_drift_meV_atom": float(np.mean(list(each.values()))),
            "worst": worst,
            "worst_meV_atom": each[worst],
            "cells": len(known),
        }


def judge_forgetting(
    guard: Guard,
    foundation: Potential,
    refined: Potential,
    probe: Probe,
    general_frames: Sequence[Atoms] | None = None,
) -> tuple[bool, str, dict[str, Any]]:
    """Whether a refined potential has kept what the foundation knew.

    Parameters
    ----------
    general_frames
        Labelled with energies (forces are reported where they are there); those of ``guard.general`` by default.

    Returns
    -------
    tuple
        Whether every limit that is set holds, one line with the numbers, and the numbers: those of :meth:`Probe.drift`,
        and under ``general`` those of :func:`general_errors`.

    Raises
    ------
    InputError
        When the file of general frames is missing, damaged or without energies.
    """
    numbers: dict[str, Any] = probe.drift(lambda frames: list(energies_per_atom(refined, frames)), refined.elements)
    refusals, words = [], []
    if numbers:
        drift, limit = numbers["drift_meV_atom"], guard.max_drift_meV_atom
        words.append(f"drift {drift:.1f} meV/atom on general cells (worst {numbers['worst']})")
        if limit is not None and not drift <= limit:
            refusals.append(f"it forgets: {words[-1]}, above guard.max_drift_meV_atom = {limit:g}")
    else:
        words.append("no general cell has only elements it knows: drift not measured")
    if general_frames is None and guard.general is not None:
        general_frames = read_frames(guard.general)
        if not general_frames:
            raise InputError(f"{guard.general}: train.guard.general holds no frames")
    if general_frames:
        errors = general_errors(foundation, refined, general_frames)
        numbers["general"] = errors
        if errors["frames"]:
            ratio = errors["ratio"]
            words.append(
                f"energy RMSE on {errors['frames']} general frames {errors['refined_meV_atom']:.1f} meV/atom, "
                f"foundation {errors['foundation_meV_atom']:.1f}"
            )
            if not ratio <= guard.max_general_ratio:
                refusals.append(f"it forgets: {words[-1]}, above guard.max_general_ratio = {guard.max_general_ratio:g}")
    return not refusals, "; ".join(refusals or words), numbers


def general_errors(foundation: Potential, refined: Potential, frames: Sequence[Atoms]) -> dict[str, Any]:
    """Energy RMSE (forces too where labelled) of two potentials on the frames both can read.

    Where labels and the foundation lie further apart than 50 meV/atom, and every element has frames enough, a shift by
    element is fitted once, to the foundation, and used for both: a shift fitted to the refined potential would hide
    what it forgot.

    Returns
    -------
    dict
        ``frames``, ``foundation_meV_atom``, ``refined_meV_atom``, ``ratio``, ``shifted``; with forces also
        ``foundation_forces_meV_A`` and ``refined_forces_meV_A``. With no common frame only ``frames`` = 0.
    """
    both = foundation.elements & refined.elements
    frames = [atoms for atoms in frames if set(atoms.get_chemical_symbols()) <= both]
    read = [evaluate_each(p, frames) for p in (foundation, refined)]
    kept = [k for k, pair in enumerate(zip(*read, strict=True)) if all(p is not None for p in pair)]
    if not kept:
        return {"frames": 0}
    frames, predictions = [frames[k] for k in kept], [[p for k in kept if (p := side[k]) is not None] for side in read]
    labels = [reference_energy(atoms, foundation) for atoms in frames]
    counts = np.array([len(atoms) for atoms in frames])
    difference = (np.array([p.energy for p in predictions[0]]) - np.array(labels)) / counts
    n_elements = len({s for atoms in frames for s in atoms.get_chemical_symbols()})
    apart = float(np.abs(difference).mean()) > AUTO_THRESHOLD_EV_ATOM
    shift = shift_of(frames, difference) if apart and len(frames) >= FRAMES_PER_ELEMENT * n_elements else None
    moved = np.array([shifted_energy(a, e, shift) for a, e in zip(frames, labels, strict=True)])
    errors = [_rms((np.array([p.energy for p in side]) - moved) / counts) for side in predictions]
    result: dict[str, Any] = {
        "frames": len(frames),
        "foundation_meV_atom": 1e3 * errors[0],
        "refined_meV_atom": 1e3 * errors[1],
        "ratio": errors[1] / max(errors[0], SMALLEST_RMSE_EV_ATOM),
        "shifted": shift is not None,
    }
    labelled = [k for k, atoms in enumerate(frames) if label_of(atoms, "forces") is not None]
    if labelled:
        for side, name in zip(predictions, ("foundation", "refined"), strict=True):
            rows = [side[k].forces - np.asarray(label_of(frames[k], "forces")) for k in labelled]
            result[f"{name}_forces_meV_A"] = 1e3 * _rms(np.concatenate(rows))
    return result


def energies_per_atom(potential: Potential, frames: Sequence[Atoms]) -> NDArray[np.float64]:
    """Energies of a potential, eV/atom; NaN for a frame it cannot read."""
    predictions = evaluate_each(potential, frames)
    return np.array([math.nan if p is None else p.energy / len(a) for p, a in zip(predictions, frames, strict=True)])


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
