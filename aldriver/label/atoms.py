"""Isolated atoms (E0): the energy of each element's atom by the engine of the labels, or an estimate that says so.

Owns the cell and the settings of such a job. Where no atom converges, the energies fitted to a data set stand
in; using E0 in a training is ``train/energies.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, ground_state_magnetic_moments
from pydantic import BaseModel

from aldriver.core import recipe_label
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import frame_hash, read_frames
from aldriver.label import make_labeler
from aldriver.label.base import Label
from aldriver.label.cache import label_frame
from aldriver.label.energy_reference import fit_energies
from aldriver.label.gate import LabelLimits
from aldriver.label.spin import STARTS
from aldriver.label.upf import read_upf

_TOTALS = ("magnetisation", "total_magnetization_muB")


def isolated_atoms(
    elements: Sequence[str],
    settings: recipe_label.Label,
    out: Path,
    *,
    box_A: float = 12.0,
    dataset: Path | None = None,
    advance: Callable[..., None] = lambda **_: None,
) -> dict[str, Any]:
    """Energy (eV) of each element's atom, from a run or from a fit to a data set, and which of the two.

    Parameters
    ----------
    out
        Label store of the atoms.
    box_A
        Edge of the cell; its three edges differ a little, so that no symmetry forces fractional occupations on an
        open shell.
    dataset
        Labelled frames of the same level of theory, for the elements whose atom does not converge.

    Returns
    -------
    dict
        ``atoms`` (element: ``energy_eV`` or None, ``from``), ``isolated_atoms_eV`` (as ``train.isolated_atoms_eV``
        takes them; only when every energy is of a run), ``level``.

    Raises
    ------
    InputError
        When a symbol is no element.
    """
    unknown = [e for e in elements if e not in atomic_numbers or e == "X"]
    if unknown:
        raise InputError(f"'{unknown[0]}' is not a chemical element")
    fitted: dict[str, float] = {}
    if dataset is not None:
        frames = read_frames(dataset, labelled=True)
        reference = fit_energies(frames, [float(f.get_potential_energy()) for f in frames])
        fitted = {} if reference is None else dict(reference.energies)
    rows: dict[str, dict[str, Any]] = {}
    for element in dict.fromkeys(elements):
        rows[element] = _atom(element, settings, Path(out), box_A, fitted)
        advance(note=element)
    measured = all(r["measured"] for r in rows.values())
    return {
        "atoms": rows,
        "isolated_atoms_eV": {e: r["energy_eV"] for e, r in rows.items()} if measured else None,
        "level": make_labeler(settings, list(rows))[1].level,
    }


def atom_settings(settings: recipe_label.Label, element: str) -> recipe_label.Label:
    """The label block for a lone atom: Γ only, spin-polarised from Hund's moment; the rest as for the labels.

    A block is changed where it has the key: an engine that knows no k points or spin has none to change.
    """
    block = getattr(settings, settings.engine, None)
    if not isinstance(block, BaseModel):
        return settings
    moment = float(ground_state_magnetic_moments[atomic_numbers[element]])
    fields = type(block).model_fields
    update: dict[str, Any] = {"kpoints": (1, 1, 1)} if "kpoints" in fields else {}
    if "kspacing_per_A" in fields:
        update["kspacing_per_A"] = None
    if moment and "spin" in fields:
        update["spin"] = True
        started = next((k for k in STARTS if k in fields), None)
        update |= {k: {} for k in STARTS if k in fields}
        if started == "starting_magnetization":
            update |= {started: {element: _fraction(block, element, moment)}}
        elif started:
            update |= {started: {element: moment}}
    if "incar" in fields:
        update["incar"] = block.incar | {"ISYM": 0}  # type: ignore[attr-defined]
    return settings.model_copy(update={settings.engine: block.model_copy(update=update)})


def _fraction(block: BaseModel, element: str, moment: float) -> float:
    """A moment (µB) as Quantum ESPRESSO's starting magnetisation: a fraction of the valence electrons.

    It matters: silicon's atom that starts fully polarised stays in s¹p³ with 4 µB, 3.8 eV above s²p² with 2.
    """
    espresso = recipe_label.Espresso.model_validate(block.model_dump())
    try:
        valence = read_upf(espresso.pseudo_dir.expanduser().absolute() / espresso.pseudopotentials[element]).valence
    except (InputError, KeyError):
        valence = None
    return min(1.0, moment / valence) if valence else 0.5


def atom_cell(element: str, box_A: float) -> Atoms:
    """One atom in a box of slightly different edges (Å), off its corners."""
    edges = box_A * np.array([1.0, 1.01, 1.02])
    return Atoms(element, positions=[0.5 * edges], cell=np.diag(edges), pbc=True)


def _atom(
    element: str, settings: recipe_label.Label, out: Path, box_A: float, fitted: dict[str, float]
) -> dict[str, Any]:
    """The energy of one atom, and where it is from; a failure is a sentence."""
    frame = atom_cell(element, box_A)
    frame.info["frame_id"] = frame_hash(frame)
    labeler, spec = make_labeler(atom_settings(settings, element), [element])
    problems = labeler.preflight()
    if problems:
        raise AldriverError("cannot label here:\n" + "\n".join(f"  - {p}" for p in problems))
    limits = replace(LabelLimits.of(settings), moments={}, reference=None, need_stress=False)
    label = label_frame(frame, labeler, spec, out, limits=limits)
    if label.ok:
        told = f"isolated atom, {spec.level}{_state(element, label)}"
        return {"energy_eV": label.energy, "measured": True, "from": told, "key": label.key}
    failed = f"the isolated atom gave no energy ({label.status}: {label.reason})"
    if element not in fitted:
        return {"energy_eV": None, "measured": False, "from": f"{failed}; `--dataset` has a fit to labels stand in"}
    told = f"a fit to the energies of the data set, because {failed}: no cohesive energies follow from it"
    return {"energy_eV": fitted[element], "measured": False, "from": told}


def _state(element: str, label: Label) -> str:
    """A caution when the atom converged to another moment than the free atom has."""
    found = next((label.provenance[k] for k in _TOTALS if label.provenance.get(k) is not None), None)
    expected = float(ground_state_magnetic_moments[atomic_numbers[element]])
    if found is None or abs(abs(found) - expected) < 0.5:
        return ""
    return f"; CAUTION: it has {abs(found):.1f} µB, the free atom {expected:g}: perhaps an excited state"
