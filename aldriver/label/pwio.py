"""The files of Quantum ESPRESSO's pw.x: writes the input of one label, reads an output and says whether it is a label.

Runs nothing (``espresso.py`` does). The output is read here rather than by ASE, which takes the magnetic moments of
6.7 from the wrong column and writes starting magnetisations unscaled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.core.recipe_label import Espresso
from aldriver.core.units import matrix_to_voigt
from aldriver.label.kgrid import grid_of

SCRATCH = "scratch"


def pw_input(
    frame: Atoms,
    settings: Espresso,
    valence: Mapping[str, float] | None = None,
    *,
    electrons: Mapping[str, object] | None = None,
) -> str:
    """Input of a single SCF with forces and stress; atoms in the order of the frame, positions in Å.

    Parameters
    ----------
    valence
        Valence electrons by element; needed where moments are given in µB.
    electrons
        Further keys of &ELECTRONS (how the SCF is reached).
    """
    species = list(dict.fromkeys(frame.get_chemical_symbols()))
    control = {
        "calculation": "scf",
        "tprnfor": True,
        "tstress": True,
        "outdir": f"./{SCRATCH}",
        "pseudo_dir": str(settings.pseudo_dir),
        "disk_io": "none",
    }
    system: dict[str, object] = {"ibrav": 0, "nat": len(frame), "ntyp": len(species), "ecutwfc": settings.ecutwfc_Ry}
    if settings.ecutrho_Ry is not None:
        system["ecutrho"] = settings.ecutrho_Ry
    if settings.smearing == "none":
        system["occupations"] = "fixed"
    else:
        system |= {"occupations": "smearing", "smearing": settings.smearing, "degauss": settings.degauss_Ry}
    if settings.spin:
        system["nspin"] = 2
        for i, symbol in enumerate(species, start=1):
            system[f"starting_magnetization({i})"] = starting_fraction(symbol, settings, valence or {})
    scf = {"conv_thr": settings.conv_thr_Ry, "electron_maxstep": settings.max_scf_steps} | dict(electrons or {})
    lines = [*_namelist("CONTROL", control), *_namelist("SYSTEM", system), *_namelist("ELECTRONS", scf)]
    lines.append("ATOMIC_SPECIES")
    for symbol in species:
        lines.append(f"{symbol} {atomic_masses[atomic_numbers[symbol]]:.4f} {settings.pseudopotentials[symbol]}")
    k1, k2, k3 = grid_of(np.asarray(frame.cell), settings.kpoints, settings.kspacing_per_A)
    lines += ["K_POINTS gamma"] if (k1, k2, k3) == (1, 1, 1) else ["K_POINTS automatic", f"{k1} {k2} {k3} 0 0 0"]
    lines.append("CELL_PARAMETERS angstrom")
    lines += [" ".join(f"{x:.12f}" for x in row) for row in np.asarray(frame.cell)]
    lines.append("ATOMIC_POSITIONS angstrom")
    for symbol, position in zip(frame.get_chemical_symbols(), frame.positions, strict=True):
        lines.append(f"{symbol} " + " ".join(f"{x:.12f}" for x in position))
    return "\n".join(lines) + "\n"


_FULL = 0.999


def starting_fraction(symbol: str, settings: Espresso, valence: Mapping[str, float]) -> float:
    """Starting polarisation of an element as a fraction of its valence, inside (−1, 1).

    To 7.2 pw.x takes a fraction and nothing else; since 7.3 an absolute value of 1 or more is a moment in µB. What
    lies inside means the same to all versions.

    Raises
    ------
    InputError
        When a moment is given for an element whose valence is not known.
    """
    if symbol in settings.starting_moments_muB:
        electrons = valence.get(symbol)
        if not electrons:
            raise InputError(
                f"label.espresso.starting_moments_muB: the pseudopotential of {symbol} does not say how many valence "
                "electrons it has; give starting_magnetization, a fraction of them, instead"
            )
        fraction = settings.starting_moments_muB[symbol] / electrons
    else:
        fraction = float(settings.starting_magnetization.get(symbol, 0.0))
    return max(-_FULL, min(_FULL, fraction))


def _namelist(name: str, values: Mapping[str, object]) -> list[str]:
    def show(value: object) -> str:
        if isinstance(value, bool):
            return ".true." if value else ".false."
        return f"'{value}'" if isinstance(value, str) else repr(value)

    return [f"&{name}", *(f"  {k} = {show(v)}" for k, v in values.items()), "/"]


@dataclass(frozen=True, kw_only=True)
class PwOutput:
    """What a pw.x output says.

    Attributes
    ----------
    version
        As printed, e.g. ``6.7MaX``.
    finished
        ``JOB DONE`` stands at the end. An unconverged or interrupted run can have it too.
    converged
        True, False, or None when no SCF came to an end.
    out_of_time
        pw.x stopped at its own time limit.
    error, error_routine
        Message between the lines of %, if any.
    n_atoms, ecutwfc_Ry, pseudo_md5
        As read back by pw.x.
    n_scf, n_steps
        SCF iterations of the last cycle; number of final energies (more than one: not a single SCF).
    energy
        Free energy F = E − TS (the line with '!'; the energy that forces derive from), eV.
    minus_ts
        −TS of the smearing, eV.
    forces, stress, magmoms
        (N, 3) eV/Å; (6,) Voigt eV/Å³, ASE sign; (N,) µB. NaN where the output holds stars or NaN.
    total_magnetization
        µB per cell.
    accuracy_Ry, threshold_Ry
        Last estimated SCF accuracy, and what it had to come to. With ``scf_must_converge = .false.`` pw.x says of an
        SCF that ran out of iterations that it converged.
    """

    version: str | None = None
    finished: bool = False
    converged: bool | None = None
    out_of_time: bool = False
    error: str | None = None
    error_routine: str | None = None
    n_atoms: int | None = None
    ecutwfc_Ry: float | None = None
    pseudo_md5: tuple[str, ...] = ()
    n_scf: int | None = None
    n_steps: int = 0
    energy: float | None = None
    minus_ts: float | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    magmoms: NDArray[np.float64] | None = None
    total_magnetization: float | None = None
    accuracy_Ry: float | None = None
    threshold_Ry: float | None = None

    def verdict(self) -> tuple[Literal["ok", "unconverged", "failed"], str]:
        """Whether this is a finished, converged, complete single SCF, and if not, why not."""
        above = None not in (self.accuracy_Ry, self.threshold_Ry) and self.accuracy_Ry > 1.1 * self.threshold_Ry  # type: ignore[operator]
        if self.converged is False or (self.converged and above):
            steps = "" if self.n_scf is None else f" in {self.n_scf} iterations"
            accuracy = "" if self.accuracy_Ry is None else f" (last estimated accuracy {self.accuracy_Ry:.1e} Ry)"
            return "unconverged", f"the SCF did not converge{steps}{accuracy}"
        if self.error is not None:
            where = f" in routine {self.error_routine}" if self.error_routine else ""
            return "failed", f"pw.x stopped{where}: {self.error}"
        if self.version is None:
            return "failed", "there is no output of pw.x"
        if self.out_of_time:
            return "failed", "pw.x stopped at its own time limit"
        if not self.finished:
            return "failed", "the output ends before 'JOB DONE': pw.x was interrupted"
        if self.converged is None or self.energy is None:
            return "failed", "the output holds no converged SCF"
        if self.n_steps != 1:
            return "failed", f"the output holds {self.n_steps} ionic steps; a label is a single SCF"
        if self.forces is None:
            return "failed", "the output holds no (complete) forces"
        return "ok", ""


_FLOAT = r"[-+]?(?:\d+\.\d*(?:[eEdD][-+]?\d+)?|\d+[eEdD][-+]?\d+|[Nn]a[Nn]|[Ii]nf(?:inity)?|\*+)"
_STRESS_ROW = re.compile(rf"\s*({_FLOAT})\s*({_FLOAT})\s*({_FLOAT})")


def parse_pw_output(text: str) -> PwOutput:
    """Read the standard output of pw.x (5 to 7.x); never raises, what is not there is None."""
    n_atoms = _last(text, r"number of atoms/cell\s*=\s*(\d+)")
    n = None if n_atoms is None else int(n_atoms)
    error, routine = _error(text)
    not_converged = "convergence NOT achieved" in text
    steps = re.findall(rf"(?m)^!\s+total energy\s*=\s*({_FLOAT})\s*Ry", text)
    minus_ts = _float(_last(text, rf"smearing contrib\. \(-TS\)\s*=\s*({_FLOAT})"))
    # the first one: a relaxation tightens it as it goes, below what was asked for
    threshold = re.search(rf"(?m)^\s*(?:scf )?convergence threshold\s*=\s*({_FLOAT})", text)
    scf = _last(text, r"convergence (?:has been|NOT) achieved\s+(?:in|after)\s+(\d+)\s+iterations")
    return PwOutput(
        version=_last(text, r"Program PWSCF\s+v\.?\s?(\S+)"),
        finished="JOB DONE" in text,
        converged=False if not_converged else (True if "convergence has been achieved" in text else None),
        out_of_time="Maximum CPU time exceeded" in text,
        error=error,
        error_routine=routine,
        n_atoms=n,
        ecutwfc_Ry=_float(_last(text, rf"kinetic-energy cutoff\s*=\s*({_FLOAT})\s*Ry")),
        pseudo_md5=tuple(re.findall(r"MD5 check sum:\s*([0-9a-f]{32})", text)),
        n_scf=None if scf is None else int(scf),
        n_steps=len(steps),
        energy=_scaled(_float(steps[-1]) if steps else None, units.Ry),
        minus_ts=_scaled(minus_ts, units.Ry),
        forces=_forces(text, n),
        stress=_stress(text),
        magmoms=_magmoms(text, n),
        total_magnetization=_total_magnetization(text),
        accuracy_Ry=_float(_last(text, rf"estimated scf accuracy\s*<\s*({_FLOAT})")),
        threshold_Ry=_float(None if threshold is None else threshold.group(1)),
    )


def _total_magnetization(text: str) -> float | None:
    """The last one; of non-collinear moments the length of the vector."""
    found = _last(text, rf"total magnetization\s*=((?:\s*{_FLOAT}){{1,3}})\s*Bohr mag/cell")
    if found is None:
        return None
    values = _floats(tuple(found.split()))
    return values[0] if len(values) == 1 else float(np.linalg.norm(values))


def _last(text: str, pattern: str) -> str | None:
    found = re.findall(pattern, text)
    return found[-1] if found else None


def _float(word: str | None) -> float | None:
    """Fortran number; stars (a number too wide for its field) become NaN."""
    if word is None:
        return None
    try:
        return float(word.replace("D", "E").replace("d", "e"))
    except ValueError:
        return float("nan")


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _floats(words: tuple[str, ...]) -> list[float]:
    return [float("nan") if (x := _float(w)) is None else x for w in words]


def _error(text: str) -> tuple[str | None, str | None]:
    """Message and routine of the last block between lines of %."""
    blocks = re.findall(r"%{20,}\s*\n(.*?)\n?\s*%{20,}", text, flags=re.DOTALL)
    if not blocks:
        return None, None
    head = re.search(r"(?:Error in routine|from)\s+(\S+)\s*(?:\(\s*-?\d+\s*\)|:\s*error #\s*\d+)?\s*:?", blocks[-1])
    message = blocks[-1][head.end() :] if head else blocks[-1]
    return " ".join(message.split()) or "no message", head.group(1) if head else None


def _forces(text: str, n: int | None) -> NDArray[np.float64] | None:
    """Total forces: the first N lines of the last block (its contributions may follow in the same form)."""
    start = text.rfind("Forces acting on atoms")
    if start < 0 or n is None:
        return None
    rows: list[list[float]] = []
    pattern = rf"atom\s+(\d+)\s+type\s+\d+\s+force\s*=\s*({_FLOAT})\s*({_FLOAT})\s*({_FLOAT})"
    for match in re.finditer(pattern, text[start:]):
        if int(match.group(1)) != len(rows) + 1:
            return None
        rows.append(_floats(match.groups()[1:]))
        if len(rows) == n:
            return np.array(rows) * (units.Ry / units.Bohr)
    return None


def _stress(text: str) -> NDArray[np.float64] | None:
    """Voigt stress (ASE sign) of the last block, from its Ry/bohr³ columns (more digits than the kbar ones)."""
    start = text.rfind("total   stress")
    if start < 0:
        return None
    rows = []
    for line in text[start:].splitlines()[1:4]:
        match = _STRESS_ROW.match(line)
        if match is None:
            return None
        rows.append(_floats(match.groups()))
    if len(rows) != 3:
        return None
    return -matrix_to_voigt(np.array(rows)) * (units.Ry / units.Bohr**3)


def _magmoms(text: str, n: int | None) -> NDArray[np.float64] | None:
    """Site moments of the last block: ``magn: x constr: y`` (to 6.7) or ``magn= x`` (since 6.8)."""
    start = text.rfind("Magnetic moment per site")
    if start < 0 or n is None:
        return None
    found = re.findall(rf"atom[:\s]+(\d+)[^\n]*?magn[:=]\s*({_FLOAT})", text[start:])[:n]
    if [int(i) for i, _ in found] != list(range(1, n + 1)):
        return None
    return np.array(_floats(tuple(m for _, m in found)))
