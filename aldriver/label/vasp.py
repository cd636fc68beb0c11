"""VaspLabeler: DFT labels by VASP, each run by custodian in a process group of its own.

Owns the order of events: inputs, run, retry, verdict, provenance. The inputs are ``vasp_input.py``, the run itself
``vasp_run.py``, the files it leaves ``vasp_output.py``, processes ``process.py``.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ase import Atoms

from aldriver import __version__
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import frame_hash
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.core.recipe_label import Vasp
from aldriver.core.records import dumps, read_json
from aldriver.label import vasp_run
from aldriver.label.attempts import ABSENT, Ending, label_by_attempts, last_words, refuse_full_disk, run_problem
from aldriver.label.base import Label, Labeler, LabelSpec, frame_problem
from aldriver.label.found import FoundLabel
from aldriver.label.process import RunResult, child_environment, run_process
from aldriver.label.program import Program, version_problem
from aldriver.label.spin import spin_warnings, with_start
from aldriver.label.vasp_input import (
    Inputs,
    drift,
    find_potcar,
    functional_name,
    numbers,
    same_structure,
    vasp_inputs,
    write_inputs,
)
from aldriver.label.vasp_output import read_vasp
from aldriver.label.vasp_run import ANSWER, ORIGINAL, REQUEST
from aldriver.label.vasprun import read_vasprun

STAND_IN = "vasp_standin"
_WORDS = ("std_err.txt", "runner.err")
_RESULTS = ("vasprun.xml", "OUTCAR", "OSZICAR", "CONTCAR", "vasp.out", "std_err.txt", ANSWER)
_SCRATCH = ("WAVECAR", "CHG*", "PROCAR", "DOSCAR", "EIGENVAL", "IBZKPT", "PCDAT", "XDATCAR", "REPORT", "LOCPOT",
            "POTCAR", "vaspout.h5", "error.*.tar.gz", "*.orig", "custodian.json", REQUEST, ORIGINAL)  # fmt: skip


def make(settings: LabelBlock, elements: tuple[str, ...], *, threads: int = 1) -> tuple[VaspLabeler, LabelSpec]:
    """Labeler and spec of a recipe's label block; the spec holds the hashes of the POTCARs where they are here."""
    v = settings.vasp
    if v is None:
        raise InputError("label.engine 'vasp' needs the block label.vasp")
    grid = "x".join(str(k) for k in v.kpoints) if v.kpoints else f"spacing {v.kspacing_per_A:g} 1/Å"
    spin = ", spin-polarised" if v.spin else ""
    method = f"{functional_name(v)}, PAW {v.encut_eV:g} eV, k-grid {grid}{spin}"
    decides = numbers(v)
    if is_stand_in(v.command):
        words = _program(v).words
        arguments = words[next(i for i, w in enumerate(words) if STAND_IN in w) + 1 :]
        method, decides["stand_in"] = f"stand-in for VASP, not DFT ({method})", arguments
    effort = {"max_scf_steps": v.max_scf_steps, "corrections": v.corrections, "silence_s": v.silence_s}
    spec = LabelSpec.of(settings, method, decides, **effort)
    return VaspLabeler(v, spec, elements=elements, threads=threads), spec


def is_stand_in(command: str) -> bool:
    """Whether a command line runs the stand-in of ``aldriver.testing.vasp_standin`` instead of VASP."""
    return STAND_IN in command


class VaspLabeler(Labeler):
    """Single-point energy, forces, stress and moments by VASP.

    An electronic loop that does not converge is tried again by custodian with other algorithms (``corrections`` in the
    provenance). A crash, or a missing or damaged output, is tried again with the same input, `spec.retries` times. A
    run past ``spec.timeout_s`` and one that writes nothing for ``silence_s`` are ended and not tried again.

    Parameters
    ----------
    settings
        The recipe's block.
    spec
        From ``make_labeler``.
    elements
        Those that must have a POTCAR.
    threads
        OpenMP threads of VASP.
    """

    def __init__(self, settings: Vasp, spec: LabelSpec, *, elements: tuple[str, ...] = (), threads: int = 1) -> None:
        super().__init__()
        self.settings, self.spec, self.elements, self.threads = settings, spec, elements, threads
        self.program = _program(settings)
        self.stand_in = is_stand_in(settings.command)

    def with_start(self, moments: Mapping[str, float]) -> VaspLabeler | None:
        """The same from other starting moments (µB by element); None without spin."""
        settings = with_start(self.settings, moments)
        if settings is None:
            return None
        other = VaspLabeler(settings, self.spec, elements=self.elements, threads=self.threads)
        other._cancel = self._cancel
        return other

    @property
    def code_id(self) -> str:
        """The version the recipe names, else a hash of the binary; a fixed text when it is absent."""
        if self.stand_in:
            return f"vasp:stand-in-{hashlib.sha256(self.settings.command.encode()).hexdigest()[:16]}"
        return self.program.code_id

    def preflight(self) -> list[str]:
        """Missing custodian, launcher or binary, POTCAR folder, POTCAR files."""
        problems = []
        if find_spec("custodian") is None:
            problems.append("custodian, which runs VASP, is not installed: pip install 'aldriver[vasp]'")
        problems += [
            f"'{program}' was not found on PATH: VASP is licensed software; load your cluster's module for it "
            "or set label.vasp.command"
            for program in self.program.missing()
        ]
        return problems if self.stand_in else [*problems, *self._potcar_problems()]

    def _potcar_problems(self) -> list[str]:
        named = self.settings.potcars
        problems = [
            f"label.vasp.potcars names no POTCAR for {e}: add for example '{e}: {e}' (the choice decides the number of "
            "valence electrons)"
            for e in self.elements
            if e not in named
        ]
        root = os.environ.get("PMG_VASP_PSP_DIR")
        if not root:
            problems.append(
                "PMG_VASP_PSP_DIR is not set: point it at the folder of your VASP POTCAR files "
                "(see `pmg config --help` for how to lay it out)"
            )
        elif not Path(root).is_dir():
            problems.append(f"PMG_VASP_PSP_DIR is {root}, which is not a folder")
        else:
            for element in (e for e in self.elements if e in named):
                if find_potcar(named[element], self.settings.potcar_functional) is None:
                    problems.append(f"no POTCAR '{named[element]}' for {element} in {root} (PMG_VASP_PSP_DIR)")
        return problems

    def warnings(self) -> list[str]:
        """Magnetic elements without spin, and the stand-in."""
        found = spin_warnings(self.elements, self.settings, "vasp")
        if self.stand_in:
            found.append("label.vasp.command runs the stand-in, not VASP: its labels are no DFT and say so")
        return found

    def label(self, frame: Atoms, workdir: Path) -> Label:
        """Run VASP on one frame; whatever happens is in the label."""
        workdir = Path(workdir)
        problem = self._frame_problem(frame)
        if problem:
            return Label(status="failed", reason=problem)
        problems = self.preflight()
        if problems:
            reason = f"vasp is not available: {'; '.join(problems)}"
            return Label(status="failed", reason=reason, provenance={ABSENT: True})
        try:
            inputs = vasp_inputs(frame, self.settings)
            comment = f"{frame.get_chemical_formula()} {frame.info.get('frame_id') or frame_hash(frame)}"
            potcars = write_inputs(workdir, inputs, self.settings, comment=comment, potcars=not self.stand_in)
        except AldriverError as error:
            return Label(status="rejected", reason=str(error))
        label = label_by_attempts(
            lambda _: _fresh(workdir, inputs),
            lambda: self._attempt(workdir, inputs, potcars),
            workdir,
            retries=self.spec.retries,
            cancel=self._cancel,
        )
        _tidy(workdir)
        return label

    def _frame_problem(self, frame: Atoms) -> str:
        problem = frame_problem(frame, periodic="VASP needs")
        if problem:
            return problem
        missing = sorted(set(frame.get_chemical_symbols()) - set(self.settings.potcars))
        if missing and not self.stand_in:
            return f"no POTCAR for {', '.join(missing)} in label.vasp.potcars"
        return ""

    def _attempt(self, workdir: Path, inputs: Inputs, potcars: dict[str, Any]) -> tuple[RunResult, Ending]:
        """Run VASP; a run that ended badly before custodian looked at it is handed over to its handlers."""
        run, answer = self._run(workdir, self.spec.timeout_s)
        found = _read(workdir)
        ending = self._ending(run, answer, found, workdir, inputs)
        mendable = ending.status == "unconverged" or ending.retry
        if mendable and answer and not answer["corrections"] and self.settings.corrections:
            more, answer = self._run(workdir, max(1.0, self.spec.timeout_s - run.seconds), resume=True)
            run = replace(more, seconds=run.seconds + more.seconds, cpu_s=run.cpu_s + more.cpu_s)
            if more.outcome != "done" or answer.get("corrections"):  # else the handlers know nothing either
                found = _read(workdir)
                ending = self._ending(more, answer, found, workdir, inputs)
        values = _in_order(found.label, inputs) if ending.status == "ok" and found else {}
        about = ending.provenance | self._provenance(inputs, potcars, found, answer)
        return run, replace(ending, values=values, provenance=about)

    def _run(self, workdir: Path, timeout_s: float, *, resume: bool = False) -> tuple[RunResult, dict[str, Any]]:
        v = self.settings
        (workdir / ANSWER).unlink(missing_ok=True)
        request = {"command": self.program.words, "silence_s": v.silence_s, "corrections": v.corrections}
        (workdir / REQUEST).write_text(dumps({**request, "resume": resume}))
        environment = child_environment(threads=self.threads)
        # the runner imports the same aldriver, from wherever this one was imported
        package = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
        run = run_process(
            [sys.executable, "-P", vasp_run.__file__],  # as a file: `-m` would load the whole package first
            cwd=workdir,
            stdout=workdir / "runner.out",
            stderr=workdir / "runner.err",
            timeout_s=timeout_s,
            env=environment,
            cancel=self._cancel,
        )
        refuse_full_disk(*(workdir / name for name in _WORDS), code="VASP")
        return run, read_json(workdir / ANSWER) if (workdir / ANSWER).exists() else {}

    def _ending(
        self, run: RunResult, answer: dict[str, Any], found: FoundLabel | None, workdir: Path, inputs: Inputs
    ) -> Ending:
        problem = run_problem(run, code="VASP", timeout_s=self.spec.timeout_s, install="is this Python still there?")
        if problem is not None:
            return problem
        ending, message = answer.get("ending"), answer.get("message", "")
        words = last_words(workdir / _WORDS[0]) or last_words(workdir / _WORDS[1])
        if ending is None:
            reason = f"custodian ended without an answer ({run.message}){words}"
            return Ending(status="failed", reason=reason, retry=True)
        if ending == "drift":
            return Ending(status="rejected", reason=f"a correction changed the settings of the label: {message}")
        if ending == "silent":
            wait = f"{self.settings.silence_s:g} s (label.vasp.silence_s)"
            return Ending(status="timeout", reason=f"VASP hung: it wrote nothing for {wait}")
        if ending == "unconverged" or (found is not None and found.label.status == "unconverged"):
            return Ending(status="unconverged", reason=_unconverged(found, answer))
        # custodian also gives up on messages that did no harm: what is finished and converged is not lost to them
        if ending == "gave up" and (found is None or not found.label.ok):
            reason = f"VASP met an error that no allowed correction mends: {message}{words}"
            return Ending(status="failed", reason=reason)
        if ending == "crashed":
            return Ending(status="failed", reason=f"VASP crashed ({message}){words}", retry=True)
        if found is None or not found.label.ok:
            reason = "there is no output of VASP" if found is None else found.label.reason
            rejected = found is not None and found.label.status == "rejected"
            return Ending(status="rejected" if rejected else "failed", reason=f"{reason}{words}", retry=not rejected)
        foreign = self._foreign(found, workdir, inputs)
        return Ending(status="rejected", reason=foreign) if foreign else Ending(status="ok")

    def _foreign(self, found: FoundLabel, workdir: Path, inputs: Inputs) -> str:
        """Whether VASP computed something else than it was asked to."""
        if found.source.endswith("#step 1"):
            return "the output holds several ionic steps; a label is a single one"
        if bool(found.settings.get("stand_in")) != self.stand_in:
            real, named = ("the stand-in", "VASP") if not self.stand_in else ("VASP", "the stand-in")
            return f"the output was written by {real}, but label.vasp.command is taken for {named}"
        other = version_problem("vasp", self.settings.version, found.settings.get("version"))
        if other:
            return other
        if not same_structure(found.frame, inputs.atoms):
            return "the structure in vasprun.xml is not the frame (order of the atoms, positions or cell)"
        xml = read_vasprun(workdir / "vasprun.xml")
        if xml.kpoints != inputs.grid:
            return f"VASP used the k-grid {xml.kpoints}, {inputs.grid} was asked for"
        used_tags = {**xml.incar, **({"ENCUT": xml.parameters["ENMAX"]} if "ENMAX" in xml.parameters else {})}
        used_tags |= {t: xml.parameters[t] for t in ("ISMEAR", "SIGMA", "EDIFF", "ISPIN", "NSW") if t in xml.parameters}
        changed = drift(inputs.incar, used_tags, subset=True)
        return f"VASP used other settings than it was given: {changed}" if changed else ""

    def _provenance(
        self, inputs: Inputs, potcars: dict[str, Any], found: FoundLabel | None, answer: dict[str, Any]
    ) -> dict[str, Any]:
        read = dict(found.label.provenance) if found is not None else {}
        binary = self.program.binary
        return {
            "code": "VASP stand-in" if self.stand_in else "VASP",
            "version": None,
            **read,
            "stand_in": self.stand_in,
            **({"note": "made by the stand-in, not by VASP: no DFT"} if self.stand_in else {}),
            "command": self.settings.command,
            "binary": None if binary is None else str(binary),
            "binary_sha256": self.program.sha256,
            "potcars": potcars,
            "incar": dict(inputs.incar),
            "kpoints": list(inputs.grid),
            "cutoff": self.settings.encut_eV,
            "smearing": f"{self.settings.smearing} {self.settings.sigma_eV:g} eV",
            "starting_moments": inputs.incar.get("MAGMOM"),
            "energy_is": "E(sigma->0)",
            "corrections": answer.get("corrections", []),
            "threads": self.threads,
            "machine": platform.machine(),
            "aldriver": __version__,
        }


def _read(workdir: Path) -> FoundLabel | None:
    """The label in a folder: of several ionic steps the last one; None when VASP wrote no vasprun.xml."""
    if not (workdir / "vasprun.xml").exists():
        return None
    found = read_vasp(workdir)
    if not (workdir / "OUTCAR").exists():
        label = replace(found[-1].label, status="failed", reason="there is no OUTCAR")
        return replace(found[-1], label=label)
    return found[-1]


def _in_order(label: Label, inputs: Inputs) -> dict[str, Any]:
    """Fields of the label, with forces and moments in the order of the frame."""
    assert label.forces is not None
    values = {k: getattr(label, k) for k in ("energy", "free_energy", "stress")}
    values |= {"magmoms": None if label.magmoms is None else inputs.back(label.magmoms)}
    return values | {"forces": inputs.back(label.forces)}


def _unconverged(found: FoundLabel | None, answer: dict[str, Any]) -> str:
    reason = "the electronic loop did not converge"
    if found is not None and found.label.status == "unconverged":
        reason = found.label.reason
    tags = [tag for c in answer.get("corrections", []) for a in c["actions"] for tag in _set_tags(a)]
    return f"{reason}, also after {'; '.join(tags)}" if tags else reason


def _set_tags(action: dict[str, Any]) -> list[str]:
    changed = action.get("action", {}).get("_set", {})
    return [" ".join(f"{k}={v}" for k, v in changed.items())] if changed else []


def _fresh(workdir: Path, inputs: Inputs) -> None:
    """Remove what an attempt left, and put back the INCAR it may have changed."""
    from pymatgen.io.vasp.inputs import Incar

    for name in _RESULTS:
        (workdir / name).unlink(missing_ok=True)
    Incar(dict(inputs.incar)).write_file(str(workdir / "INCAR"))


def _tidy(workdir: Path) -> None:
    """Pack the results; remove scratch files, and the POTCAR, which is licensed (POTCAR.spec names it)."""
    for pattern in _SCRATCH:
        for path in workdir.glob(pattern):
            path.unlink()
    for name in ("vasprun.xml", "OUTCAR"):
        path = workdir / name
        if path.exists():
            with path.open("rb") as plain, gzip.open(workdir / f"{name}.gz", "wb", compresslevel=6) as packed:
                shutil.copyfileobj(plain, packed)
            path.unlink()


def _program(settings: Vasp) -> Program:
    """VASP within its command line; of the stand-in the Python that runs it."""
    pattern = "$^" if is_stand_in(settings.command) else "vasp"
    return Program(
        engine="vasp", command=settings.command, default="vasp_std", pattern=pattern, version=settings.version
    )
