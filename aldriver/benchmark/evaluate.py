"""Errors of a potential on labelled frames: energy, force components and stress; overall, by element, by group.

Which frames are independent of the training is the caller's knowledge; whether the errors are good enough is
``gate.py``'s decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.core.frames import label_of
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.potentials.base import Potential, Prediction

CHUNK = 64
"""Frames between two calls of `on_progress`."""

Metrics = dict[str, float | int | None]


def evaluate(
    potential: Potential,
    frames: Sequence[Atoms],
    *,
    e0_shift: Mapping[str, float] | None = None,
    batch_atoms: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Mean absolute and root-mean-square errors of a potential: :func:`predict`, then :func:`errors`."""
    found = predict(potential, frames, batch_atoms=batch_atoms, on_progress=on_progress)
    return errors(frames, found, e0_shift=e0_shift)


def predict(
    potential: Potential,
    frames: Sequence[Atoms],
    *,
    batch_atoms: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """What a potential says of labelled frames; stress only where a frame has a label for it.

    Parameters
    ----------
    frames
        With energy (eV) and forces (eV/Å) in their calculator, stress (eV/Å³) where known.
    on_progress
        Called with (frames done, all frames).

    Raises
    ------
    InputError
        When there are no frames, one lacks energy or forces, or holds an element the potential does not know.
    """
    _check(frames)
    potential.check_elements(frames)
    found: list[Prediction] = []
    for start in range(0, len(frames), CHUNK):
        chunk = frames[start : start + CHUNK]
        want_stress = any(label_of(f, "stress") is not None for f in chunk)
        found += potential.evaluate(chunk, stress=want_stress, batch_atoms=batch_atoms)
        if on_progress is not None:
            on_progress(len(found), len(frames))
    return found


def errors(
    frames: Sequence[Atoms], predictions: Sequence[Prediction], *, e0_shift: Mapping[str, float] | None = None
) -> Metrics:
    """Mean absolute and root-mean-square errors of predictions.

    Parameters
    ----------
    e0_shift
        Energy per atom of each element (eV) that brings the labels onto the potential's scale:
        E' = E + Σ n_element · shift. An element that is not named is not shifted.

    Returns
    -------
    dict
        ``n_frames``, ``n_atoms``, ``n_stress`` (frames with a stress label), ``n_not_finite`` (frames for which the
        potential gave a number that is not finite); ``energy_mae_meV_atom``, ``energy_rmse_meV_atom``,
        ``forces_mae_meV_A``, ``forces_rmse_meV_A``, ``forces_max_meV_A`` (over components), ``stress_mae_GPa``,
        ``stress_rmse_GPa`` (over the six components; None without stress labels). All errors are None as soon as one
        frame is not finite: a mean over the good frames would flatter the potential.
    """
    _check(frames)
    energy: list[float] = []
    forces: list[NDArray[np.float64]] = []
    stress: list[NDArray[np.float64]] = []
    not_finite = 0
    for frame, found in zip(frames, predictions, strict=True):
        not_finite += not _finite(found)
        energy.append((found.energy - reference_energy(frame, e0_shift)) / len(frame))
        forces.append((found.forces - label_of(frame, "forces")).ravel())
        label = label_of(frame, "stress")
        if label is not None and found.stress is not None:
            stress.append(np.asarray(found.stress) - label)
    metrics: Metrics = {
        "n_frames": len(frames),
        "n_atoms": sum(len(f) for f in frames),
        "n_stress": len(stress),
        "n_not_finite": int(not_finite),
    }
    return metrics | _errors(
        None if not_finite else np.array(energy),
        None if not_finite else np.concatenate(forces),
        None if not_finite or not stress else np.concatenate(stress),
    )


def errors_by_group(
    frames: Sequence[Atoms],
    predictions: Sequence[Prediction],
    groups: Sequence[str],
    *,
    e0_shift: Mapping[str, float] | None = None,
) -> dict[str, Metrics]:
    """:func:`errors` of the frames of each group, in the order in which groups first appear.

    Parameters
    ----------
    groups
        One name a frame: a trajectory, a kind of configuration, a composition.
    """
    members: dict[str, list[int]] = {}
    for i, name in enumerate(groups):
        members.setdefault(name, []).append(i)
    return {
        name: errors([frames[i] for i in own], [predictions[i] for i in own], e0_shift=e0_shift)
        for name, own in members.items()
    }


def errors_by_element(frames: Sequence[Atoms], predictions: Sequence[Prediction]) -> dict[str, Metrics]:
    """Errors of the forces on the atoms of each element: ``n_atoms`` and the ``forces_*`` of :func:`errors`.

    Energies and stresses belong to whole cells: for those see :func:`errors_by_group` with :func:`composition`.
    """
    by_element: dict[str, list[NDArray[np.float64]]] = {}
    for frame, found in zip(frames, predictions, strict=True):
        off = found.forces - label_of(frame, "forces")
        for number in np.unique(frame.numbers):
            own = frame.numbers == number
            by_element.setdefault(frame.symbols[int(np.argmax(own))], []).append(off[own])
    metrics: dict[str, Metrics] = {}
    for symbol in sorted(by_element):
        off = np.concatenate(by_element[symbol])
        found_errors = _errors(None, off.ravel() if np.isfinite(off).all() else None, None)
        metrics[symbol] = {"n_atoms": len(off)} | {k: v for k, v in found_errors.items() if k.startswith("forces")}
    return metrics


def composition(frame: Atoms) -> str:
    """Reduced formula of a frame, elements in alphabetical order (Hill): frames of one have the same element ratio."""
    return str(frame.symbols.formula.reduce()[0].format("hill"))


def reference_energy(frame: Atoms, e0_shift: Mapping[str, float] | None) -> float:
    """Labelled energy of a frame (eV) on the potential's scale: E + Σ n_element · shift."""
    shift = 0.0 if not e0_shift else sum(e0_shift.get(symbol, 0.0) for symbol in frame.get_chemical_symbols())
    return float(label_of(frame, "energy")) + shift


def _errors(
    energy: NDArray[np.float64] | None, forces: NDArray[np.float64] | None, stress: NDArray[np.float64] | None
) -> Metrics:
    def mae(x: NDArray[np.float64] | None, unit: float) -> float | None:
        return None if x is None else float(np.abs(x).mean() * unit)

    def rmse(x: NDArray[np.float64] | None, unit: float) -> float | None:
        return None if x is None else float(np.sqrt(np.mean(x**2)) * unit)

    return {
        "energy_mae_meV_atom": mae(energy, 1e3),
        "energy_rmse_meV_atom": rmse(energy, 1e3),
        "forces_mae_meV_A": mae(forces, 1e3),
        "forces_rmse_meV_A": rmse(forces, 1e3),
        "forces_max_meV_A": None if forces is None else float(np.abs(forces).max() * 1e3),
        "stress_mae_GPa": mae(stress, EV_A3_TO_GPA),
        "stress_rmse_GPa": rmse(stress, EV_A3_TO_GPA),
    }


def _finite(p: Prediction) -> bool:
    parts = [np.asarray(p.energy), p.forces] + ([] if p.stress is None else [p.stress])
    return all(bool(np.isfinite(part).all()) for part in parts)


def _check(frames: Sequence[Atoms]) -> None:
    if not frames:
        raise InputError("there are no frames to evaluate on")
    for i, frame in enumerate(frames):
        for key in ("energy", "forces"):
            value = label_of(frame, key)
            if value is None:
                raise InputError(f"frame {i} ({frame.get_chemical_formula()}) has no {key} to compare with")
            if not np.isfinite(value).all():
                raise InputError(f"frame {i} ({frame.get_chemical_formula()}): its {key} label is not finite")
