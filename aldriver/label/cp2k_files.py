"""The files of CP2K: writes the input of one label, reads a log and says whether it is a label. Runs nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from aldriver.core.recipe_engines import Cp2k
from aldriver.core.units import matrix_to_voigt
from aldriver.label.kgrid import grid_of

_N = r"[-+]?(?:\d+\.\d*(?:[eEdD][-+]?\d+)?|\*+|[Nn]a[Nn]|[Ii]nf\w*)"
_TO_GPA = {"gpa": 1.0, "bar": 1e-4, "kbar": 0.1}


def cp2k_input(frame: Atoms, settings: Cp2k) -> str:
    """Input of a single point with forces and stress; atoms in the order of the frame, positions in Å."""
    species = list(dict.fromkeys(frame.get_chemical_symbols()))
    cell = np.asarray(frame.cell)
    kinds = []
    for symbol in species:
        kinds += [f"&KIND {symbol}", f"BASIS_SET {settings.basis[symbol]}"]
        kinds += [f"POTENTIAL {settings.potential[symbol]}", "&END KIND"]
    lines = [
        *("&GLOBAL", "PROJECT label", "RUN_TYPE ENERGY_FORCE", "PRINT_LEVEL LOW", "&END GLOBAL"),
        *("&FORCE_EVAL", "METHOD QUICKSTEP", "STRESS_TENSOR ANALYTICAL"),
        *("&PRINT", "&FORCES", "NDIGITS 12", "&END FORCES", "&STRESS_TENSOR", "&END STRESS_TENSOR", "&END PRINT"),
        *("&SUBSYS", "&CELL"),
        *(f"{name} {' '.join(f'{x:.12f}' for x in row)}" for name, row in zip("ABC", cell, strict=True)),
        *("&END CELL", "&COORD"),
        *(
            f"{symbol} {' '.join(f'{x:.12f}' for x in position)}"
            for symbol, position in zip(frame.get_chemical_symbols(), frame.positions, strict=True)
        ),
        *("&END COORD", *kinds, "&END SUBSYS"),
        *_dft(settings, cell),
        "&END FORCE_EVAL",
    ]
    return "\n".join(_indented(lines)) + "\n"


def _dft(settings: Cp2k, cell: NDArray[np.float64]) -> list[str]:
    grid = grid_of(cell, settings.kpoints, settings.kspacing_per_A)
    # CP2K centres an even grid between points; half a step brings Γ back
    shift = [0.5 / n if n % 2 == 0 else 0.0 for n in grid]
    numbers = " ".join([*(str(n) for n in grid), *(f"{s:.12f}" for s in shift)])
    kpoints = [] if max(grid) == 1 else ["&KPOINTS", f"SCHEME MACDONALD {numbers}", "&END KPOINTS"]
    vdw = []
    if settings.dispersion:
        vdw = ["&VDW_POTENTIAL", "POTENTIAL_TYPE PAIR_POTENTIAL", "&PAIR_POTENTIAL", "TYPE DFTD3(BJ)"]
        vdw += ["PARAMETER_FILE_NAME dftd3.dat", f"REFERENCE_FUNCTIONAL {settings.functional}"]
        vdw += ["&END PAIR_POTENTIAL", "&END VDW_POTENTIAL"]
    return [
        *("&DFT", f"BASIS_SET_FILE_NAME {settings.basis_file}", f"POTENTIAL_FILE_NAME {settings.potential_file}"),
        *("&QS", "EPS_DEFAULT 1.0E-12", "&END QS"),
        *("&MGRID", f"CUTOFF {settings.cutoff_Ry:g}", f"REL_CUTOFF {settings.rel_cutoff_Ry:g}", "&END MGRID"),
        *kpoints,
        *("&XC", f"&XC_FUNCTIONAL {settings.functional}", "&END XC_FUNCTIONAL", *vdw, "&END XC"),
        *(
            "&SCF",
            f"EPS_SCF {settings.eps_scf:g}",
            f"MAX_SCF {settings.max_scf_steps}",
            *_solver(settings, bool(kpoints)),
        ),
        *("&PRINT", "&RESTART OFF", "&END RESTART", "&END PRINT", "&END SCF"),
        "&END DFT",
    ]


def _solver(settings: Cp2k, kpoints: bool) -> list[str]:
    """Orbital transformation where there is a gap and Γ alone, else diagonalisation with mixing."""
    if settings.temperature_K is None and not kpoints:
        return ["&OT", "MINIMIZER DIIS", "PRECONDITIONER FULL_ALL", "&END OT"]
    smear = []
    if settings.temperature_K is not None:
        smear = ["ADDED_MOS -1", "&SMEAR ON", "METHOD FERMI_DIRAC"]
        smear += [f"ELECTRONIC_TEMPERATURE {settings.temperature_K:g}", "&END SMEAR"]
    return [
        *smear,
        *("&DIAGONALIZATION ON", "&END DIAGONALIZATION"),
        *("&MIXING", "METHOD BROYDEN_MIXING", "ALPHA 0.4", "NBROYDEN 8", "&END MIXING"),
    ]


def _indented(lines: list[str]) -> list[str]:
    out, depth = [], 0
    for line in lines:
        depth -= line.startswith("&END")
        out.append("  " * depth + line)
        depth += line.startswith("&") and not line.startswith("&END")
    return out


@dataclass(frozen=True, kw_only=True)
class Cp2kOutput:
    """What a log of CP2K says.

    Attributes
    ----------
    version
        For example ``2023.1``.
    finished
        ``PROGRAM ENDED`` stands at the end.
    converged
        Of the last SCF run; None when none came to an end. CP2K carries on after one that did not.
    error
        Message of an abort, if any.
    n_scf
        Iterations of the last SCF run.
    energy, entropy
        Total energy of the force evaluation and the electronic entropy's part of it (−TS), eV.
    forces, stress
        (N, 3) eV/Å; (6,) Voigt, eV/Å³, ASE sign.
    """

    version: str | None = None
    finished: bool = False
    converged: bool | None = None
    error: str | None = None
    n_scf: int | None = None
    energy: float | None = None
    entropy: float | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None

    def verdict(self, n_atoms: int) -> tuple[Literal["ok", "unconverged", "failed"], str]:
        """Whether this is a finished, converged, complete single point of `n_atoms`, and if not, why not."""
        if self.error is not None:
            converged = "converge" not in self.error.lower()
            return ("failed" if converged else "unconverged"), f"CP2K stopped: {self.error}"
        if self.converged is False:
            steps = "" if self.n_scf is None else f" in {self.n_scf} steps"
            return "unconverged", f"the SCF did not converge{steps}"
        if self.version is None:
            return "failed", "there is no output of CP2K"
        if not self.finished:
            return "failed", "the log ends before 'PROGRAM ENDED': CP2K was interrupted"
        if self.converged is None or self.energy is None:
            return "failed", "the log holds no converged SCF"
        if self.forces is None or len(self.forces) != n_atoms:
            return "failed", "the log holds no (complete) forces"
        return "ok", ""


def parse_cp2k(text: str) -> Cp2kOutput:
    """Read a log of CP2K (to 2023, and the changed headings since); never raises, what is not there is None."""
    verdicts = re.findall(r"\bSCF run (NOT converged|converged in\s+(\d+) steps)", text)
    left = re.findall(r"Leaving inner SCF loop after reaching\s+(\d+) steps", text)
    converged = None if not verdicts else verdicts[-1][0] != "NOT converged"
    steps = int(verdicts[-1][1]) if converged else (int(left[-1]) if left else None)
    energy = re.findall(rf"ENERGY\| Total FORCE_EVAL[^\n]*?({_N})\s*$", text, flags=re.MULTILINE)
    entropy = re.findall(rf"Electronic entropic energy:\s*({_N})", text)
    return Cp2kOutput(
        version=_first(text, r"CP2K version (\d\S*?),?\s", r"CP2K\| version string:\s+CP2K version (\S+)"),
        finished="PROGRAM ENDED" in text,
        converged=converged,
        error=_abort(text),
        n_scf=steps,
        energy=_number(energy[-1]) * units.Hartree if energy else None,
        entropy=_number(entropy[-1]) * units.Hartree if entropy else None,
        forces=_forces(text),
        stress=_stress(text),
    )


def _first(text: str, *patterns: str) -> str | None:
    for pattern in patterns:
        match = re.search(pattern, text)
        if match:
            return match.group(1)
    return None


def _number(word: str) -> float:
    """Fortran number; stars become NaN."""
    try:
        return float(word.replace("D", "E").replace("d", "e"))
    except ValueError:
        return float("nan")


def _abort(text: str) -> str | None:
    """Words of the box with [ABORT]."""
    at = text.find("[ABORT]")
    if at < 0:
        return None
    words = []
    for line in text[at:].splitlines()[1:]:
        if line.strip(" *") == "" and "***" in line:
            break
        words.append(re.sub(r"\S+\.F:\d+|^\s*\*|[\\/|_*]|\bO(?=\s)", " ", line))
    return " ".join(" ".join(words).split()) or "no message"


def _forces(text: str) -> NDArray[np.float64] | None:
    old = text.rfind("ATOMIC FORCES in [a.u.]")
    new = text.rfind("FORCES| Atomic forces [hartree/bohr]")
    if old < 0 and new < 0:
        return None
    if old > new:
        pattern = rf"(?m)^\s*\d+\s+\d+\s+\w+\s+({_N})\s+({_N})\s+({_N})\s*$"
        block = text[old:].partition("SUM OF ATOMIC FORCES")[0]
    else:
        pattern = rf"(?m)^\s*FORCES\|\s+\d+\s+({_N})\s+({_N})\s+({_N})\s+{_N}\s*$"
        block = text[new:].partition("FORCES| Sum")[0]
    rows = [[_number(x) for x in row] for row in re.findall(pattern, block)]
    return np.array(rows) * (units.Hartree / units.Bohr) if rows else None


def _stress(text: str) -> NDArray[np.float64] | None:
    """CP2K counts compression as positive."""
    found = list(re.finditer(r"STRESS\| Analytical stress tensor \[(\w+)\]", text))
    if not found:
        return None
    scale = _TO_GPA.get(found[-1].group(1).lower())
    rows = re.findall(rf"(?m)^\s*STRESS\|\s+[xyz]\s+({_N})\s+({_N})\s+({_N})\s*$", text[found[-1].end() :])
    if scale is None or len(rows) < 3:
        return None
    matrix = np.array([[_number(x) for x in row] for row in rows[:3]])
    return -matrix_to_voigt(matrix) * scale * units.GPa
