"""Text dumps of LAMMPS, frame by frame out of bytes that still grow.

Knows the format only: where the bytes come from is ``tail.py``'s business. The format is that of LAMMPS' manual, page
``dump``: ``custom`` and ``atom`` styles, with scaled and unwrapped coordinates, triclinic and general triclinic boxes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aldriver.core.errors import InputError

START = b"ITEM: TIMESTEP"
ANGSTROM = ("metal", "real")
"""LAMMPS units whose length is Å."""
_SCALED = ("xs", "ys", "zs"), ("xsu", "ysu", "zsu")
_PLAIN = ("x", "y", "z"), ("xu", "yu", "zu")
_BEFORE = re.compile(rb"\s*(?:ITEM: UNITS\s*\n(\S+)\s*)?(?:ITEM: TIME\s*\n\S+\s*)?")
"""What may stand before a frame: its units (once a file) and its time."""


@dataclass(frozen=True, kw_only=True)
class DumpFrame:
    """One complete frame of a dump, not yet made atoms.

    Attributes
    ----------
    step
        Time step.
    cell, origin, pbc
        (3, 3) and (3,) in Å, and which directions are periodic.
    columns
        Names of the columns of `rows`.
    rows
        One list of words per atom, in the order of the file.
    units
        What the dump says of its units, empty where it does not.
    """

    step: int
    cell: NDArray[np.float64]
    origin: NDArray[np.float64]
    pbc: tuple[bool, bool, bool]
    columns: tuple[str, ...]
    rows: list[list[bytes]] = field(repr=False)
    units: str = ""


def next_frame(data: bytes) -> tuple[DumpFrame | str | None, int]:
    """The first frame in `data`, and how many bytes it and what stands before it take.

    Returns
    -------
    frame
        A frame, a sentence on why the bytes taken hold none (a frame that broke off before the next one began, numbers
        that cannot be read), or None while no frame is complete.
    taken
        Bytes that are done with; 0 while no frame is complete.
    """
    start = data.find(START)
    if start < 0:
        # of text that is no dump, all but what may be the beginning of a frame is done with
        return (None, 0) if len(data) < 4096 else ("no frame of a LAMMPS dump in 4096 bytes", len(data) - len(START))
    before = _BEFORE.fullmatch(data[:start])
    if before is None:
        return f"{start} bytes before a frame are no part of one", start
    following = data.find(START, start + len(START))
    mine = data[start : following if following >= 0 else len(data)]
    end = start + len(mine)
    try:
        found, used = _parsed(mine, units=(before.group(1) or b"").decode())
    except (ValueError, IndexError) as error:
        return f"a frame cannot be read ({error})", end
    if found is not None:
        return found, start + used
    return ("a frame broke off before it was complete", end) if following >= 0 else (None, 0)


def _parsed(data: bytes, *, units: str) -> tuple[DumpFrame | None, int]:
    """The frame that `data` begins with and its length in bytes; None while its last line is not there."""
    step, n_atoms, head, at = None, None, b"", 0
    bounds: list[list[float]] = []
    while True:
        line, at = _line(data, at)
        if line is None:
            return None, 0
        if not line.startswith(b"ITEM:"):
            raise ValueError(f"expected ITEM:, found {line[:40].decode(errors='replace')!r}")
        item = line[5:].strip()
        if item.startswith(b"ATOMS"):
            columns = tuple(word.decode() for word in item.split()[1:])
            break
        wanted = 3 if item.startswith(b"BOX BOUNDS") else 1
        values = []
        for _ in range(wanted):
            value, at = _line(data, at)
            if value is None:
                return None, 0
            values.append(value)
        if item == b"TIMESTEP":
            step = int(values[0])
        elif item == b"NUMBER OF ATOMS":
            n_atoms = int(values[0])
        elif wanted == 3:
            head, bounds = item, [[float(word) for word in value.split()] for value in values]
    if step is None or n_atoms is None or not bounds:
        raise ValueError("TIMESTEP, NUMBER OF ATOMS or BOX BOUNDS is missing")
    if data.count(b"\n", at) < n_atoms:
        return None, 0
    rows = []
    for _ in range(n_atoms):
        end = data.index(b"\n", at)
        rows.append(data[at:end].split())
        at = end + 1
        if len(rows[-1]) != len(columns):
            raise ValueError(f"step {step}: a line of {len(rows[-1])} values for {len(columns)} columns")
    cell, origin, pbc = _box(head, bounds)
    frame = DumpFrame(step=step, cell=cell, origin=origin, pbc=pbc, columns=columns, rows=rows, units=units)
    return frame, at


def _line(data: bytes, at: int) -> tuple[bytes | None, int]:
    """The line that begins at `at` and where the next one begins; None while it has no end."""
    end = data.find(b"\n", at)
    return (None, at) if end < 0 else (data[at:end], end + 1)


def _box(
    head: bytes, bounds: list[list[float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[bool, bool, bool]]:
    """Cell, origin and periodicity of the three BOX BOUNDS lines."""
    words = head.decode().split()[2:]
    sides = [w for w in words if len(w) == 2 and set(w) <= set("pfsm")]
    periodic = [side == "pp" for side in sides[-3:]] if len(sides) >= 3 else [True] * 3
    pbc = (periodic[0], periodic[1], periodic[2])
    rows = np.array(bounds, dtype=float)
    if words[:2] == ["abc", "origin"]:  # general triclinic: three edge vectors, and the origin in the last column
        return rows[:, :3].copy(), rows[:, 3].copy(), pbc
    xy, xz, yz = rows[:, 2] if words[:3] == ["xy", "xz", "yz"] else (0.0, 0.0, 0.0)
    # the bounds are those of the box that encloses the tilted one (LAMMPS' manual, page Howto_triclinic)
    low = rows[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = rows[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    lx, ly, lz = high - low
    return np.array([[lx, 0.0, 0.0], [xy, ly, 0.0], [xz, yz, lz]]), low, pbc


def to_atoms(frame: DumpFrame, elements: Sequence[str] | None) -> Atoms:
    """Atoms of a frame in the order of their ids; ``info["step"]`` is set.

    Parameters
    ----------
    elements
        Chemical symbol of each atom type, in order; None to take the column ``element``.

    Raises
    ------
    InputError
        When the units are not in Å, there are no coordinates, or an atom's element is not known.
    """
    if frame.units and frame.units not in ANGSTROM:
        raise InputError(f"the dump is in LAMMPS units '{frame.units}'; lengths in Å are needed (units metal or real)")
    column = {name: k for k, name in enumerate(frame.columns)}
    order = range(len(frame.rows))
    if "id" in column:
        ids = [int(row[column["id"]]) for row in frame.rows]
        if len(set(ids)) < len(ids):
            raise InputError(f"step {frame.step}: two atoms have the same id")
        order = np.argsort(ids)  # type: ignore[assignment]
    rows = [frame.rows[k] for k in order]

    def numbers(names: Sequence[str]) -> NDArray[np.float64]:
        return np.array([[float(row[column[name]]) for name in names] for row in rows]).reshape(-1, 3)

    known = [names for names in (*_PLAIN, *_SCALED) if set(names) <= set(column)]
    if not known:
        raise InputError(
            f"the dump has no coordinates (columns {', '.join(frame.columns)}): dump x y z, xu yu zu or xs ys zs"
        )
    xyz = numbers(known[0])
    xyz = xyz @ frame.cell if known[0] in _SCALED else xyz - frame.origin
    atoms = Atoms(_symbols(rows, column, elements), positions=xyz, cell=frame.cell, pbc=frame.pbc)
    atoms.info["step"] = frame.step
    return atoms


def _symbols(rows: list[list[bytes]], column: dict[str, int], elements: Sequence[str] | None) -> list[str]:
    if "element" in column and (elements is None or "type" not in column):
        symbols = [row[column["element"]].decode(errors="replace") for row in rows]
        unknown = sorted({s for s in symbols if s not in atomic_numbers or s == "X"})
        if unknown:
            raise InputError(
                f"the dump's column `element` says {', '.join(unknown)}, which is no chemical symbol: name the element "
                "of each atom type with --elements, e.g. --elements 'Fe Cu'"
            )
        return symbols
    if "type" not in column:
        raise InputError("the dump has neither a column `element` nor `type`: it does not say what its atoms are")
    if elements is None:
        raise InputError(
            "the dump has no column `element`: name the element of each atom type with --elements, e.g. 'Fe Cu'"
        )
    types = [int(row[column["type"]]) for row in rows]
    beyond = sorted({t for t in types if not 1 <= t <= len(elements)})
    if beyond:
        raise InputError(
            f"atom type {', '.join(map(str, beyond))} has no element: --elements names {len(elements)} "
            f"({' '.join(elements)})"
        )
    return [elements[t - 1] for t in types]
