"""Finished runs of VASP 5 and 6 as labels: each ionic step of a vasprun.xml or OUTCAR is a value or a reason.

Owns what makes a step a label: the run ended, its electronic loop converged, everything is there. What stands in the
files is ``vasprun.py`` and ``outcar.py``; the gate that every label passes is ``gate.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.frames import bare
from aldriver.label.base import Label, Status
from aldriver.label.found import FoundLabel
from aldriver.label.gate import TETRAHEDRA
from aldriver.label.outcar import Outcar, read_outcar
from aldriver.label.packed import damage_as_oserror, open_packed
from aldriver.label.vasprun import IonicStep, Vasprun, read_vasprun

STAND_IN = "aldriver-stand-in"
"""Program that the stand-in of ``aldriver.testing.vasp_standin`` names where VASP writes ``vasp``."""
_SMEARING = {0: "gaussian", -1: "fermi-dirac", -4: "tetrahedron", -5: "tetrahedron", -2: "fixed occupations"}
_NO_GROUND_STATE = ("none", "noth", "eigen", "subrot", "chi", "gw", "g0w0", "evgw", "scgw", "qpgw", "bse", "tdhf",
                    "time", "acfd", "rpa", "2e4w", "cc4s", "mp2")  # fmt: skip
"""What ALGO begins with where VASP solves something else, or keeps the density or the orbitals."""
_SAME_EV = 1e-4
MAX_ENTROPY_EV = 0.010
"""Largest |E(σ→0) − F| per atom. It is half the entropy term, which VASP's manual wants below 1 meV; electrons at a
real temperature (Fermi–Dirac) are exempt."""


def read_vasp(path: Path) -> list[FoundLabel]:
    """Every ionic step of the runs in a folder, or of one vasprun.xml or OUTCAR (also gzipped, whatever its name).

    A run that holds no step gives one label without atoms that says why. Energies are raw: ``energy`` is E(σ→0),
    ``free_energy`` F.

    Raises
    ------
    OSError
        When a file cannot be opened.
    """
    path = Path(path)
    found: list[FoundLabel] = []
    for run in _runs(path):
        try:
            found += _read_run(run)
        except OSError as error:
            found.append(_nothing(str(run.named), f"it cannot be read: {error}", {"code": "VASP"}))
    return found


@dataclass(frozen=True)
class _Run:
    vasprun: Path | None
    outcar: Path | None

    @property
    def named(self) -> Path:
        path = self.vasprun or self.outcar
        assert path is not None
        return path


def _runs(path: Path) -> list[_Run]:
    """Files of a folder that belong together: their names are alike but for ``vasprun.xml`` and ``OUTCAR``."""
    if path.is_file():
        is_xml = _is_vasprun(path)
        beside = [] if not path.parent.is_dir() else sorted(p for p in path.parent.iterdir() if p.is_file())
        twins = [p for p in beside if p != path and _run_name(p) == _run_name(path) and _run_name(p) is not None]
        if is_xml:
            return [_Run(path, next((p for p in twins if _kind(p) == "outcar"), None))]
        return [_Run(None, path)]
    vaspruns: dict[str, Path] = {}
    outcars: dict[str, Path] = {}
    for file in sorted(p for p in path.iterdir() if p.is_file()):
        name, kind = _run_name(file), _kind(file)
        if name is not None and kind is not None:
            (vaspruns if kind == "vasprun" else outcars).setdefault(name, file)
    return [_Run(vaspruns.get(name), outcars.get(name)) for name in sorted(set(vaspruns) | set(outcars))]


def _kind(path: Path) -> str | None:
    if "vasprun" in path.name:
        return "vasprun"
    return "outcar" if "OUTCAR" in path.name else None


def _run_name(path: Path) -> str | None:
    """What is left of a name without ``vasprun.xml``, ``OUTCAR``, ``.gz`` and punctuation; None for other files."""
    if _kind(path) is None:
        return None
    rest = re.sub(r"\.gz$", "", path.name).replace("vasprun.xml", "").replace("vasprun", "").replace("OUTCAR", "")
    return re.sub(r"[\W_]+", "", rest)


def _is_vasprun(path: Path) -> bool:
    try:
        with damage_as_oserror(path), open_packed(path) as handle:
            start = handle.read(400)
    except OSError:
        return _kind(path) == "vasprun"
    return b"<?xml" in start or b"<modeling" in start


def _read_run(run: _Run) -> list[FoundLabel]:
    xml = None if run.vasprun is None else read_vasprun(run.vasprun)
    outs = [] if run.outcar is None else read_outcar(run.outcar)
    if xml is None or (_machine_learned(xml) and outs):
        # where a force field took part, only an OUTCAR says which steps are its own
        assert run.outcar is not None
        names = [str(run.outcar)] if len(outs) == 1 else [f"{run.outcar}#run {k}" for k in range(len(outs))]
        return [f for name, out in zip(names, outs, strict=True) for f in _of_outcar(name, out)]
    own = next((out for out in outs if _belong_together(xml, out)), None)
    return _from_steps(str(run.named), xml.steps, xml, _settings(xml), xml, own)


def _of_outcar(source: str, out: Outcar) -> list[FoundLabel]:
    return _from_steps(source, out.steps, out, _outcar_settings(out), None, out)


def _from_steps(
    source: str,
    steps: tuple[IonicStep, ...],
    structures: Vasprun | Outcar,
    settings: dict[str, Any],
    xml: Vasprun | None,
    out: Outcar | None,
) -> list[FoundLabel]:
    ending = _ending(xml, out)
    if not steps:
        learned = out is not None and out.machine_learned
        empty = "its steps are those of a machine-learned force field" if learned else "it holds no finished ionic step"
        return [_nothing(source, ending or empty, settings)]
    method = _not_a_method(structures, xml)
    found = []
    for k, step in enumerate(steps):
        name = source if len(steps) == 1 else f"{source}#step {k}"
        status, reason = _verdict(step, k, structures, out)
        # of a run that breaks off, the last step may lack what nobody misses in it
        if status == "ok" and ending and k == len(steps) - 1:
            status, reason = "failed", ending
        if status == "ok" and method:
            status, reason = "rejected", method
        frame = bare(structures.frame(step)) if _has_structure(step, structures.symbols) else Atoms()
        found.append(
            FoundLabel(
                frame=frame, label=_label(step, k, status, reason, settings, out), source=name, settings=settings
            )
        )
    return found


def _ending(xml: Vasprun | None, out: Outcar | None) -> str:
    """Why the run is not whole, or nothing."""
    if xml is not None and not xml.complete:
        return f"vasprun.xml breaks off before its closing tag ({xml.error or 'no </modeling>'}): VASP was interrupted"
    if out is not None and not out.finished:
        return "OUTCAR ends before 'General timing and accounting': VASP was interrupted"
    if out is not None and out.stopped:
        return "VASP was stopped by a STOPCAR file within an electronic loop"
    return ""


def _machine_learned(xml: Vasprun) -> bool:
    return bool(xml.incar.get("ML_LMLFF") or xml.parameters.get("ML_LMLFF") or xml.incar.get("ML_MODE"))


def _not_a_method(structures: Vasprun | Outcar, xml: Vasprun | None) -> str:
    """Why no step of a run is a ground state with forces of its own, by the settings of the run; else nothing."""
    p = {**structures.parameters, **(xml.incar if xml is not None else {})}
    if xml is not None and _machine_learned(xml):
        return (
            "a machine-learned force field took part, and vasprun.xml does not say whose the forces are: "
            "take in the OUTCAR of the run, which does"
        )
    if int(p.get("ICHARG") or 0) >= 10:
        return f"ICHARG {p['ICHARG']}: the charge density was kept, so the run is not self-consistent"
    if str(p.get("ALGO") or "").lower().startswith(_NO_GROUND_STATE) or p.get("IALGO") in (2, 3, 4):
        return f"ALGO {p.get('ALGO', p.get('IALGO'))}: the run is not a self-consistent ground state"
    if p.get("ISMEAR") in (-4, -5) and xml is not None and xml.partial_occupations:
        return TETRAHEDRA
    pressure = p.get("PSTRESS") or 0.0
    if pressure and math.isfinite(pressure):
        return f"PSTRESS {pressure:g} kbar: the energies hold p·V and the stress is shifted"
    return ""


def _verdict(step: IonicStep, k: int, structures: Vasprun | Outcar, out: Outcar | None) -> tuple[Status, str]:
    """Whether a step is a converged, complete label, and if not, why not."""
    parameters = structures.parameters
    limit = int(parameters.get("NELM") or 60)
    reached = out.reached[k] if out is not None and k < len(out.reached) else None
    if step.n_scf >= limit and not reached:  # OUTCAR knows of a loop that converged in the last step allowed
        left = "" if step.change is None else f" (the energy still changed by {step.change:.1e} eV)"
        return "unconverged", f"the electronic loop did not converge in {limit} steps{left}"
    if step.n_scf == 0:
        return "failed", "the step holds no electronic loop"
    if reached is False:
        return "unconverged", "OUTCAR does not say that the electronic loop reached EDIFF"
    n = len(structures.symbols)
    if n == 0 or not _has_structure(step, structures.symbols):
        return "failed", "the structure is missing or incomplete"
    if step.forces is None or step.forces.shape != (n, 3):
        return "failed", "the forces are missing or not one for each atom"
    if step.energy is None or step.free_energy is None or not math.isfinite(step.energy + step.free_energy):
        return "failed", "the energies are missing or not finite numbers"
    if not np.isfinite(step.forces).all():
        return "failed", "the forces hold numbers that are not finite (stars in a Fortran field, or NaN)"
    entropy = abs(step.energy - step.free_energy) / n
    if entropy > MAX_ENTROPY_EV and parameters.get("ISMEAR") != -1:
        return "rejected", (
            f"the smearing is so wide that E(σ→0) and the free energy differ by {1000 * entropy:.0f} meV/atom "
            f"(limit {1000 * MAX_ENTROPY_EV:g}): the forces belong to another energy; lower SIGMA"
        )
    return "ok", ""


def _has_structure(step: IonicStep, symbols: tuple[str, ...]) -> bool:
    if step.cell is None or step.positions is None or step.positions.shape != (len(symbols), 3):
        return False
    return bool(np.isfinite(step.cell).all() and np.isfinite(step.positions).all())


def _label(
    step: IonicStep, k: int, status: Status, reason: str, settings: Mapping[str, Any], out: Outcar | None
) -> Label:
    moments = None
    if out is not None and k < len(out.moments):
        moments = out.moments[k]
    if moments is not None and step.positions is not None and len(moments) != len(step.positions):
        moments = None
    stress = step.stress if step.stress is not None and np.isfinite(step.stress).all() else None
    if settings.get("isif") in (0, 1) or (stress is not None and not stress.any()):
        stress = None  # not computed, or the pressure alone
    provenance: dict[str, Any] = {
        **{key: settings.get(key) for key in ("code", "version", "functional", "kpoints", "smearing")},
        "cutoff": settings.get("cutoff_eV"),
        "potcars": settings.get("pseudopotentials"),
        "scf_steps": step.n_scf,
        "energy_is": "E(sigma->0)",
        "magnetisation": None if moments is None else float(moments.sum()),
        "corrections": [],
        "stand_in": bool(settings.get("stand_in")),
    }
    if out is not None and k == len(out.steps) - 1 and out.total_moment is not None:
        provenance["magnetisation"] = out.total_moment
    label = Label(status=status, reason=reason, provenance=provenance)
    if status != "ok":
        return label
    return replace(
        label,
        energy=step.energy,
        free_energy=step.free_energy,
        forces=step.forces,
        stress=stress,
        magmoms=moments,
    )


def _nothing(source: str, reason: str, settings: Mapping[str, Any]) -> FoundLabel:
    provenance = {"code": settings.get("code"), "stand_in": bool(settings.get("stand_in"))}
    label = Label(status="failed", reason=reason, provenance=provenance)
    return FoundLabel(frame=Atoms(), label=label, source=source, settings=settings)


def _belong_together(xml: Vasprun, out: Outcar) -> bool:
    """Whether an OUTCAR is of the run of a vasprun.xml: the energies of their common steps are the same."""
    if out.symbols and xml.symbols and len(out.symbols) != len(xml.symbols):
        return False
    pairs = [(a.free_energy, b.free_energy) for a, b in zip(xml.steps, out.steps, strict=False)]
    return all(a is None or b is None or not abs(a - b) > _SAME_EV for a, b in pairs)


def _settings(xml: Vasprun) -> dict[str, Any]:
    p = xml.parameters
    grid: Any = list(xml.kpoints) if xml.kpoints else f"{xml.n_kpoints} points"
    return _described({**xml.incar, **p}) | {
        "version": xml.version,
        "kpoints": grid,
        "kpoints_scheme": xml.kpoints_scheme,
        "pseudopotentials": list(xml.potcars),
        **({"code": "VASP stand-in", "stand_in": True} if xml.program == STAND_IN else {"code": "VASP"}),
        "functional": functional({**p, **xml.incar}, xml.potcars, tuple(dict.fromkeys(xml.symbols))),
    }


def _outcar_settings(out: Outcar) -> dict[str, Any]:
    stand_in = out.version.startswith(STAND_IN)
    return _described(out.parameters) | {
        "version": out.version,
        "kpoints": f"{out.n_kpoints} points",
        "pseudopotentials": list(out.potcars),
        **({"code": "VASP stand-in", "stand_in": True} if stand_in else {"code": "VASP"}),
        "functional": functional(out.parameters, out.potcars, tuple(dict.fromkeys(out.symbols))),
    }


def _described(p: Mapping[str, Any]) -> dict[str, Any]:
    ismear = p.get("ISMEAR")
    kind = "unknown" if ismear is None else _SMEARING.get(ismear, f"methfessel-paxton {ismear}")
    sigma = p.get("SIGMA")
    wide = "" if sigma is None or kind in ("tetrahedron", "fixed occupations") else f" {sigma:g} eV"
    return {
        "cutoff_eV": p.get("ENMAX", p.get("ENCUT")),
        "smearing": f"{kind}{wide}",
        "spin": p.get("ISPIN") == 2 or bool(p.get("LNONCOLLINEAR") or p.get("LSORBIT")),
        "isif": p.get("ISIF"),
        **({"also": also} if (also := _also(p)) else {}),
        "ediff_eV": p.get("EDIFF"),
        "nelm": p.get("NELM"),
    }


def _also(p: Mapping[str, Any]) -> str:
    """What else decides the energies."""
    if p.get("LSORBIT"):
        return "spin-orbit coupling"
    return "non-collinear" if p.get("LNONCOLLINEAR") else ""


def functional(p: Mapping[str, Any], potcars: tuple[str, ...], elements: tuple[str, ...]) -> str:
    """The functional in words: of INCAR's GGA and METAGGA or else of the POTCARs, with +U and dispersion."""
    meta, gga = str(p.get("METAGGA") or "").strip("- "), str(p.get("GGA") or "").strip("- ").upper()
    names = {"PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "91": "PW91", "CA": "LDA"}
    family = "PBE" if any("PBE" in t for t in potcars) else ("PW91" if any("GGA" in t for t in potcars) else "LDA")
    name = meta if meta and meta.lower() != "none" else names.get(gga, gga) or family
    if p.get("LHFCALC"):
        name = f"hybrid of {name} (AEXX {p.get('AEXX', 0.25):g}, screening {p.get('HFSCREEN') or 0:g})"
    values = p.get("LDAUU")
    if p.get("LDAU") and values:
        u = [f"{e} {x:g}" for e, x in zip(elements, np.atleast_1d(values), strict=False) if x]
        name += f"+U ({', '.join(u)})" if u else ""
    if p.get("LUSE_VDW"):
        name += "+vdW-DF"
    return f"{name}+D (IVDW {p['IVDW']})" if p.get("IVDW") else name
