"""What becomes of one form of an export. Making and checking forms is the other modules' business."""

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
        ``exported`` only after a run whose energies, forces and stresses agree with the potential; ``not_run``: the
        files are there, but what runs them is not; ``refused``: it runs, and is not accurate enough for use.
    reason
        Why not ``exported``, in words, and for ``not_run`` what was checked of it and how to check the rest.
    files
        What to run.
    max_dE, max_dF, max_dS
        Largest deviations from the potential in that run: eV (of the cell), eV/Å, bar.
    """

    form: str
    status: Literal["exported", "not_run", "not_available", "refused", "failed"]
    reason: str = ""
    files: tuple[str, ...] = ()
    max_dE: float | None = None
    max_dF: float | None = None
    max_dS: float | None = None
    frames: int = 0
