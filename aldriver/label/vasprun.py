"""The file vasprun.xml of VASP 5 and 6: every ionic step with its energies, forces, stress and electronic steps.

It says what stands in the file; whether a step is a label is ``vasp_output.py``. The file is read as a stream, so that
one that breaks off still shows how far it came, and densities of states cost no memory.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.units import kbar_to_ase, matrix_to_voigt
from aldriver.label.packed import open_packed

_HEAVY = ("dos", "projected", "dielectricfunction", "proc", "time")


@dataclass(frozen=True, kw_only=True)
class IonicStep:
    """One ionic step.

    Attributes
    ----------
    positions, cell
        (N, 3) and (3, 3), Å; the positions are Cartesian and those of the file, not wrapped.
    free_energy, energy
        F = E − TS (the forces derive from it) and E(σ→0), eV.
    forces, stress
        (N, 3) eV/Å; (6,) Voigt, eV/Å³, ASE sign, or None.
    n_scf
        Electronic steps.
    change
        |ΔF| of the last two electronic steps, eV; None when there was only one.
    """

    positions: NDArray[np.float64] | None
    cell: NDArray[np.float64] | None
    free_energy: float | None
    energy: float | None
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    n_scf: int
    change: float | None


@dataclass(frozen=True, kw_only=True)
class Vasprun:
    """What a vasprun.xml says.

    Attributes
    ----------
    complete
        Whether the closing tag was reached; `error` says what the reader stumbled over otherwise.
    program, version
        Of the generator.
    incar, parameters
        What was set, and everything as VASP used it.
    kpoints
        Divisions of the grid, or None for a list of points; `kpoints_scheme` names it.
    symbols, potcars
        Element of each atom; TITEL of each POTCAR.
    steps
        Finished ionic steps.
    """

    complete: bool
    error: str = ""
    program: str = ""
    version: str = ""
    incar: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    kpoints: tuple[int, int, int] | None = None
    kpoints_scheme: str = ""
    n_kpoints: int = 0
    symbols: tuple[str, ...] = ()
    potcars: tuple[str, ...] = ()
    steps: tuple[IonicStep, ...] = ()
    partial_occupations: bool = False

    def frame(self, step: IonicStep) -> Atoms:
        """Structure of a step; only for steps that have one."""
        return Atoms(symbols=list(self.symbols), positions=step.positions, cell=step.cell, pbc=True)


def read_vasprun(path: Path) -> Vasprun:
    """Read a vasprun.xml (or .gz); never raises for what is in the file.

    Raises
    ------
    OSError
        When the file cannot be opened.
    """
    reader = _Reader()
    error = ""
    with open_packed(path) as handle:
        try:
            for event, element in ElementTree.iterparse(handle, events=("start", "end")):
                reader.start(element) if event == "start" else reader.end(element)
        except (ElementTree.ParseError, UnicodeDecodeError, ValueError, KeyError) as e:
            error = f"{type(e).__name__}: {e}"
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as e:  # a damaged stream
            error = f"it cannot be unpacked: {e}"
    return Vasprun(complete=reader.closed and not error, error=error, steps=tuple(reader.steps), **reader.found)


class _Reader:
    """Collects what the elements of the file say as they close."""

    def __init__(self) -> None:
        self.closed = False
        self.found: dict[str, Any] = {}
        self.steps: list[IonicStep] = []
        self._scf: list[tuple[float | None, float | None]] = []
        self._path: list[str] = []

    def start(self, element: ElementTree.Element) -> None:
        self._path.append(element.tag)
        if element.tag == "calculation":
            self._scf = []

    def end(self, element: ElementTree.Element) -> None:
        self._path.pop()
        parent = self._path[-1] if self._path else ""
        handler = getattr(self, f"_{element.tag}", None)
        if parent in ("modeling", "") and handler is not None:
            handler(element)
            element.clear()
        elif element.tag == "scstep" and parent == "calculation":
            energy = element.find("energy")
            self._scf.append((_energy(energy, "e_fr_energy"), _energy(energy, "e_0_energy")))
            element.clear()
        elif element.tag == "eigenvalues" and parent == "calculation":
            self.found["partial_occupations"] = _partial(element)
            element.clear()
        elif element.tag in _HEAVY:
            element.clear()

    def _modeling(self, _: ElementTree.Element) -> None:
        self.closed = True

    def _generator(self, element: ElementTree.Element) -> None:
        words = {i.get("name"): (i.text or "").strip() for i in element.findall("i")}
        self.found |= {"program": words.get("program", ""), "version": words.get("version", "")}

    def _incar(self, element: ElementTree.Element) -> None:
        self.found["incar"] = _parameters(element)

    def _parameters(self, element: ElementTree.Element) -> None:
        self.found["parameters"] = _parameters(element)

    def _kpoints(self, element: ElementTree.Element) -> None:
        generation = element.find("generation")
        points = element.find("varray[@name='kpointlist']")
        self.found["n_kpoints"] = 0 if points is None else len(points)
        if generation is not None:
            self.found["kpoints_scheme"] = generation.get("param", "")
            divisions = generation.find("v[@name='divisions']")
            if divisions is not None and len((divisions.text or "").split()) == 3:
                self.found["kpoints"] = tuple(int(float(w)) for w in (divisions.text or "").split())

    def _atominfo(self, element: ElementTree.Element) -> None:
        atoms = element.findall("array[@name='atoms']/set/rc")
        self.found["symbols"] = tuple(_symbol(rc[0].text) for rc in atoms)
        types = element.findall("array[@name='atomtypes']/set/rc")
        self.found["potcars"] = tuple((rc[-1].text or "").strip() for rc in types)

    def _calculation(self, element: ElementTree.Element) -> None:
        fr = _energy(element.find("energy"), "e_fr_energy")
        known = [(f, e) for f, e in self._scf if f is not None and e is not None]
        energy = _energy(element.find("energy"), "e_0_energy")
        if fr is not None and known:
            # VASP 5 swaps fields of the final energies (e_0 becomes 0); those of the last electronic step are right
            energy = fr + known[-1][1] - known[-1][0]  # type: ignore[operator]
        cell, positions = _structure(element.find("structure"))
        stress = _matrix(element.find("varray[@name='stress']"))
        self.steps.append(
            IonicStep(
                positions=positions,
                cell=cell,
                free_energy=fr,
                energy=energy,
                forces=_matrix(element.find("varray[@name='forces']")),
                stress=None if stress is None or stress.shape != (3, 3) else matrix_to_voigt(kbar_to_ase(stress)),
                n_scf=len(self._scf),
                change=abs(known[-1][0] - known[-2][0]) if len(known) > 1 else None,  # type: ignore[operator]
            )
        )


def _symbol(text: str | None) -> str:
    """Element of an atom; VASP cuts names at two characters and older versions write ``r`` for Zr."""
    symbol = (text or "").strip()
    return {"r": "Zr", "X": "Xe"}.get(symbol, symbol)


def _number(text: str | None) -> float:
    """Fortran number; stars (too wide for its field) and words are NaN."""
    try:
        return float((text or "").replace("D", "E").replace("d", "e"))
    except ValueError:
        return float("nan")


def _energy(element: ElementTree.Element | None, name: str) -> float | None:
    found = None if element is None else element.find(f"i[@name='{name}']")
    return None if found is None else _number(found.text)


def _matrix(element: ElementTree.Element | None) -> NDArray[np.float64] | None:
    """Rows of an array, or None when it is missing, empty or ragged."""
    if element is None:
        return None
    rows = [[_number(w) for w in (v.text or "").split()] for v in element.findall("v")]
    if not rows or any(len(r) != 3 for r in rows):
        return None
    return np.array(rows)


def _structure(
    element: ElementTree.Element | None,
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Cell and Cartesian positions, Å."""
    if element is None:
        return None, None
    cell = _matrix(element.find("crystal/varray[@name='basis']"))
    scaled = _matrix(element.find("varray[@name='positions']"))
    return cell, None if cell is None or scaled is None else scaled @ cell


def _partial(element: ElementTree.Element) -> bool:
    """Whether a level is neither full nor empty (a metal, or an insulator whose smearing reaches over its gap)."""
    full = [
        occupation
        for row in element.iter("r")
        if len(words := (row.text or "").split()) >= 2 and (occupation := _number(words[1])) > 1e-3
    ]
    top = max(full, default=1.0)
    return any(occupation < top * (1 - 1e-3) for occupation in full)


def _parameters(element: ElementTree.Element) -> dict[str, Any]:
    """Tags by name; of one that stands twice the first counts (later ones are of linear response and the like)."""
    found: dict[str, Any] = {}
    for item in element.iter():
        name = item.get("name")
        if item.tag not in ("i", "v") or name is None or name in found:
            continue
        kind, text = item.get("type"), (item.text or "").strip()
        words = text.split()
        values: list[Any]
        if kind == "string":
            values = [text]
        elif kind == "logical":
            values = [w.strip(".").upper().startswith("T") for w in words]
        elif kind == "int":
            values = [int(x) if np.isfinite(x := _number(w)) else None for w in words]
        else:
            values = [_number(w) for w in words]
        found[name] = values if item.tag == "v" else (values[0] if values else None)
    return found
