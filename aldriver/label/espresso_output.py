"""Finished outputs of Quantum ESPRESSO's pw.x as labels: one for each ionic step of an SCF, a relaxation or an MD run.

Owns the cut of an output into ionic steps with the structure of each; the numbers of a step are read by ``pwio.py``.
Runs nothing and judges no value (``gate.py`` does).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aldriver.label.base import Label, Status
from aldriver.label.found import FoundLabel
from aldriver.label.gate import TETRAHEDRA
from aldriver.label.packed import read_text
from aldriver.label.pwio import PwOutput, parse_pw_output
from aldriver.label.upf import normalise_functional

_NUMBER = r"[-+]?\d+\.\d*(?:[eEdD][-+]?\d+)?"
_BANNER = re.compile(r"(?m)^\s*Program PWSCF\s")
_SCF_END = re.compile(r"(?m)^!\s+total energy|convergence NOT achieved")
_START = re.compile(r"(?m)^\s*Self-consistent Calculation\s*$")
_AXES = re.compile(r"crystal axes:.*\n((?:\s*a\(\d\)\s*=\s*\(.*\n){3})")
_SITES = re.compile(r"positions \((?:alat|a_0) units\)\s*\n((?:\s*\d+\s+\S+\s+tau\(\s*\d+\)\s*=\s*\(.*\n)+)")
_REFINED = "EXX: now go back to refine exchange calculation"
_CELL = re.compile(r"CELL_PARAMETERS\s*[({]?\s*(\w+)(?:\s*=\s*([\d.]+))?\s*[)}]?\s*\n((?:[^\n]*\n){3})")
_POSITIONS = re.compile(
    r"ATOMIC_POSITIONS\s*[({]?\s*(\w+)\s*[)}]?\s*\n((?:[ \t]*[A-Za-z]\S*(?:[ \t]+\S+){3,6}[ \t]*\n)+)"
)


def read_espresso(path: Path) -> list[FoundLabel]:
    """Labels of one pw.x output (``.out``, ``.pwo``; also gzipped); never empty and never raises for what it holds.

    A run gives one entry for each ionic step. When it did not come to its end, the last entry is ``failed`` and says
    why; the steps before it are whole. A file may hold several runs (restarts appended to one another).
    """
    path = Path(path)
    text = read_text(path)
    starts = [m.start() for m in _BANNER.finditer(text)] or [0]
    found: list[FoundLabel] = []
    for k, start in enumerate(starts):
        end = starts[k + 1] if k + 1 < len(starts) else len(text)
        name = str(path) if len(starts) == 1 else f"{path}#run {k}"
        # what precedes the first banner (errors of MPI, say) belongs to the first run
        found += _read_run(text[0 if k == 0 else start : end], path, name)
    return found


def _read_run(text: str, path: Path, name: str) -> list[FoundLabel]:
    whole = parse_pw_output(text)
    settings = _settings(text, path)
    problem = _run_problem(whole)
    beside = [a for a in (_xml_start(path), _input_start(path)) if a is not None]
    found = []
    steps = list(_steps(text))
    for k, (frame, part) in enumerate(steps):
        if k == 0:  # input and data file have more digits than the output
            frame = next((b for b in beside if frame is None or _same_structure(frame, b)), frame)
        source = name if len(steps) == 1 else f"{name}#step {k}"
        if problem and k == len(steps) - 1:
            found.append(_without_value(frame, source, *problem, settings))
        else:
            found.append(_step(frame, part, whole, source, settings))
    if not found:
        reason = problem or ("failed", "the output holds no self-consistent calculation")
        found = [_without_value(None, name, *reason, settings)]
    return found


def _run_problem(whole: PwOutput) -> tuple[Status, str] | None:
    """Status and reason when the run as a whole did not come to its end."""
    if whole.error is not None:
        return "failed", whole.verdict()[1] if whole.converged is not False else f"pw.x stopped: {whole.error}"
    if whole.version is None:
        return "failed", "there is no output of pw.x (its banner is missing)"
    if whole.out_of_time:
        return "failed", "pw.x stopped at its own time limit"
    if not whole.finished:
        return "failed", "truncated: the output ends before 'JOB DONE'; pw.x was interrupted"
    return None


def _steps(text: str) -> Iterator[tuple[Atoms | None, str]]:
    """Structure and text of each self-consistent calculation.

    The structure of a calculation is printed before its energy, and that of the next one after it: a step begins where
    the first structure or calculation is announced after the end of the one before.
    """
    marks = sorted(m.start() for r in (_START, _CELL, _POSITIONS) for m in r.finditer(text))
    ends = [m.start() for m in _SCF_END.finditer(text)]
    bounds = [0]
    for mark in marks:
        before = bisect_left(ends, mark) - 1
        # a hybrid functional repeats its calculation until the exchange is right too: still one step
        if before >= 0 and ends[before] > bounds[-1] and text.find(_REFINED, ends[before], mark) < 0:
            bounds.append(mark)
    geometry = _Geometry()
    for start, stop in zip(bounds, [*bounds[1:], len(text)], strict=True):
        part = text[start:stop]
        end = _SCF_END.search(part)
        geometry.read(part if end is None else part[: end.start()])
        if end is not None or _START.search(part):
            yield geometry.atoms(), part.rpartition(_REFINED)[2]


class _Geometry:
    """The latest cell (Å), symbols and positions (Å) that an output has printed."""

    def __init__(self) -> None:
        self.alat: float | None = None
        self.cell: NDArray[np.float64] | None = None
        self.symbols: list[str] = []
        self.positions: NDArray[np.float64] | None = None

    def read(self, text: str) -> None:
        """Take over what `text` prints."""
        alat = re.findall(rf"celldm\(1\)=\s*({_NUMBER})", text)
        if alat and float(alat[-1]) > 0:
            self.alat = float(alat[-1]) * units.Bohr
        for match in sorted(
            [*_AXES.finditer(text), *_SITES.finditer(text), *_CELL.finditer(text), *_POSITIONS.finditer(text)],
            key=lambda m: m.start(),
        ):
            self._take(match)

    def _take(self, match: re.Match[str]) -> None:
        if match.re is _AXES and self.alat:
            self.cell = _rows(match.group(1)) * self.alat
        elif match.re is _SITES and self.alat:
            lines = match.group(1).splitlines()
            self.symbols = [_symbol(line.split()[1]) for line in lines]
            self.positions = _rows("\n".join(line.split("=", 1)[1] for line in lines)) * self.alat
        elif match.re is _CELL:
            self.cell = _rows(match.group(3)) * self._unit(match.group(1), match.group(2))
        elif match.re is _POSITIONS:
            words = [line.split() for line in match.group(2).splitlines()]
            values = np.array([[float(x) for x in w[1:4]] for w in words])
            self.symbols = [_symbol(w[0]) for w in words]
            if match.group(1) == "crystal":
                self.positions = None if self.cell is None else values @ self.cell
            else:
                self.positions = values * self._unit(match.group(1), None)

    def _unit(self, name: str, alat_bohr: str | None) -> float:
        if name == "alat":
            return float(alat_bohr) * units.Bohr if alat_bohr else (self.alat or float("nan"))
        return units.Bohr if name == "bohr" else 1.0

    def atoms(self) -> Atoms | None:
        """The structure, or None while it is not complete."""
        if self.cell is None or self.positions is None or "" in self.symbols:
            return None
        if not np.isfinite(self.cell).all() or not np.isfinite(self.positions).all():
            return None
        return Atoms(self.symbols, positions=self.positions, cell=self.cell, pbc=True)


def _symbol(label: str) -> str:
    """Chemical symbol of a pw.x label such as ``Fe1``, ``fe_up`` or ``O2``; empty when it is none."""
    letters = re.match(r"[A-Za-z]{1,2}", label)
    for length in (2, 1):
        candidate = letters.group(0)[:length].capitalize() if letters else ""
        if len(candidate) == length and candidate in atomic_numbers:
            return candidate
    return ""


def _rows(text: str) -> NDArray[np.float64]:
    cleaned = re.sub(r"a\(\d\)\s*=", " ", text)
    return np.array([[float(x) for x in re.findall(_NUMBER, line)[:3]] for line in cleaned.strip().splitlines()])


def _step(frame: Atoms | None, part: str, whole: PwOutput, source: str, settings: dict[str, Any]) -> FoundLabel:
    """One ionic step: the numbers of its own part of the text, what is common from the whole."""
    if frame is None:
        return _without_value(None, source, "failed", "the structure cannot be read from the output", settings)
    # the number of atoms stands in the header, before the first step
    head = f"     number of atoms/cell      =            {len(frame)}\n"
    if whole.threshold_Ry is not None:
        head += f"     convergence threshold     =      {whole.threshold_Ry:.1E}\n"
    own = replace(parse_pw_output(head + part), version=whole.version, finished=True, out_of_time=False, error=None)
    status: Status
    status, reason = own.verdict()
    if status == "ok" and settings.get("smearing") == "tetrahedra" and not _gapped(part, settings.get("electrons")):
        status, reason = "rejected", TETRAHEDRA  # those without Bloechl's corrections have right forces
    provenance = {
        "code": "Quantum ESPRESSO pw.x",
        "version": whole.version,
        "energy_is": "free energy F = E - TS (what the forces derive from)",
        "minus_TS_eV": own.minus_ts,
        "scf_steps": own.n_scf,
        "magnetisation": own.total_magnetization,
        "absolute_magnetisation": _absolute_magnetisation(part),
        "stand_in": False,
        "corrections": [],
    } | {k: settings[k] for k in ("kpoints", "cutoff_eV", "smearing", "pseudopotentials") if k in settings}
    ok = status == "ok"
    label = Label(
        status=status,
        reason=reason,
        energy=own.energy if ok else None,
        free_energy=own.energy if ok else None,
        forces=own.forces if ok else None,
        stress=own.stress if ok else None,
        magmoms=own.magmoms if ok else None,
        provenance=provenance,
    )
    return FoundLabel(frame=frame, label=label, source=source, settings=settings)


def _gapped(part: str, electrons: float | None) -> bool:
    """Whether the printed bands of a calculation without spin have a gap: the occupations are whole numbers then."""
    bands = [
        [float(x) for x in re.findall(_NUMBER, block)]
        for block in re.findall(r"bands \(ev\):\s*\n\n((?:[ \t]+[-+\d. \t]+\n)+)", part)
    ]
    if not bands or electrons is None or "SPIN" in part or electrons % 2:
        return False
    filled = int(electrons) // 2
    return all(len(b) > filled for b in bands) and max(b[filled - 1] for b in bands) < min(b[filled] for b in bands)


def _without_value(
    frame: Atoms | None, source: str, status: Status, reason: str, settings: dict[str, Any]
) -> FoundLabel:
    label = Label(status=status, reason=reason, provenance={"code": "Quantum ESPRESSO pw.x", "stand_in": False})
    return FoundLabel(frame=frame or Atoms(), label=label, source=source, settings=settings)


def _absolute_magnetisation(text: str) -> float | None:
    found = re.findall(rf"absolute magnetization\s*=\s*({_NUMBER})", text)
    return float(found[-1]) if found else None


def _settings(text: str, path: Path) -> dict[str, Any]:
    """What decides the numbers, as pw.x echoed it; the k grid from the XML or the input that may lie beside."""
    settings: dict[str, Any] = {"code": "Quantum ESPRESSO"}
    functional = re.search(r"Exchange-correlation\s*=\s*([^\n(]+)", text)
    if functional:
        settings["functional"] = normalise_functional(functional.group(1).strip())
    if re.search(r"(?i)(?:LDA|DFT)\+U (?:calculation|parameters)|Hubbard (?:projectors|parameters)", text):
        settings["hubbard"] = _hubbard(text)
    electrons = re.search(rf"number of electrons\s*=\s*({_NUMBER})", text)
    if electrons:
        settings["electrons"] = float(electrons.group(1))
    also = _also(text)
    if also:
        settings["also"] = also
    for key, pattern in (
        ("cutoff_eV", r"kinetic-energy cutoff"),
        ("density_cutoff_eV", r"charge density cutoff"),
    ):
        value = re.search(rf"{pattern}\s*=\s*({_NUMBER})\s*Ry", text)
        if value:
            settings[key] = round(float(value.group(1)) * units.Ry, 3)
    smearing = re.search(rf"([A-Z][\w-]+) smearing, width \(Ry\)=\s*({_NUMBER})", text)
    if smearing:
        settings |= {"smearing": smearing.group(1), "width_eV": round(float(smearing.group(2)) * units.Ry, 5)}
    elif "number of k points" in text:
        kind = re.search(r"\(((?:\w+ )*)tetrahedron method\)", text)
        settings["smearing"] = "fixed" if kind is None else f"{kind.group(1)}tetrahedra"
    if settings.keys() - {"code"}:
        settings["spin"] = bool(re.search(r"Starting magnetic structure|total magnetization\s*=", text))
    kpoints = _grid_beside(path) or re.search(r"number of k points=\s*(\d+)", text)
    if isinstance(kpoints, list):
        settings["kpoints"] = kpoints
    elif kpoints:
        settings["kpoints_irreducible"] = int(kpoints.group(1))
    pseudos = re.findall(
        r"PseudoPot\. #\s*\d+ for (\S+)\s+read from file:?\s*(\S+)\s*\n\s*MD5 check sum:\s*([0-9a-f]{32})", text
    )
    if pseudos:
        settings["pseudopotentials"] = {_symbol(label): f"{Path(file).name} md5:{md5}" for label, file, md5 in pseudos}
    return settings


def _hubbard(text: str) -> str:
    """U of each species, eV: from the table of version 6 (``Fe 2 4.3 0.0 ...``) or lines such as ``U(Fe-3d) = 4.3``."""
    table = re.findall(rf"(?m)^\s+([A-Z]\w*)\s+[0-3]\s+({_NUMBER})(?:\s+{_NUMBER}){{2,4}}\s*$", text)
    lines = re.findall(rf"(?m)^\s*([UJV]\s*\([^)\n]*\))\s*=\s*({_NUMBER})", text)
    found = [(f"U({name})", u) for name, u in table] or [(re.sub(r"\s", "", name), u) for name, u in lines]
    return " ".join(sorted({f"{name}={float(u):g}" for name, u in found})) or "yes"


def _also(text: str) -> str:
    """What else decides the energies: non-collinear moments, dispersion, a charge, an electric field."""
    found = []
    if orbit := re.search(r"Non-?collinear calculation (with(?:out)? spin-orbit)", text):
        found.append(f"non-collinear {orbit.group(1)}")
    corrections = re.findall(r"(?m)^.*\b(Grimme-D2|DFT-D3|Tkatchenko-Scheffler|Many-body|XDM)\b.*[Dd]ispersion", text)
    corrections += re.findall(r"(?m)^.*[Dd]ispersion.*\b(Grimme-D2|DFT-D3|Tkatchenko-Scheffler|Many-body|XDM)\b", text)
    found += sorted(set(corrections))
    charge = _charge(text)
    if charge:
        found.append(f"charge {charge:+g}")
    if re.search(r"Adding external electric field|Computed dipole along edir|tot_charge_gate|gate field", text):
        found.append("electric field")
    return ", ".join(found)


def _charge(text: str) -> float:
    """Charge of the cell: electrons of its atoms less those it has; 0 where the output does not say."""
    valence = dict(re.findall(rf"(?m)^\s+(\S+)\s+({_NUMBER})\s+{_NUMBER}\s+\S+\(\s*{_NUMBER}\)\s*$", text))
    electrons = re.search(rf"number of electrons\s*=\s*({_NUMBER})", text)
    sites = _SITES.search(text)
    labels = [line.split()[1] for line in sites.group(1).splitlines()] if sites else []
    if electrons is None or not labels or any(name not in valence for name in labels):
        return 0.0
    return round(sum(float(valence[name]) for name in labels) - float(electrons.group(1)), 2)


def _grid_beside(path: Path) -> list[int] | None:
    """Monkhorst–Pack grid from the data file or the input in the same folder."""
    xml = path.parent / "data-file-schema.xml"
    try:
        if xml.is_file():
            match = re.search(r'<monkhorst_pack nk1="(\d+)" nk2="(\d+)" nk3="(\d+)"', read_text(xml))
            if match:
                return [int(x) for x in match.groups()]
        beside = _input_file(path)
        if beside is not None:
            text = read_text(beside)
            match = re.search(r"(?i)K_POINTS\s*[({]?\s*automatic\s*[)}]?\s*\n\s*(\d+)\s+(\d+)\s+(\d+)", text)
            if match:
                return [int(x) for x in match.groups()]
            if re.search(r"(?i)K_POINTS\s*[({]?\s*gamma", text):
                return [1, 1, 1]
    except OSError:
        return None
    return None


def _input_file(path: Path) -> Path | None:
    """Input of an output: of the same name, else the only one in the folder."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    endings = (".in", ".pwi", ".inp")
    for ending in endings:
        if (path.parent / f"{stem}{ending}").is_file():
            return path.parent / f"{stem}{ending}"
    only = [p for p in path.parent.iterdir() if p.suffix in endings and p.is_file()]
    return only[0] if len(only) == 1 else None


def _input_start(path: Path) -> Atoms | None:
    """Structure of the input that may lie beside."""
    file = _input_file(path)
    if file is None:
        return None
    from ase.io.espresso import read_espresso_in

    try:
        with file.open() as handle:
            atoms = read_espresso_in(handle)
    except Exception:  # the input is a convenience: whatever is wrong with it, the output stands
        return None
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def _xml_start(path: Path) -> Atoms | None:
    """Structure a run started from, in the data file that may lie beside."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(read_text(path.parent / "data-file-schema.xml"))
        structure = root.find("input/atomic_structure")
        if structure is None:
            return None
        atoms = structure.findall("atomic_positions/atom")
        cell = [(structure.findtext(f"cell/a{i}") or "").split() for i in (1, 2, 3)]
        return Atoms(
            [_symbol(a.get("name") or "") for a in atoms],
            positions=np.array([(a.text or "").split() for a in atoms], dtype=float) * units.Bohr,
            cell=np.array(cell, dtype=float) * units.Bohr,
            pbc=True,
        )
    except (OSError, ElementTree.ParseError, ValueError, KeyError):
        return None


def _same_structure(a: Atoms, b: Atoms) -> bool:
    """Whether the structures agree within the digits of an output."""
    return (
        len(a) == len(b)
        and bool((a.numbers == b.numbers).all())
        and bool(np.abs(np.asarray(a.cell) - np.asarray(b.cell)).max() < 1e-3)
        and bool(np.abs(a.positions - b.positions).max() < 1e-3)
    )
