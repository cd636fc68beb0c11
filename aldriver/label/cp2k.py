"""Cp2kLabeler: DFT labels by CP2K, each in a process group of its own. Its files are ``cp2k_files.py``."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver import __version__
from aldriver.core.errors import InputError
from aldriver.core.recipe_engines import Cp2k
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.core.store import sha256_file
from aldriver.label.attempts import Ending, label_by_attempts, last_words, refuse_full_disk, run_problem, words_of
from aldriver.label.base import Label, Labeler, LabelSpec, frame_problem
from aldriver.label.cp2k_files import cp2k_input, parse_cp2k
from aldriver.label.kgrid import grid_of, grid_problem, grid_text
from aldriver.label.process import RunResult, child_environment, run_process
from aldriver.label.program import Program, version_problem

INPUT, OUTPUT, ERRORS = "label.inp", "label.out", "label.err"
_INSTALL = "install CP2K (Debian: apt-get install cp2k cp2k-data) or set label.cp2k.command"
_DATA = "/usr/share/cp2k"


def make(settings: LabelBlock, elements: tuple[str, ...], *, threads: int = 1) -> tuple[Cp2kLabeler, LabelSpec]:
    """Labeler and spec of a recipe's label block; the spec holds hashes of the files of basis sets and potentials."""
    c = settings.cp2k
    if c is None:
        raise InputError("label.engine 'cp2k' needs the block label.cp2k")
    numbers = c.model_dump(
        mode="json", exclude={"command", "version", "data_dir", "max_scf_steps", "basis_file", "potential_file"}
    )
    numbers = {k: v for k, v in numbers.items() if v is not None}
    numbers |= {"files": {kind: _hash_of(path) for kind, path in _files(c).items()}}
    d3 = "-D3(BJ)" if c.dispersion else ""
    basis = "/".join(sorted({name for e, name in c.basis.items() if not elements or e in elements}))
    method = f"{c.functional}{d3}, {basis}, {c.cutoff_Ry:g} Ry, {grid_text(c.kpoints, c.kspacing_per_A)}"
    spec = LabelSpec.of(settings, method, numbers, max_scf_steps=c.max_scf_steps)
    return Cp2kLabeler(c, spec, elements=elements, threads=threads), spec


def _folder(settings: Cp2k) -> Path:
    named = settings.data_dir or os.environ.get("CP2K_DATA_DIR") or _DATA
    return Path(named).expanduser().absolute()


def _files(settings: Cp2k) -> dict[str, Path]:
    return {"basis": _folder(settings) / settings.basis_file, "potential": _folder(settings) / settings.potential_file}


def _hash_of(path: Path) -> str:
    return sha256_file(path) if path.is_file() else "missing"


class Cp2kLabeler(Labeler):
    """Single-point energy, forces and stress by CP2K (Quickstep).

    A crash, a signal, or a truncated log is tried again with the same input, `spec.retries` times. An SCF that does
    not converge (CP2K carries on after it and ends well: its log tells) and an error about the input are not.

    Parameters
    ----------
    settings
        The recipe's block.
    spec
        From ``make``.
    elements
        Those that must have a basis set and a potential.
    threads
        OpenMP threads.
    """

    def __init__(self, settings: Cp2k, spec: LabelSpec, *, elements: tuple[str, ...] = (), threads: int = 1) -> None:
        super().__init__()
        self.settings, self.spec, self.elements, self.threads = settings, spec, elements, threads
        self.program = Program(
            engine="cp2k", command=settings.command, default="cp2k.psmp", pattern="cp2k", version=settings.version
        )

    @property
    def code_id(self) -> str:
        """The version the recipe names, else a hash of the binary; a fixed text when it is absent."""
        return self.program.code_id

    def preflight(self) -> list[str]:
        """Missing programs, files, basis sets and potentials."""
        problems = [f"{program} was not found on PATH: {_INSTALL}" for program in self.program.missing()]
        for kind, path in _files(self.settings).items():
            if not path.is_file():
                problems.append(f"label.cp2k.{kind}_file: {path} is not there; set label.cp2k.data_dir")
                continue
            chosen = getattr(self.settings, kind)
            text = path.read_text(errors="replace")
            for element in self.elements:
                name = chosen.get(element)
                if name is None:
                    problems.append(f"no {kind} for {element}: add it to label.cp2k.{kind}")
                elif not re.search(rf"(?m)^\s*{element}\s(?:.*\s)?{re.escape(name)}(?:\s|$)", text):
                    problems.append(f"label.cp2k.{kind}: {path} holds no '{name}' for {element}")
        return problems

    def label(self, frame: Atoms, workdir: Path) -> Label:
        """Run CP2K on one frame; whatever happens is in the label."""
        workdir = Path(workdir)
        problem = self._frame_problem(frame)
        if problem:
            return Label(status="failed", reason=problem)
        return label_by_attempts(
            lambda _: (workdir / INPUT).write_text(cp2k_input(frame, self.settings)),
            lambda: self._attempt(frame, workdir),
            workdir,
            retries=self.spec.retries,
            cancel=self._cancel,
            keep=(OUTPUT, ERRORS),
        )

    def _frame_problem(self, frame: Atoms) -> str:
        missing = sorted(set(frame.get_chemical_symbols()) - (set(self.settings.basis) & set(self.settings.potential)))
        return (
            frame_problem(frame, periodic="labels by CP2K need")
            or (f"no basis set or potential for {', '.join(missing)} in label.cp2k" if missing else "")
            or grid_problem(np.asarray(frame.cell), self.settings.kpoints, self.settings.kspacing_per_A)
        )

    def _attempt(self, frame: Atoms, workdir: Path) -> tuple[RunResult, Ending]:
        run = run_process(
            [*self.program.words, "-i", INPUT],
            cwd=workdir,
            stdout=workdir / OUTPUT,
            stderr=workdir / ERRORS,
            timeout_s=self.spec.timeout_s,
            env=child_environment(threads=self.threads) | {"CP2K_DATA_DIR": str(_folder(self.settings))},
            cancel=self._cancel,
        )
        for left in [*workdir.glob("label-RESTART*"), *workdir.glob("label-*.wfn*")]:
            left.unlink(missing_ok=True)
        if run.outcome == "done":
            refuse_full_disk(workdir / OUTPUT, workdir / ERRORS, code="CP2K")
        ending = self._ending(frame, workdir, run)
        return run, replace(ending, provenance=ending.provenance | self.program.absence(ending))

    def _ending(self, frame: Atoms, workdir: Path, run: RunResult) -> Ending:
        parsed = parse_cp2k(words_of(workdir / OUTPUT))
        binary = self.program.binary
        s = self.settings
        about: dict[str, Any] = {
            "code": "CP2K",
            "version": parsed.version,
            "command": s.command,
            "binary": None if binary is None else str(binary),
            "binary_sha256": self.program.sha256,
            "functional": s.functional + ("-D3(BJ)" if s.dispersion else ""),
            "basis": s.basis,
            "pseudopotentials": s.potential,
            "kpoints": list(grid_of(np.asarray(frame.cell), s.kpoints, s.kspacing_per_A)),
            "cutoff": f"{s.cutoff_Ry:g} Ry (relative {s.rel_cutoff_Ry:g} Ry)",
            "smearing": "none" if s.temperature_K is None else "fermi-dirac",
            "temperature_K": s.temperature_K,
            "scf_steps": parsed.n_scf,
            "minus_TS_eV": parsed.entropy,
            "energy_is": "free energy F = E - TS (what the forces derive from)",
            "magnetisation": None,
            "stand_in": False,
            "threads": self.threads,
            "aldriver": __version__,
        }
        problem = run_problem(run, code="CP2K", timeout_s=self.spec.timeout_s, install=_INSTALL)
        if problem is not None:
            return replace(problem, provenance=problem.provenance | about)
        status, reason = parsed.verdict(len(frame))
        if status == "unconverged":
            reason += f"; limit: label.cp2k.max_scf_steps {s.max_scf_steps}"
            return Ending(status=status, reason=reason, provenance=about)
        if status == "failed" and parsed.error is not None:
            return Ending(status=status, reason=reason, provenance=about)
        if run.returncode != 0:
            reason = f"CP2K crashed ({run.message}){last_words(workdir / ERRORS)}"
            return Ending(status="failed", reason=reason, retry=True, provenance=about)
        if status != "ok":
            return Ending(status=status, reason=reason + last_words(workdir / ERRORS), retry=True, provenance=about)
        other = version_problem("cp2k", s.version, parsed.version)
        if other:
            return Ending(status="rejected", reason=other, provenance=about)
        values = {
            "energy": parsed.energy,
            "free_energy": parsed.energy,
            "forces": parsed.forces,
            "stress": parsed.stress,
        }
        return Ending(status="ok", values=values, provenance=about)


def cheap(settings: LabelBlock) -> LabelBlock:
    """A crude and fast variant, for a trial."""
    assert settings.cp2k is not None
    crude: dict[str, Any] = {"kpoints": (1, 1, 1), "kspacing_per_A": None, "eps_scf": 1e-4, "temperature_K": 2000.0}
    crude |= {"cutoff_Ry": min(settings.cp2k.cutoff_Ry, 150.0)}
    return settings.model_copy(update={"cp2k": settings.cp2k.model_copy(update=crude)})
