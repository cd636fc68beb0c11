"""Energy references: moving a reference method's energies onto a potential's scale. Labels themselves stay raw.

Total energies of different methods differ by a constant per element (pseudopotentials, corrections, atoms as zero),
which no interatomic model should spend its weights on: the least-squares constant per element is taken out first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.energy_shift import shift_of
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import label_of
from aldriver.core.recipe_train import Train
from aldriver.potentials.base import Potential

AUTO_THRESHOLD_EV_ATOM = 0.050
"""Mode ``auto`` shifts when reference and potential differ by more than this on average (mean absolute, eV/atom)."""
MAX_SPREAD_EV_ATOM = 2.0
"""Frames of one composition further apart than this (eV/atom) come from different energy references."""


def fit_e0_shift(
    frames: Sequence[Atoms],
    potential: Potential,
    *,
    mode: Literal["auto", "never", "always"] = "auto",
    predicted: Sequence[float] | None = None,
) -> dict[str, float] | None:
    """Energy per atom of each element (eV) to add to reference energies: E_ref' = E_ref + Σ n_el · shift_el.

    Least squares of (E_potential − E_ref)/N on the mole fractions. Where the compositions cannot tell elements apart
    (one fixed composition, say), the solution of least norm is taken: it moves the energies all the same.

    Parameters
    ----------
    frames
        With energy labels.
    mode
        ``auto`` shifts when the mean absolute difference exceeds :data:`AUTO_THRESHOLD_EV_ATOM`.
    predicted
        Total energies of the potential (eV) where they are known already.

    Returns
    -------
    dict or None
        Shift by element, or None when none is to be applied.

    Raises
    ------
    InputError
        When frames of one composition lie more than :data:`MAX_SPREAD_EV_ATOM` apart, or a label is missing.
    """
    if mode not in ("auto", "never", "always"):
        raise InputError(f"train.e0_shift '{mode}': there is auto, never and always")
    per_atom = _energies_per_atom(frames)
    refuse_mixed_references(frames, per_atom)
    if mode == "never" or not frames:
        return None
    if predicted is None:
        predicted = [p.energy for p in potential.evaluate(frames, stress=False)]
    counts = np.array([len(atoms) for atoms in frames], dtype=float)
    difference = np.asarray(predicted, dtype=float) / counts - per_atom
    if mode == "auto" and np.abs(difference).mean() <= AUTO_THRESHOLD_EV_ATOM:
        return None
    return shift_of(frames, difference)


def energy_shift(
    frames: Sequence[Atoms], potential: Potential, settings: Train, *, predicted: Sequence[float] | None = None
) -> dict[str, float] | None:
    """The shift the settings ask for: by least squares (:func:`fit_e0_shift`) or :func:`isolated_atom_shift`."""
    if settings.e0_shift == "isolated":
        refuse_mixed_references(frames, _energies_per_atom(frames))
        return isolated_atom_shift(frames, potential, settings.isolated_atoms_eV)
    return fit_e0_shift(frames, potential, mode=settings.e0_shift, predicted=predicted)


def isolated_atom_shift(
    frames: Sequence[Atoms], potential: Potential, atoms_eV: Mapping[str, float], *, box_A: float = 12.0
) -> dict[str, float]:
    """Shift by element (eV) that puts isolated atoms of the reference method onto those of the potential.

    E0 alignment: shift = E0(potential) − E0(reference). It leaves cohesive energies as the reference has them, where
    least squares (:func:`fit_e0_shift`) makes the total energies meet.

    Parameters
    ----------
    atoms_eV
        Energy of the isolated atom in the reference method, by element.
    box_A
        Edge of the cell the potential's atom sits in; well beyond its cutoff.

    Raises
    ------
    InputError
        When an element of `frames` is missing, or the potential knows nothing of isolated atoms (CHGNet).
    """
    elements = sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})
    missing = [element for element in elements if element not in atoms_eV]
    if missing:
        raise InputError(
            f"no energy of the isolated atom for {', '.join(missing)}: compute it with the method of the labels, or "
            "use the least-squares shift (train.e0_shift: auto)"
        )
    cells = [Atoms(element, cell=[box_A] * 3, pbc=True) for element in elements]
    try:
        own = [p.energy for p in potential.evaluate(cells, stress=False)]
    except AldriverError as error:
        raise InputError(
            f"{potential.name} knows nothing of isolated atoms ({error}); use the least-squares shift "
            "(train.e0_shift: auto)"
        ) from error
    return {e: round(energy - float(atoms_eV[e]), 6) for e, energy in zip(elements, own, strict=True)}


def reference_energy(atoms: Atoms, potential: Potential) -> float:
    """The label (total, eV) that a potential is to be compared with.

    CHGNet was trained on energies with the MP2020 corrections (``Potential.energy_scale``): where a frame carries those
    (``info['energy_corrected']``) they are taken; all others are compared with the energies as computed.

    Raises
    ------
    InputError
        When the frame has no finite energy.
    """
    return energy_on_scale(atoms, potential.energy_scale)


def energy_on_scale(atoms: Atoms, scale: str) -> float:
    """As :func:`reference_energy`, for a scale by name."""
    energy = label_of(atoms, "energy")
    if scale == "mp2020":
        energy = atoms.info.get("energy_corrected", energy)
    if energy is None or not np.isfinite(energy):
        raise InputError(f"{atoms.get_chemical_formula()} ({atoms.info.get('frame_id', 'no id')}) has no finite energy")
    return float(energy)


def refuse_mixed_levels(frames: Sequence[Atoms]) -> None:
    """Refuse labels of several levels of theory (``info['level']``) in one training, unless in heads of their own.

    Frames that state none count as one level more where others state theirs. Frames of separate heads
    (``info['head']``) are judged head by head.

    Raises
    ------
    InputError
        With the number of frames of each level.
    """
    heads: dict[str, Counter[str]] = defaultdict(Counter)
    for atoms in frames:
        heads[str(atoms.info.get("head", ""))][str(atoms.info.get("level", "not stated"))] += 1
    for head, levels in heads.items():
        if len(levels) > 1:
            counts = ", ".join(f"{count} frames: {level}" for level, count in levels.most_common())
            where = f" in head '{head}'" if head else ""
            raise InputError(
                f"the labels are of {len(levels)} levels of theory{where} ({counts}); their energies and forces do "
                "not belong to one surface. Relabel the frames of one, leave them out, or give each level a head of "
                "its own (MACE: info['head'] of the frames)"
            )


def shifted_energy(atoms: Atoms, energy: float, shift: Mapping[str, float] | None) -> float:
    """Total reference energy of a frame (eV) on the potential's scale.

    Raises
    ------
    InputError
        When the shift knows nothing of one of the frame's elements.
    """
    if not shift:
        return float(energy)
    unknown = sorted(set(atoms.get_chemical_symbols()) - set(shift))
    if unknown:
        raise InputError(
            f"{atoms.get_chemical_formula()}: the energy shift was fitted without {', '.join(unknown)}; "
            "put frames with that element into the training set"
        )
    return float(energy) + float(sum(shift[symbol] for symbol in atoms.get_chemical_symbols()))


def refuse_mixed_references(frames: Sequence[Atoms], per_atom: NDArray[np.float64]) -> None:
    """Refuse frames of one composition whose energies (eV/atom) cannot come from one method.

    Raises
    ------
    InputError
        Naming the two frames.
    """
    by_composition: dict[str, list[int]] = defaultdict(list)
    for i, atoms in enumerate(frames):
        by_composition[atoms.symbols.formula.reduce()[0].format("hill")].append(i)
    for composition, members in by_composition.items():
        low, high = (int(members[k]) for k in (np.argmin(per_atom[members]), np.argmax(per_atom[members])))
        if per_atom[high] - per_atom[low] > MAX_SPREAD_EV_ATOM:
            raise InputError(
                f"frames of {composition} have energies {per_atom[high] - per_atom[low]:.1f} eV/atom apart "
                f"(frame {low}: {per_atom[low]:.3f}, frame {high}: {per_atom[high]:.3f}): they come from different "
                "energy references (another code, pseudopotential or correction). Keep the labels of one method, or "
                "put them on one scale first"
            )


def _energies_per_atom(frames: Sequence[Atoms]) -> NDArray[np.float64]:
    values = []
    for i, atoms in enumerate(frames):
        energy = label_of(atoms, "energy")
        if energy is None or not np.isfinite(energy):
            raise InputError(f"frame {i} ({atoms.get_chemical_formula()}) has no finite energy label")
        values.append(float(energy) / len(atoms))
    return np.array(values)
