"""What becomes of one form of an export. Making and checking forms is ``lammps.py``'s and ``vendor.py``'s business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form a potential was (or was not) exported in.

    Attributes
    ----------
    form
        ``fix external``, the name of a native pair style, or of the program whose file it is.
    status
        ``exported`` only after a run whose energies, forces and stresses agree with the potential.
    reason
        Why not, in words.
    files
        What to run.
    max_dE, max_dF, max_dS
        Largest deviations from the potential in that run: eV (of the cell), eV/Å, bar.
    """

    form: str
    status: Literal["exported", "not_available", "failed"]
    reason: str = ""
    files: tuple[str, ...] = ()
    max_dE: float | None = None
    max_dF: float | None = None
    max_dS: float | None = None
    frames: int = 0
