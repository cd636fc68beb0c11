"""Guards against forgetting: what a refined potential still says of everything it was not refined on.

Two measures: the drift of energies from the foundation on a fixed probe (needs no labels), and the error on labelled
general frames beside the foundation's. Whether validation got better is judged in ``train/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.frames import label_of, read_frames
from aldriver.core.recipe_train import Guard
from aldriver.potentials.base import Potential
from aldriver.potentials.general import evaluate_each
from aldriver.potentials.probe import Probe, energies_per_atom, rms
from aldriver.train.energies import AUTO_THRESHOLD_EV_ATOM, reference_energy, shift_of, shifted_energy

FRAMES_PER_ELEMENT = 3
"""Labelled frames for each element below which no energy shift is fitted: it would fit the errors away."""
SMALLEST_RMSE_EV_ATOM = 1e-3
"""Ratios are taken to no less than this."""


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
    errors = [rms((np.array([p.energy for p in side]) - moved) / counts) for side in predictions]
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
            result[f"{name}_forces_meV_A"] = 1e3 * rms(np.concatenate(rows))
    return result
