"""Frames of general knowledge that are rehearsed while a potential learns something new.

Either the foundation labels simple crystals near its own equilibrium (self-distillation: no download, no labels of
others), or a labelled file is read. How much they weigh in the loss is ``loop.py``'s business.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from aldriver.core.errors import InputError
from aldriver.core.frames import label_of, read_frames, with_labels
from aldriver.core.recipe_train import Replay
from aldriver.core.records import dumps
from aldriver.core.store import atomic_write, sha256_file
from aldriver.potentials.base import Potential
from aldriver.potentials.general import near_equilibrium_cells, neighbouring_elements
from aldriver.train.energies import fit_e0_shift, reference_energy, shifted_energy

VERSION = 2
"""Of how the cells are made; part of the key of a cache."""
PER_ELEMENT = 6
MAX_FORCE_EV_A = 3.0
"""Cells with a larger force are left out: they are not near equilibrium, and a few stiff ones (carbon at 12 eV/Å) rule
the replay loss. Measured on silicon (chgnet:0.2.0, 32 frames, learning rate 1e-3, 8 epochs), mean drift in meV/atom: 32
without replay; 105 with 2 replayed frames a step, 50 when no stiff cell is among them, 17 with 6 a step and none."""
FOUNDATION_HEAD = "pt_head"
KEY = "replay_key"


def replay_frames(
    foundation: Potential, elements: Iterable[str], settings: Replay, *, seed: int, cache: Path | None = None
) -> list[Atoms]:
    """Labelled frames (energy, forces, stress where there is one) on the foundation's energy scale.

    Parameters
    ----------
    elements
        Of the campaign. Source ``self`` covers them, their pairs, and ``settings.elements`` or, where that is empty,
        their neighbours in the periodic table.
    settings
        Its ``heads: separate`` marks the frames for the foundation's own head (``info['head'] = 'pt_head'``).
    cache
        A file (extended XYZ) that keeps the frames. It is used where foundation, elements, seed and settings are those
        it was written for, and replaced otherwise. The frames returned are those of the file, to the last digit.

    Returns
    -------
    list of Atoms
        Those of a file whose energies had to be moved carry the shift in ``info['e0_shift_eV']`` (total, eV).

    Raises
    ------
    InputError
        When the file cannot be read or lacks labels, or the foundation knows none of the elements.
    """
    elements = sorted(set(elements))
    if settings.source == "none":
        return []
    if settings.source == "auto":
        settings = settings.model_copy(update={"source": "self"})
    key = _key(foundation, elements, settings, seed)
    if cache is not None and (kept := _read(cache, key)):
        return kept
    if settings.source == "self":
        frames = _self_labelled(foundation, elements, settings, seed)
    else:
        frames = _from_file(foundation, Path(settings.source))
    if settings.heads == "separate":
        for atoms in frames:
            atoms.info["head"] = FOUNDATION_HEAD
    if cache is None:
        return frames
    for atoms in frames:
        atoms.info[KEY] = key
    text = io.StringIO()
    write(text, frames, format="extxyz")
    atomic_write(cache, text.getvalue())
    return _read(cache, key)


def _self_labelled(foundation: Potential, elements: Sequence[str], settings: Replay, seed: int) -> list[Atoms]:
    others = settings.elements or neighbouring_elements(elements, foundation.elements)
    cells = near_equilibrium_cells(
        foundation, {*elements, *others}, seed=seed, per_element=PER_ELEMENT, compounds=elements
    )
    if not cells.frames:
        reasons = "; ".join(f"{name}: {why}" for name, why in cells.skipped.items())
        raise InputError(
            f"train.replay: no general cells for {', '.join(elements)} ({reasons}); name train.replay.elements"
        )
    frames = []
    for atoms, p in zip(cells.frames, foundation.evaluate(cells.frames), strict=True):
        if not (np.isfinite(p.energy) and np.abs(p.forces).max() <= MAX_FORCE_EV_A):
            continue
        labelled = with_labels(
            atoms,
            energy=p.energy,
            forces=p.forces,
            stress=p.stress,
            magmoms=p.magmoms,
            prototype=atoms.info["prototype"],
        )
        frames.append(labelled)
    return frames


def _from_file(foundation: Potential, path: Path) -> list[Atoms]:
    frames = read_frames(path, labelled=True)
    if not frames:
        raise InputError(f"{path}: train.replay.source holds no frames")
    foundation.check_elements(frames)
    for atoms in frames:
        atoms.calc.results["energy"] = reference_energy(atoms, foundation)
    shift = fit_e0_shift(frames, foundation)
    for atoms in frames:
        energy = label_of(atoms, "energy")
        atoms.calc.results["energy"] = shifted_energy(atoms, energy, shift)
        atoms.info["e0_shift_eV"] = atoms.calc.results["energy"] - energy
    return frames


def _key(foundation: Potential, elements: Sequence[str], settings: Replay, seed: int) -> str:
    source = settings.source if settings.source == "self" else sha256_file(_existing(Path(settings.source)))
    parts = [VERSION, PER_ELEMENT, foundation.fingerprint, elements, settings.elements, settings.heads, source, seed]
    return hashlib.sha256(dumps(parts, indent=None).encode()).hexdigest()[:24]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(
            f"{path}: train.replay.source is auto, none, self, or a file of labelled frames; there is no such file"
        )
    return path


def _read(cache: Path, key: str) -> list[Atoms]:
    """The frames of a cache; none where it is missing, damaged or of another training."""
    try:
        frames = read_frames(cache, labelled=True)
    except InputError:
        return []
    return frames if all(atoms.info.get(KEY) == key for atoms in frames) else []
