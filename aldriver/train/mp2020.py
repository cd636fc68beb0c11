"""The Materials Project's energy corrections of 2020, for labels CHGNet is to learn from. Labels themselves stay raw.

CHGNet 0.2.0 and 0.3.0 were trained on energies with these corrections (``Potential.energy_scale`` is ``mp2020``), its
r2SCAN model, MACE and SevenNet on energies as computed. The corrections
(Wang et al., Sci. Rep. 11, 15496 (2021)) are pymatgen's; they hold for PBE and PBE+U with the Materials Project's
pseudopotentials and U values, and for nothing else.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.frames import label_of

RUN_TYPES = {"PBE": "GGA", "PBE+U": "GGA+U", "GGA": "GGA", "GGA+U": "GGA+U"}


def mp2020_correction(atoms: Atoms, parameters: Mapping[str, Any]) -> float:
    """Correction of the total energy of a cell, eV (to be added).

    Parameters
    ----------
    atoms
        The cell; its structure tells oxides from peroxides and superoxides.
    parameters
        How VASP was run: ``run_type`` (``PBE`` or ``PBE+U``) and ``hubbards`` ({element: U in eV}) with ``PBE+U``.

    Raises
    ------
    InputError
        When the run type is another, or U is not the Materials Project's (pymatgen says which).
    """
    from pymatgen.core import Lattice, Structure
    from pymatgen.entries.compatibility import CompatibilityError, MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    what = atoms.get_chemical_formula()
    run_type = RUN_TYPES.get(str(parameters.get("run_type")))
    if run_type is None:
        raise InputError(
            f"{what}: MP2020 corrections are for VASP labels with run_type PBE or PBE+U, not "
            f"{parameters.get('run_type', 'one that is not stated')}; leave the energies as they are"
        )
    hubbards = {str(k): float(v) for k, v in dict(parameters.get("hubbards") or {}).items() if v}
    structure = Structure(
        Lattice(atoms.cell.array), atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True
    )
    entry = ComputedStructureEntry(
        structure, 0.0, parameters={"run_type": run_type, "hubbards": hubbards, "is_hubbard": bool(hubbards)}
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on oxidation states it guesses, and on potentials it is not shown
            adjustments = MaterialsProject2020Compatibility(check_potcar=False).get_adjustments(entry)
    except CompatibilityError as error:
        raise InputError(
            f"{what}: no MP2020 correction for this label ({_in_short(error)}); label it with the Materials "
            "Project's settings, or leave the energies as they are"
        ) from error
    return float(sum(adjustment.value for adjustment in adjustments))


def _in_short(error: Exception) -> str:
    """What pymatgen says, without the cell that it prints after ``for``."""
    return str(error).partition(" for {")[0][:200]


def parameters_of(level: str) -> dict[str, Any] | None:
    """Run type and U of a level of theory as labels state it (``info['level']``); None unless VASP's PBE or PBE+U.

    Examples
    --------
    >>> parameters_of("vasp: PBE+U (Fe 5.3), PAW 520 eV, k-grid 2x2x2 (0badcafe)")
    {'run_type': 'PBE+U', 'hubbards': {'Fe': 5.3}}
    >>> parameters_of("espresso: PBE, plane waves 30 Ry, k-grid 2x2x2 (0badcafe)")
    """
    match = re.match(r"vasp: (PBE(?:\+U)?)(?: \(([^)]*)\))?,", level)
    if match is None:
        return None
    hubbards = {e: float(u) for e, u in re.findall(r"([A-Z][a-z]?) (\d+(?:\.\d+)?)", match.group(2) or "")}
    return {"run_type": match.group(1), "hubbards": hubbards}


def on_mp2020_scale(frames: Sequence[Atoms], *, settled: bool = False) -> list[Atoms]:
    """The frames as a potential on the scale ``mp2020`` learns them: labels of VASP's PBE and PBE+U are corrected.

    All of them or none: where one cannot be (its U is not the Materials Project's), they stay as computed, because a
    set that is half corrected has steps in its energies. Labels of other codes and levels are never corrected, nor are
    those that say so (:func:`uncorrected`).

    Parameters
    ----------
    settled
        What these frames are compared with is corrected, so that none of them may stay as computed.

    Raises
    ------
    InputError
        When it is settled, and one of the frames cannot be corrected.
    """
    frames = list(frames)
    todo = {i: p for i, a in enumerate(frames) if (p := _to_correct(a)) is not None}
    try:
        corrected = {i: with_corrected_energies([frames[i]], p)[0] for i, p in todo.items()}
    except InputError as error:
        if settled:
            raise InputError(
                f"the other labels have the Materials Project's corrections (MP2020), this one cannot: {error}"
            ) from error
        return uncorrected(frames)
    return [corrected.get(i, atoms) for i, atoms in enumerate(frames)]


def uncorrected(frames: Sequence[Atoms]) -> list[Atoms]:
    """Copies that say that their energies are to stay as computed, whoever learns them (``info['mp2020']``)."""
    marked = []
    for atoms in frames:
        new = atoms.copy()
        new.calc = atoms.calc
        new.info["mp2020"] = False
        marked.append(new)
    return marked


def scale_of_labels(frames: Sequence[Atoms]) -> str | None:
    """Scale that :func:`on_mp2020_scale` has put labels of VASP on: ``mp2020``, empty, or None where it has not."""
    if any(parameters_of(str(a.info.get("level", ""))) and "energy_corrected" in a.info for a in frames):
        return "mp2020"
    return "" if any(not a.info.get("mp2020", True) for a in frames) else None


def can_be_corrected(atoms: Atoms) -> bool:
    """Whether a frame carries its correction, or is of a level (``info['level']``) and composition that have one."""
    parameters = parameters_of(str(atoms.info.get("level", "")))
    if "energy_corrected" in atoms.info or parameters is None:
        return parameters is not None or "energy_corrected" in atoms.info
    try:
        mp2020_correction(atoms, parameters)
    except InputError:
        return False
    return True


def _to_correct(atoms: Atoms) -> dict[str, Any] | None:
    if "energy_corrected" in atoms.info or not atoms.info.get("mp2020", True) or label_of(atoms, "energy") is None:
        return None
    return parameters_of(str(atoms.info.get("level", "")))


def with_corrected_energies(frames: Sequence[Atoms], parameters: Mapping[str, Any]) -> list[Atoms]:
    """Copies that carry ``info['energy_corrected']`` (eV), which ``energies.reference_energy`` takes for CHGNet."""
    corrected = []
    for atoms in frames:
        new = atoms.copy()
        new.calc = atoms.calc
        new.info["energy_corrected"] = float(label_of(atoms, "energy")) + mp2020_correction(atoms, parameters)
        corrected.append(new)
    return corrected
