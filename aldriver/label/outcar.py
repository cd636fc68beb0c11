"""The file OUTCAR of VASP 5 and 6: what vasprun.xml does not hold (moments, the end of the run), and steps of its own.

Whether a step is a label is ``vasp_output.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.units import kbar_to_ase, matrix_to_voigt
from aldriver.label.packed import damage_as_oserror, open_packed
from aldriver.label.vasprun import IonicStep

_FLOAT = r"[-+]?(?:\d+\.?\d*(?:[eEdD][-+]?\d+)?|[Nn]a[Nn]|[Ii]nf(?:inity)?|\*+)"
_STEP = re.compile(r"-{5,} Iteration\s+(\d+)\(\s*(\d+)\)")
_BANNER = re.compile(r"\s?vasp\.\d")
_ML = re.compile(r"(?m)^.*(?:\bML FORCE on cell|TOTAL-FORCE \(eV/Angst\) \(ML\)|\bML FREE ENERGIE)")
"""Headings of what VASP's machine-learned force field says between the steps of DFT."""
_TAGS = ("ENCUT", "NELM", "EDIFF", "ISMEAR", "SIGMA", "ISPIN", "NSW", "IBRION", "ISIF", "PSTRESS", "LDAU", "LREAL",
         "ICHARG", "IALGO", "ALGO", "LNONCOLLINEAR", "LSORBIT", "GGA", "METAGGA", "LHFCALC", "AEXX", "HFSCREEN", "IVDW",
         "LUSE_VDW", "NELECT")  # fmt: skip


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
        Of the cell at the end, µB; of a non-collinear run its length, as are `moments`.
    machine_learned
        A machine-learned force field took part. Its own steps are left out.
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
    machine_learned: bool = False

    def frame(self, step: IonicStep) -> Atoms:
        """Structure of a step; only for steps that have one."""
        return Atoms(symbols=list(self.symbols), positions=step.positions, cell=step.cell, pbc=True)


def read_outcar(path: Path) -> list[Outcar]:
    """Read the runs of an OUTCAR (also packed), also one that breaks off; what is not there is empty.

    A file may hold several runs that were appended to one another. It is read as a stream: an MD run may be large.

    Raises
    ------
    OSError
        When the file cannot be opened or unpacked.
    """
    with damage_as_oserror(path), open_packed(path) as handle:
        lines = TextIOWrapper(handle, encoding="utf-8", errors="replace")  # type: ignore[type-var]
        return [_read_run(chunks) for chunks in _runs(lines)]


def _runs(lines: Iterable[str]) -> Iterator[Iterator[str]]:
    """The runs of a file, each as its head and the text of each ionic step; each must be used up before the next."""
    waiting = iter(lines)
    first = next(waiting, None)
    while first is not None:
        rest: list[str] = []
        yield _chunks(first, waiting, rest)
        first = rest[0] if rest else None


def _chunks(first: str, lines: Iterator[str], rest: list[str]) -> Iterator[str]:
    """Head and ionic steps; the line that begins the next run goes to `rest`."""
    number, kept = None, [first]
    for line in lines:
        if _BANNER.match(line):
            rest.append(line)
            break
        match = _STEP.search(line)
        if match is not None and match.group(1) != number:
            yield "".join(kept)
            number, kept = match.group(1), []
        kept.append(line)
    yield "".join(kept)


def _read_run(chunks: Iterator[str]) -> Outcar:
    head = next(chunks)
    symbols, cell = _symbols(head), _cell(head)
    found = {"steps": [], "reached": [], "moments": []}  # type: dict[str, list[Any]]
    version = re.match(r"\s*vasp\.(\S+)", head)
    points = re.search(r"NKPTS\s*=\s*(\d+)", head)
    total: str | None = None
    ending, learned = head, " ML TOTEN" in head
    for chunk in chunks:
        ending = chunk
        totals = re.findall(rf"number of electron\s+{_FLOAT}\s+magnetization((?:[ \t]+{_FLOAT})+)", chunk)
        total = totals[-1] if totals else total
        mine = _ML.split(chunk, maxsplit=1)
        learned |= len(mine) > 1
        step = _read_step(mine[0], cell, len(symbols))
        if step is not None:
            found["steps"].append(step)
            found["reached"].append("aborting loop because EDIFF is reached" in chunk)
            found["moments"].append(_moments(mine[0], len(symbols)))
    return Outcar(
        finished="General timing and accounting" in ending,
        version=version.group(1) if version else "",
        parameters=_tags(head),
        symbols=symbols,
        potcars=tuple(t.strip() for t in dict.fromkeys(re.findall(r"TITEL\s*=\s*([^\n]+)", head))),
        n_kpoints=int(points.group(1)) if points else 0,
        total_moment=None if total is None else _length([_number(x) for x in total.split()]),
        stopped="hard stop encountered" in ending,
        machine_learned=learned,
        **{name: tuple(values) for name, values in found.items()},
    )


def _length(components: Sequence[float]) -> float:
    """A moment as printed, or the length of one of three components (non-collinear)."""
    return components[0] if len(components) == 1 else float(np.linalg.norm(components))


def _read_step(chunk: str, cell: NDArray[np.float64] | None, n_atoms: int) -> IonicStep | None:
    rows = _table(chunk, "TOTAL-FORCE (eV/Angst)", 6)
    if rows is None or n_atoms == 0:
        return None
    complete = len(rows) == n_atoms
    free = re.findall(rf"free\s+energy\s+TOTEN\s*=\s*({_FLOAT})", chunk)
    zero = re.findall(rf"energy\s+without entropy\s*=\s*{_FLOAT}\s+energy\(sigma->0\)\s*=\s*({_FLOAT})", chunk)
    scf = [int(m.group(2)) for m in _STEP.finditer(chunk)]
    own = _cell(chunk)
    loop = [_number(x) for x in re.findall(rf"free energy\s+TOTEN\s*=\s*({_FLOAT})", chunk)]
    return IonicStep(
        positions=rows[:, :3] if complete else None,
        cell=cell if own is None else own,
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
    """Site moments of a step: totals of ``magnetization (x)``; the length where there are (y) and (z) too."""
    axes = [_last_column(chunk, f"magnetization ({axis})", n_atoms) for axis in "xyz"]
    known = [a for a in axes if a is not None]
    return axes[0] if len(known) < 3 else np.asarray(np.linalg.norm(known, axis=0), dtype=np.float64)


def _last_column(chunk: str, title: str, n_atoms: int) -> NDArray[np.float64] | None:
    start = chunk.rfind(title)
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
    """Tags as VASP lists them below INCAR's own words, which count only for what is listed nowhere else."""
    found: dict[str, Any] = {}
    for tag in _TAGS:
        words = re.findall(rf"(?m)^\s*(?:.*?[;\s])?{tag}\s*=\s*([^\s;]+)", head)
        if tag == "METAGGA":  # its name, and once more whether it is self-consistent
            words = [w for w in words if w not in ("T", "F")]
        if not words or words[-1] == "--":
            continue
        word = words[-1].strip(".").upper()
        if word in ("T", "F", "TRUE", "FALSE"):
            found[tag] = word.startswith("T")
            continue
        value = _number(words[-1])
        whole = not np.isnan(value) and value == int(value) and "." not in words[-1]
        found[tag] = words[-1] if np.isnan(value) else int(value) if whole else value
    strengths = re.findall(r"(?m)LDAUU\s*=\s*((?:[-\d.]+[ \t]*)+)$", head)
    if strengths:
        found["LDAU"], found["LDAUU"] = True, [_number(x) for x in strengths[-1].split()]
    return found


def _number(text: str) -> float:
    try:
        return float(text.replace("D", "E").replace("d", "e"))
    except ValueError:
        return float("nan")
