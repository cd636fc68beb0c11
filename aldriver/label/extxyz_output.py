"""Labelled frames of somebody else in extended XYZ files: each frame with energy and forces is a label.

Owns what such a file can be trusted to say. It names a level of theory only where its frames do
(``info['level']``, ``functional`` and the like); spin, cutoff and pseudopotentials stay unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import StringIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import read_xyz
from numpy.typing import NDArray

from aldriver.core.frames import bare
from aldriver.core.units import matrix_to_voigt
from aldriver.label.base import Label
from aldriver.label.found import FoundLabel
from aldriver.label.packed import damage_as_oserror, open_packed

_LEVEL_WORDS = ("level", "method", "functional", "xc", "code")
_MARKS = ("ref_", "dft_", "vasp_", "qm_", "")
"""Beginnings of the keys of reference values, in the order they are looked for; those of a model may stand beside."""
_NAMES: Mapping[str, tuple[str, ...]] = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "free_energy": ("free_energy",),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
    "magmoms": ("magmoms", "magmom"),
}


def read_extxyz(path: Path) -> list[FoundLabel]:
    """Every frame of an extended XYZ file (also packed); one that cannot be read is a reason, the others stand."""
    path = Path(path)
    found: list[FoundLabel] = []
    try:
        with damage_as_oserror(path), open_packed(path) as handle:
            for k, frame in enumerate(_frames(handle)):
                source = f"{path}#frame {k}"
                if isinstance(frame, str):
                    found.append(_without_value(Atoms(), source, frame, {"code": "unknown"}))
                else:
                    found.append(_label(frame, source))
    except OSError as error:
        found.append(_without_value(Atoms(), f"{path}#frame {len(found)}", str(error), {"code": "unknown"}))
    return found or [_without_value(Atoms(), str(path), "the file holds no frames", {"code": "unknown"})]


def _frames(handle: IO[bytes]) -> Iterator[Atoms | str]:
    """The frames, or why one is none; a number of atoms that cannot be read ends them."""
    with TextIOWrapper(handle, encoding="utf-8", errors="replace") as lines:  # type: ignore[type-var]
        for k, first in enumerate(line for line in lines if line.strip()):
            if not first.strip().isdigit():
                yield f"frame {k} does not begin with a number of atoms, but with '{first.strip()[:40]}'"
                return
            block = [first, *islice(lines, int(first) + 1)]
            if len(block) < int(first) + 2:
                yield f"the file breaks off in frame {k}"
                return
            try:
                yield next(iter(read_xyz(StringIO("".join(block)), index=slice(0, 1))))
            except Exception as error:
                yield f"frame {k} cannot be read as extended XYZ: {type(error).__name__}: {error}"


def _label(atoms: Atoms, source: str) -> FoundLabel:
    results = {} if atoms.calc is None else dict(atoms.calc.results)
    said = {str(key).lower(): value for key, value in {**atoms.arrays, **atoms.info, **results}.items()}
    settings: dict[str, Any] = {"code": "unknown"}
    settings |= {word: str(said[word]) for word in _LEVEL_WORDS if word in said}
    frame = bare(atoms)
    if len(frame) == 0:
        return _without_value(frame, source, "the frame has no atoms", settings)
    for mark in _MARKS:  # never an energy of one source with forces of another
        values = {key: v for key, names in _NAMES.items() if (v := _first(said, mark, names)) is not None}
        if "energy" in values and "forces" in values:
            break
    else:
        missing = " and ".join(key for key in ("energy", "forces") if key not in values)
        return _without_value(frame, source, f"the frame has no {missing or 'energy and forces'}", settings)
    stress, caution = _stress(values, frame)
    label = Label(
        status="ok",
        energy=float(values["energy"]),
        free_energy=float(values["free_energy"]) if "free_energy" in values else None,
        forces=np.asarray(values["forces"], dtype=float),
        stress=stress,
        magmoms=np.asarray(values["magmoms"], dtype=float) if "magmoms" in values else None,
        provenance={"code": settings["code"], "energy_is": f"{mark}energy, as the file has it",
                    "stand_in": "stand-in" in settings.get("level", ""), "corrections": []}
        | ({"caution": caution} if caution else {}),
    )  # fmt: skip
    return FoundLabel(frame=frame, label=label, source=source, settings=settings)


def _first(said: Mapping[str, Any], mark: str, names: tuple[str, ...]) -> Any:
    return next((said[mark + name] for name in names if mark + name in said), None)


def _stress(values: Mapping[str, Any], frame: Atoms) -> tuple[NDArray[np.float64] | None, str]:
    """Stress (6,), eV/Å³ of ASE's sign, from ``stress`` or the ``virial`` −V·σ (eV); None where they contradict."""
    found = []
    for key in ("stress", "virial"):
        value = np.asarray(values.get(key, ()), dtype=float)
        if value.size == 9:
            value = matrix_to_voigt(value.reshape(3, 3))
        if value.size != 6:
            continue
        if key == "stress":
            found.append(value)
        elif np.ndim(values[key]) == 2 and frame.cell.rank == 3:  # six numbers of a virial have no agreed order
            found.append(-value / frame.get_volume())
    if len(found) == 2 and np.abs(found[0] - found[1]).max() > 1e-3 + 0.01 * np.abs(found[1]).max():
        return None, "stress left out: 'stress' and 'virial' of the frame contradict each other (sign or unit)"
    return (found[0], "") if found else (None, "")


def _without_value(frame: Atoms, source: str, reason: str, settings: dict[str, Any]) -> FoundLabel:
    label = Label(status="failed", reason=reason, provenance={"code": settings["code"], "stand_in": False})
    return FoundLabel(frame=frame, label=label, source=source, settings=settings)
