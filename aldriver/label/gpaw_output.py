"""Reads GPAW's text logs (its older and its present form): every ionic step with its label, and what was computed how.

A log holds fewer digits than a running GPAW gives; labels made here come from ``gpaw.py``.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aldriver.core.units import matrix_to_voigt
from aldriver.label.base import Label
from aldriver.label.found import FoundLabel
from aldriver.label.packed import read_text

_N = r"[-+]?(?:\d+\.\d+(?:[eE][-+]?\d+)?|nan|inf)"
_BANNER = re.compile(r"\|__ \|  _\|___\|_____\|\s+(\S+)|\|__\|\|  \| \|\|/\\\| - (\S+)")
_STEP = re.compile(r"(?m)^(?:Atoms  # Å.*|Positions:.*)$")
_CONVERGED = re.compile(r"(?m)^Converged (?:in (\d+) steps|after (\d+) iterations)")


def scf_steps(text: str) -> int | None:
    """SCF iterations of the last cycle of a log."""
    found = re.findall(r"(?m)^\|?\s*iter:\s*(\d+)", text)
    return int(found[-1]) if found else None


def is_gpaw(text: str) -> bool:
    """Whether a text is a log of GPAW."""
    return _BANNER.search(text[:4000]) is not None


def read_gpaw(path: Path) -> list[FoundLabel]:
    """Each ionic step of a log as a label or a reason; a log without a step gives one reason, another file nothing.

    Whole steps are taken from a log without its closing table of timings, too: GPAW writes that table when its
    calculator is let go, which in many a script that ended well never happened.

    Raises
    ------
    OSError
        When the file cannot be read or unpacked.
    """
    path = Path(path)
    text = read_text(path)
    text = text[: text.rfind("\n") + 1]  # of a line that breaks off the last number may have lost digits
    if not is_gpaw(text):
        return []
    settings = _settings(text)
    starts = [m.start() for m in _STEP.finditer(text)]
    blocks = [text[a:b] for a, b in pairwise([*starts, len(text)])]
    # atoms are named once more when a calculation is set up anew before it began
    blocks = [b for k, b in enumerate(blocks) if k == len(blocks) - 1 or scf_steps(b) is not None]
    found: list[FoundLabel] = []
    cell: NDArray[np.float64] | None = None
    for number, block in enumerate(blocks):
        frame = _frame(block, cell)
        if frame is None:
            continue
        cell = np.asarray(frame.cell)
        source = str(path) if len(blocks) == 1 else f"{path}#step {number}"
        found.append(FoundLabel(frame=frame, label=_label(block, frame, settings), source=source, settings=settings))
    if not found:
        reason = "the log of GPAW ends before it names its atoms"
        found = [
            FoundLabel(frame=Atoms(), label=Label(status="failed", reason=reason), source=str(path), settings=settings)
        ]
    return found


def _label(block: str, frame: Atoms, settings: dict[str, Any]) -> Label:
    steps = scf_steps(block)
    about = {"code": "GPAW", "stand_in": False, "scf_steps": steps, "energy_is": "extrapolated to zero smearing"}
    about |= {k: settings.get(k) for k in ("version", "kpoints", "smearing", "functional", "pseudopotentials")}
    if (cutoff := settings.get("cutoff_eV")) is not None:
        about["cutoff"] = f"{cutoff:g} eV"
    if _CONVERGED.search(block) is None:
        if steps is not None and (limit := settings.get("max_scf_steps")) and steps >= limit:
            reason = f"the SCF did not converge in {steps} iterations"
            return Label(status="unconverged", reason=reason, provenance=about)
        return Label(status="failed", reason="the log of GPAW ends before the SCF converged", provenance=about)
    energy, free = _number(block, r"Extrapolated:"), _number(block, r"Free energy:")
    forces = _forces(block, len(frame))
    if energy is None or forces is None:
        missing = "energies" if energy is None else "(complete) forces"
        return Label(status="failed", reason=f"the log of GPAW holds no {missing}", provenance=about)
    moments = _moments(block, len(frame)) if settings.get("spin") else None
    total = re.findall(rf"(?m)^Total [Mm]agnetic [Mm]oment:\s*\(?(?:\s*{_N},\s*{_N},)?\s*({_N})", block)
    return Label(
        status="ok",
        energy=energy,
        free_energy=free,
        forces=forces,
        stress=_stress(block),
        magmoms=moments,
        provenance=about | {"magnetisation": float(total[-1]) if total and moments is not None else None},
    )


def _settings(text: str) -> dict[str, Any]:
    """What decides the numbers, from anywhere in the log; what it does not say is None."""
    banner = _BANNER.search(text[:4000])
    parameters = _between(text, "Input parameters:", "\n\n")
    functional = _first(parameters, r"xc=XC\(name='([^']+)'", r"(?m)^\s*xc:\s*(\S+)") or "LDA"
    grid = _first(text, r"Monkhorst-Pack size: \[([^\]]+)\]", r"(\d+ x \d+ x \d+) Monkhorst-Pack grid")
    limit = _first(text, r"maximum number of iterations: (\d+)", r"Maximum number of (?:scf )?\[?iter\]?ations: (\d+)")
    width = _first(text, r"width:\s*(\d+\.\d+)\s*# eV", r"width=(\d+\.\d+) eV")
    smearing = _first(text, r"(?m)^\s*(Fermi-Dirac|Marzari-Vanderbilt|Methfessel-Paxton)[ :]")
    cutoff = _first(text, r"Cutoff: ([\d.]+) eV", r"(?m)^\s*Plane wave .*?cutoff[^\d]*([\d.]+) eV", r"ecut: ([\d.]+)")
    ids = re.findall(r"(?m)^\s*([A-Z][a-z]?)(?:-setup)?:\s*\n\s*name\s*:.*\n\s*id\s*:\s*([0-9a-f]{32})", text)
    spin = _first(text, r"Spin-components: ([12])")
    return {
        "code": "GPAW",
        "version": None if banner is None else banner.group(1) or banner.group(2),
        "functional": functional,
        "hubbard": _first(parameters, r"(?s)setups\s*[=:]\s*(\{[^}]*:[spdf],[^}]*\})"),
        "mode": _mode(parameters),
        "cutoff_eV": None if cutoff is None else float(cutoff),
        "smearing": None if smearing is None else smearing.lower(),
        "width_eV": None if width is None else float(width),
        "kpoints": [int(n) for n in re.findall(r"\d+", grid)] if grid else [1, 1, 1],
        "spin": spin == "2" if spin else "Spin-polarized calculation" in text or "spinpol: True" in parameters,
        "pseudopotentials": dict(sorted(ids)),
        "max_scf_steps": None if limit is None else int(limit),
    }


def _mode(parameters: str) -> str:
    """Plane waves, a grid or atomic orbitals; of the latter two also basis and spacing, which decide their numbers."""
    said = re.search(r"(?m)^\s*mode\b(.*(?:\n {8,}.*)*)", parameters)
    words = said.group(1).lower() if said else ""
    if "pw" in words:
        return "pw"
    mode = "lcao" if "lcao" in words else "fd"
    basis = _first(parameters, r"(?m)^\s*basis\s*[=:]\s*(.+?),?\s*$") if mode == "lcao" else None
    spacing = _first(parameters, r"(?m)^\s*h\s*[=:]\s*([\d.]+)")
    return " ".join(x for x in (mode, basis, f"h {spacing}" if spacing else None) if x)


def _frame(block: str, cell: NDArray[np.float64] | None) -> Atoms | None:
    """Atoms and cell of a step; older logs name the cell once."""
    head = block.split("Converged", 1)[0]
    present = re.findall(rf"(?m)^\|\s*\d+\s*\|\s*([A-Z][a-z]?)\s*\|\s*({_N})\s*\|\s*({_N})\s*\|\s*({_N})\s*\|", head)
    older = re.findall(rf"(?m)^\s*\d+\s+([A-Z][a-z]?)\s+({_N})\s+({_N})\s+({_N})(?:\s+\(.*\))?\s*$", head)
    rows = present or older
    rows = [row for row in rows if row[0] in atomic_numbers]
    axes = re.findall(rf"(?m)^\|\s*(yes|no)\s*\|\s*({_N})\s*\|\s*({_N})\s*\|\s*({_N})\s*\|", head)
    axes = axes or re.findall(rf"(?m)^\s*\d\. axis:\s+(yes|no)\s+({_N})\s+({_N})\s+({_N})", head)
    if not rows or (len(axes) != 3 and cell is None):
        return None
    symbols = [row[0] for row in rows]
    positions = np.array([[float(x) for x in row[1:4]] for row in rows])
    if len(axes) == 3:
        pbc = [axis[0] == "yes" for axis in axes]
        return Atoms(symbols, positions, cell=[[float(x) for x in axis[1:]] for axis in axes], pbc=pbc)
    return Atoms(symbols, positions, cell=cell, pbc=True)


def _forces(block: str, n: int) -> NDArray[np.float64] | None:
    part = _after(block, r"(?m)^Forces(?:  # eV/Ang| in eV/Ang:)\s*$")
    rows = re.findall(rf"(?m)^\|\s*({_N})\s*\|\s*({_N})\s*\|\s*({_N})\s*\|\s*#", part)
    rows = rows or re.findall(rf"(?m)^\s*\d+\s+[A-Z][a-z]?\s+({_N})\s+({_N})\s+({_N})\s*$", part)
    return np.array(rows[:n], dtype=float) if len(rows) >= n else None


def _stress(block: str) -> NDArray[np.float64] | None:
    part = _after(block, r"(?m)^Stress tensor(?:  # eV/Ang\^3|:)\s*$")
    rows = re.findall(rf"(?m)^\|?\s*({_N})[\s|]+({_N})[\s|]+({_N})\s*\|?\s*$", part)
    return matrix_to_voigt(np.array(rows[:3], dtype=float)) if len(rows) >= 3 else None


def _moments(block: str, n: int) -> NDArray[np.float64] | None:
    part = _after(block, r"(?m)^Local magnetic moments:?\s*$")
    rows = re.findall(rf"(?m)^\|\s*{_N}\s*\|\s*{_N}\s*\|\s*({_N})\s*\|\s*#", part)
    rows = rows or re.findall(rf"(?m)^\s*\d+\s+[A-Z][a-z]?\s+\(\s*{_N},\s*{_N},\s*({_N})\)", part)
    return np.array(rows[:n], dtype=float) if len(rows) >= n else None


def _number(block: str, name: str) -> float | None:
    found = re.findall(rf"(?m)^\s*{name}\s*({_N})\s*$", block)
    return float(found[-1]) if found else None


def _first(text: str, *patterns: str) -> str | None:
    for pattern in patterns:
        match = re.search(pattern, text)
        if match:
            return match.group(1).strip()
    return None


def _between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def _after(text: str, heading: str) -> str:
    """What follows the last `heading`."""
    found = list(re.finditer(heading, text))
    return text[found[-1].end() :] if found else ""
