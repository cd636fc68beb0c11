"""The file OUTCAR of VASP 5 and 6: what vasprun.xml does not hold (moments, the end of the run), and steps of its own.

Whether a step is a label is ``vasp_output.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.units import kbar_to_ase, matrix_to_voigt
from aldriver.label.vasprun import IonicStep, open_text

_FLOAT = r"[-+]?(?:\d+\.?\d*(?:[eEdD][-+]?\d+)?|[Nn]a[Nn]|[Ii]nf(?:inity)?|\*+)"
_STEP = re.compile(r"-{5,} Iteration\s+(\d+)\(\s*(\d+)\)")
_TAGS = ("ENCUT", "NELM", "EDIFF", "ISMEAR", "SIGMA", "ISPIN", "NSW", "IBRION", "ISIF", "PSTRESS", "LDAU", "LREAL")


@dataclass(frozen=True, kw_only=True)
class Outcar:
    """What an OUTCAR says.

    Attributes
    ----------
    finished
        The timing table stands at its end.
    version
        e.g. ``6.4.2``.
    parameters
        Tags as VASP used them, where they are printed.
    symbols, potcars
        Element of each atom; TITEL of each POTCAR.
    steps
        Ionic steps with forces; their positions have five decimals.
    reached
        Of each step, whether the electronic loop says that EDIFF was reached.
    moments
        Of each step the (N,) site moments, µB, or None.
    total_moment
        Of the cell at the end, µB.
    """

    finished: bool = False
    version: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    symbols: tuple[str, ...] = ()
    potcars: tuple[str, ...] = ()
    n_kpoints: int = 0
    steps: tuple[IonicStep, ...] = ()
    reached: tuple[bool, ...] = ()
    moments: tuple[NDArray[np.float64] | None, ...] = ()
    total_moment: float | None = None
    stopped: bool = False

    def frame(self, step: IonicStep) -> Atoms:
        """Structure of a step; only for steps that have one."""
        return Atoms(symbols=list(self.symbols), positions=step.positions, cell=step.cell, pbc=True)


def read_outcar(path: Path) -> Outcar:
    """Read an OUTCAR (or .gz), also one that breaks off; what is not there is empty.

    Raises
    ------
    OSError
        When the file cannot be opened or unpacked.
    """
    try:
        with open_text(path) as handle:
            return parse_outcar(handle.read().decode(errors="replace"))
    except EOFError as error:
        raise OSError(f"{path}: the packed file breaks off") from error


def parse_outcar(text: str) -> Outcar:
    """Read the text of an OUTCAR; never raises."""
    head, chunks = _chunks(text)
    symbols = _symbols(head)
    read = [_read_step(chunk, cell_before, len(symbols)) for chunk, cell_before in chunks]
    kept = [(step, chunk) for step, (chunk, _) in zip(read, chunks, strict=True) if step is not None]
    version = re.match(r"\s*vasp\.(\S+)", text)
    totals = re.findall(rf"number of electron\s+{_FLOAT}\s+magnetization\s+({_FLOAT})", text)
    points = re.search(r"NKPTS\s*=\s*(\d+)", head)
    return Outcar(
        finished="General timing and accounting" in text,
        version=version.group(1) if version else "",
        parameters=_tags(head),
        symbols=symbols,
        potcars=tuple(t.strip() for t in dict.fromkeys(re.findall(r"TITEL\s*=\s*([^\n]+)", head))),
        n_kpoints=int(points.group(1)) if points else 0,
        steps=tuple(step for step, _ in kept),
        reached=tuple("aborting loop because EDIFF is reached" in chunk for _, chunk in kept),
        moments=tuple(_moments(chunk, len(symbols)) for _, chunk in kept),
        total_moment=_number(totals[-1]) if totals else None,
        stopped="hard stop encountered" in text,
    )


def _chunks(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The head, and the text of each ionic step with the text before it (where its cell stands if not in itself)."""
    starts: list[int] = []
    number = None
    for match in _STEP.finditer(text):
        if match.group(1) != number:
            number = match.group(1)
            starts.append(match.start())
    if not starts:
        return text, []
    head = text[: starts[0]]
    pieces = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    return head, [(piece, head) for piece in pieces]


def _read_step(chunk: str, head: str, n_atoms: int) -> IonicStep | None:
    rows = _table(chunk, "TOTAL-FORCE (eV/Angst)", 6)
    if rows is None or n_atoms == 0:
        return None
    complete = len(rows) == n_atoms
    free = re.findall(rf"free\s+energy\s+TOTEN\s*=\s*({_FLOAT})", chunk)
    zero = re.findall(rf"energy\s+without entropy\s*=\s*{_FLOAT}\s+energy\(sigma->0\)\s*=\s*({_FLOAT})", chunk)
    scf = [int(m.group(2)) for m in _STEP.finditer(chunk)]
    loop = [_number(x) for x in re.findall(rf"free energy\s+TOTEN\s*=\s*({_FLOAT})", chunk)]
    return IonicStep(
        positions=rows[:, :3] if complete else None,
        cell=_cell(chunk) if _cell(chunk) is not None else _cell(head),
        free_energy=_number(free[-1]) if free else None,
        energy=_number(zero[-1]) if zero else None,
        forces=rows[:, 3:] if complete else None,
        stress=_stress(chunk),
        n_scf=max(scf, default=0),
        change=abs(loop[-1] - loop[-2]) if len(loop) > 1 else None,
    )


def _table(chunk: str, title: str, columns: int) -> NDArray[np.float64] | None:
    start = chunk.rfind(title)
    if start < 0:
        return None
    rows = []
    for line in chunk[start:].splitlines()[2:]:
        words = re.findall(_FLOAT, line)
        if len(words) != columns or "-----" in line:
            break
        rows.append([_number(w) for w in words])
    return np.array(rows) if rows else None


def _cell(chunk: str) -> NDArray[np.float64] | None:
    start = chunk.rfind("direct lattice vectors")
    if start < 0:
        return None
    rows = [re.findall(_FLOAT, line)[:3] for line in chunk[start:].splitlines()[1:4]]
    if len(rows) != 3 or any(len(r) != 3 for r in rows):
        return None
    return np.array([[_number(w) for w in r] for r in rows])


def _stress(chunk: str) -> NDArray[np.float64] | None:
    """The line ``in kB`` (xx yy zz xy yz zx), of VASP's sign."""
    found = re.findall(r"(?m)^\s*in kB\s+(.*)$", chunk)
    words = re.findall(_FLOAT, found[-1]) if found else []
    if len(words) != 6:
        return None
    xx, yy, zz, xy, yz, zx = (_number(w) for w in words)
    return matrix_to_voigt(kbar_to_ase([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]]))


def _moments(chunk: str, n_atoms: int) -> NDArray[np.float64] | None:
    """Totals of the last table ``magnetization (x)`` of a step."""
    start = chunk.rfind("magnetization (x)")
    if start < 0:
        return None
    values: list[float] = []
    for line in chunk[start:].splitlines()[1:]:
        words = line.split()
        if words and words[0] == str(len(values) + 1) and len(words) >= 3:
            values.append(_number(words[-1]))
        elif values:
            break
    return np.array(values) if n_atoms and len(values) == n_atoms else None


def _symbols(head: str) -> tuple[str, ...]:
    """Element of each atom, from the POTCARs' own words and the number of ions of each type."""
    counts = re.search(r"ions per type =\s*([\d\s]+?)\n", head)
    names = re.findall(r"VRHFIN\s*=\s*([A-Z][a-z]?)", head) or re.findall(r"TITEL\s*=\s*\S+\s+([A-Z][a-z]?)", head)
    if counts is None:
        return ()
    numbers = [int(n) for n in counts.group(1).split()]
    if len(names) < len(numbers):
        return ()
    return tuple(name for name, n in zip(names, numbers, strict=False) for _ in range(n))


def _tags(head: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag in _TAGS:
        match = re.search(rf"(?m)^\s*(?:.*?[;\s])?{tag}\s*=\s*(\S+?);?(?:\s|$)", head)
        if match is None:
            continue
        word = match.group(1).rstrip(";")
        if word in ("T", "F"):
            found[tag] = word == "T"
            continue
        value = _number(word)
        found[tag] = word if np.isnan(value) else (int(value) if value == int(value) and "." not in word else value)
    return found


def _number(text: str) -> float:
    try:
        return float(text.replace("D", "E").replace("d", "e"))
    except ValueError:
        return float("nan")
