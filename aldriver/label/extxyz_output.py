"""Labelled frames of somebody else in extended XYZ files: each frame with energy and forces is a label.

Owns what such a file can be trusted to say. It names a level of theory only where its frames do
(``info['level']``, or ``functional`` and ``source``); spin, cutoff and pseudopotentials stay unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread

from aldriver.core.frames import bare, label_of, standard_labels
from aldriver.label.base import Label
from aldriver.label.found import FoundLabel

_LEVEL_WORDS = ("level", "method", "functional", "xc", "code")


def read_extxyz(path: Path) -> list[FoundLabel]:
    """Every frame of an extended XYZ file; the first one that cannot be read ends the list with its reason."""
    path = Path(path)
    found: list[FoundLabel] = []
    try:
        for k, atoms in enumerate(iread(str(path), index=":", format="extxyz")):
            found.append(_frame(standard_labels(atoms), f"{path}#frame {k}"))
    except Exception as error:
        reason = f"frame {len(found)} cannot be read as extended XYZ: {type(error).__name__}: {error}"
        found.append(_without_value(Atoms(), f"{path}#frame {len(found)}", reason, {"code": "unknown"}))
    return found or [_without_value(Atoms(), str(path), "the file holds no frames", {"code": "unknown"})]


def _frame(atoms: Atoms, source: str) -> FoundLabel:
    settings: dict[str, Any] = {"code": "unknown"}
    settings |= {word: str(atoms.info[word]) for word in _LEVEL_WORDS if word in atoms.info}
    frame = bare(atoms)
    energy, forces = label_of(atoms, "energy"), label_of(atoms, "forces")
    if energy is None or forces is None:
        missing = " and ".join(n for n, v in (("energy", energy), ("forces", forces)) if v is None)
        return _without_value(frame, source, f"the frame has no {missing}", settings)
    stress, magmoms = label_of(atoms, "stress"), label_of(atoms, "magmoms")
    stand_in = "stand-in" in str(settings.get("level", ""))
    label = Label(
        status="ok",
        energy=float(energy),
        free_energy=label_of(atoms, "free_energy"),
        forces=np.asarray(forces, dtype=float),
        stress=None if stress is None else np.asarray(stress, dtype=float),
        magmoms=None if magmoms is None else np.asarray(magmoms, dtype=float),
        provenance={"code": settings["code"], "energy_is": "as the file has it", "stand_in": stand_in,
                    "corrections": []},
    )  # fmt: skip
    return FoundLabel(frame=frame, label=label, source=source, settings=settings)


def _without_value(frame: Atoms, source: str, reason: str, settings: dict[str, Any]) -> FoundLabel:
    label = Label(status="failed", reason=reason, provenance={"code": settings["code"], "stand_in": False})
    return FoundLabel(frame=frame, label=label, source=source, settings=settings)
