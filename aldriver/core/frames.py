"""Frames: ASE ``Atoms`` with provenance and a hash; reading and writing extended XYZ.

A frame is an ``Atoms`` whose ``info`` may hold ``frame_id`` (the hash), ``group`` (the trajectory it comes from: splits
never separate a group), ``generation``, ``walker``, ``step`` and ``system``. Labels sit in a ``SinglePointCalculator``,
so any tool that speaks ASE reads them. Which frames are *good* labels is decided elsewhere (``label/gate.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write
from ase.io.extxyz import write_xyz
from numpy.typing import ArrayLike

from aldriver.core.errors import InputError
from aldriver.core.units import matrix_to_voigt

PROVENANCE_KEYS = ("frame_id", "group", "generation", "walker", "step", "system")


def frame_hash(atoms: Atoms, *, decimals: int = 6) -> str:
    """SHA-256 (hex, 24 characters) of species, positions, cell and periodicity, in site order.

    Positions and cell are rounded to `decimals` (Å). The hash serves identity (cache, resume, provenance), not
    similarity: near-duplicates are found in descriptor space (``detect/select.py``).
    """
    h = hashlib.sha256()
    h.update(np.asarray(atoms.numbers, dtype="<i4").tobytes())
    for array in (atoms.positions, np.asarray(atoms.cell)):
        h.update((np.round(array, decimals) + 0.0).astype("<f8").tobytes())  # + 0.0 turns −0.0 into 0.0
    h.update(np.asarray(atoms.pbc, dtype="u1").tobytes())
    return h.hexdigest()[:24]


def bare(atoms: Atoms) -> Atoms:
    """Copy with species, positions, cell and periodicity only (no momenta, magmoms, info or calculator)."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def with_labels(
    atoms: Atoms,
    *,
    energy: float,
    forces: ArrayLike,
    stress: ArrayLike | None = None,
    magmoms: ArrayLike | None = None,
    free_energy: float | None = None,
    **info: Any,
) -> Atoms:
    """Copy of a frame that carries labels.

    Parameters
    ----------
    energy, free_energy
        Total energies, eV.
    forces
        (N, 3), eV/Å.
    stress
        Voigt 6 or 3×3, eV/Å³ (ASE sign), or None where the engine gave none.
    magmoms
        (N,), µB.
    info
        Provenance added to ``atoms.info``.
    """
    labelled = bare(atoms)
    labelled.info = {k: v for k, v in atoms.info.items() if k in PROVENANCE_KEYS} | info
    results: dict[str, Any] = {"energy": float(energy), "forces": np.asarray(forces, dtype=float)}
    if stress is not None:
        s = np.asarray(stress, dtype=float)
        results["stress"] = matrix_to_voigt(s) if s.shape == (3, 3) else s
    if magmoms is not None:
        results["magmoms"] = np.asarray(magmoms, dtype=float)
    if free_energy is not None:
        results["free_energy"] = float(free_energy)
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled


def label_of(atoms: Atoms, key: str) -> Any:
    """Stored label (``energy``, ``forces``, ``stress``, ``magmoms``) of a frame, or None if it has none."""
    return None if atoms.calc is None else atoms.calc.results.get(key)


def write_frames(path: str | Path, frames: Sequence[Atoms] | Iterable[Atoms]) -> None:
    """Write frames as extended XYZ (labels, momenta and provenance included)."""
    frames = list(frames)
    path = Path(path)
    if not frames:
        path.write_text("")
        return
    write(path, frames, format="extxyz")


def frame_text(atoms: Atoms) -> str:
    """A frame as extended XYZ, as ``write_frames`` has it in a file."""
    text = StringIO()
    write_xyz(text, [atoms])
    return text.getvalue()


def read_frames(path: str | Path, *, labelled: bool = False, groups: bool = True) -> list[Atoms]:
    """Read an extended XYZ (or any ASE-readable) file of frames.

    ``force`` is understood as ``forces`` and ``virial`` (eV, tension negative) as −V·σ when standard keys are missing.

    Parameters
    ----------
    labelled
        Refuse frames that lack energy or forces.
    groups
        Give frames without a ``group`` one of their own (so that group splits work on plain files).

    Raises
    ------
    InputError
        When the file is missing, cannot be parsed, holds non-finite numbers, or lacks labels that are required.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file of frames")
    if path.stat().st_size == 0:
        return []
    fmt = "extxyz" if path.suffix in (".xyz", ".extxyz") else None
    frames: list[Atoms] = []
    try:
        for atoms in iread(path, index=":", format=fmt):
            frames.append(standard_labels(atoms))
    except Exception as error:
        raise InputError(
            f"{path}: frame {len(frames)} cannot be read as {fmt or 'a structure file'}: {error}. "
            "aldriver reads extended XYZ with a Lattice, species, pos and (for labels) energy, forces, stress."
        ) from error
    for i, atoms in enumerate(frames):
        _check(path, i, atoms, labelled)
        if groups:
            atoms.info.setdefault("group", f"{path.stem}-{i}")
        atoms.info.setdefault("frame_id", frame_hash(atoms))
    return frames


def standard_labels(atoms: Atoms) -> Atoms:
    """Move labels under non-standard keys to where ASE keeps them."""
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    for key, aliases in (("energy", ("energy", "REF_energy")), ("stress", ("stress", "REF_stress"))):
        for alias in aliases:
            if key not in results and alias in atoms.info:
                results[key] = atoms.info.pop(alias)
    for alias in ("forces", "force", "REF_forces"):
        if "forces" not in results and alias in atoms.arrays:
            results["forces"] = atoms.arrays.pop(alias)
    if "stress" not in results and "virial" in atoms.info and atoms.cell.rank == 3:
        virial = np.asarray(atoms.info.pop("virial"), dtype=float).reshape(3, 3)
        results["stress"] = matrix_to_voigt(-virial / atoms.get_volume())
    if "stress" in results:
        stress = np.asarray(results["stress"], dtype=float)
        results["stress"] = matrix_to_voigt(stress.reshape(3, 3)) if stress.size == 9 else stress
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _check(path: Path, index: int, atoms: Atoms, labelled: bool) -> None:
    where = f"{path}: frame {index}"
    if len(atoms) == 0:
        raise InputError(f"{where} has no atoms")
    if not np.isfinite(atoms.positions).all() or not np.isfinite(np.asarray(atoms.cell)).all():
        raise InputError(f"{where} has positions or a cell that are not finite numbers")
    for key in ("energy", "forces", "stress"):
        value = label_of(atoms, key)
        if value is not None and not np.isfinite(value).all():
            raise InputError(f"{where}: {key} is not finite; remove the frame or its {key}")
        if value is None and labelled and key != "stress":
            raise InputError(f"{where} has no {key}; labelled frames need energy and forces")
    forces = label_of(atoms, "forces")
    if forces is not None and np.shape(forces) != (len(atoms), 3):
        raise InputError(f"{where}: forces have shape {np.shape(forces)}, expected ({len(atoms)}, 3)")
