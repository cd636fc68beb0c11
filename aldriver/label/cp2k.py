"""Cp2kLabeler: DFT labels by CP2K, each in a process group of its own. Its files are ``cp2k_files.py``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver import __version__
from aldriver.core.errors import InputError
from aldriver.core.recipe_engines import Cp2k
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.core.store import sha256_file
from aldriver.label.attempts import Ending, label_by_attempts, last_words, run_problem
from aldriver.label.base import Label, Labeler, LabelSpec
from aldriver.label.cp2k_files import cp2k_input, parse_cp2k
from aldriver.label.kgrid import grid_of, grid_problem, grid_text
from aldriver.label.process import RunResult, child_environment, run_process

INPUT, OUTPUT, ERRORS = "label.inp", "label.out", "label.err"
_INSTALL = "install CP2K (Debian: apt-get install cp2k cp2k-data) or set label.cp2k.command"
_DATA = "/usr/share/cp2k"


def make(settings: LabelBlock, elements: tuple[str, ...], *, threads: int = 1) -> tuple[Cp2kLabeler, LabelSpec]:
    """Labeler and spec of a recipe's label block; the spec holds hashes of the files of basis sets and potentials."""
    c = settings.cp2k
    if c is None:
        raise InputError("label.engine 'cp2k' needs the block label.cp2k")
    numbers = c.model_dump(
        mode="json", exclude={"command", "data_dir", "max_scf_steps", "basis_file", "potential_file"}
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

    def _tokens(self) -> list[str]:
        return shlex.split(self.settings.command) or ["cp2k.psmp"]

    def _program(self) -> str:
        tokens = self._tokens()
        return next((t for t in tokens if "cp2k" in Path(t).name), tokens[0])

    @property
    def code_id(self) -> str:
        """Hash of the binary; a fixed text when it is absent."""
        found = shutil.which(self._program())
        if found is None:
            return "cp2k:absent"
        stat = Path(found).stat()
        return f"cp2k:{_sha256(Path(found).resolve(), stat.st_mtime_ns, stat.st_size)[:16]}"

    def preflight(self) -> list[str]:
        """Missing programs, files, basis sets and potentials."""
        problems = [
            f"{program} was not found on PATH: {_INSTALL}"
            for program in dict.fromkeys([self._tokens()[0], self._program()])
            if shutil.which(program) is None
        ]
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
        (workdir / INPUT).write_text(cp2k_input(frame, self.settings))
        return label_by_attempts(
            lambda: self._attempt(frame, workdir),
            workdir,
            retries=self.spec.retries,
            outputs=(OUTPUT, ERRORS),
            cancel=self._cancel,
        )

    def _frame_problem(self, frame: Atoms) -> str:
        if len(frame) == 0:
            return "the frame has no atoms"
        if frame.cell.rank < 3 or not frame.pbc.all():
            return "labels by CP2K need a cell that is periodic in three dimensions"
        if not np.isfinite(frame.positions).all() or not np.isfinite(np.asarray(frame.cell)).all():
            return "positions or cell are not finite numbers"
        missing = sorted(set(frame.get_chemical_symbols()) - (set(self.settings.basis) & set(self.settings.potential)))
        if missing:
            return f"no basis set or potential for {', '.join(missing)} in label.cp2k"
        return grid_problem(np.asarray(frame.cell), self.settings.kpoints, self.settings.kspacing_per_A)

    def _attempt(self, frame: Atoms, workdir: Path) -> tuple[RunResult, Ending]:
        run = run_process(
            [*self._tokens(), "-i", INPUT],
            cwd=workdir,
            stdout=workdir / OUTPUT,
            stderr=workdir / ERRORS,
            timeout_s=self.spec.timeout_s,
            env=child_environment(threads=self.threads) | {"CP2K_DATA_DIR": str(_folder(self.settings))},
            cancel=self._cancel,
        )
        for left in [*workdir.glob("label-RESTART*"), *workdir.glob("label-*.wfn*")]:
            left.unlink(missing_ok=True)
        return run, self._ending(frame, workdir, run)

    def _ending(self, frame: Atoms, workdir: Path, run: RunResult) -> Ending:
        output = workdir / OUTPUT
        parsed = parse_cp2k(output.read_text(errors="replace") if output.is_file() else "")
        s = self.settings
        about: dict[str, Any] = {
            "code": "CP2K",
            "version": parsed.version,
            "command": s.command,
            "binary": shutil.which(self._program()),
            "binary_sha256": self.code_id.partition(":")[2],
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
            return Ending(status=problem.status, reason=problem.reason, provenance=about)
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
        values = {
            "energy": parsed.energy,
            "free_energy": parsed.energy,
            "forces": parsed.forces,
            "stress": parsed.stress,
        }
        return Ending(status="ok", values=values, provenance=about)


@lru_cache(maxsize=4)
def _sha256(path: Path, _mtime_ns: int, _size: int) -> str:
    return sha256_file(path)


def cheap(settings: LabelBlock) -> LabelBlock:
    """A crude and fast variant, for a trial."""
    assert settings.cp2k is not None
    crude: dict[str, Any] = {"kpoints": (1, 1, 1), "kspacing_per_A": None, "eps_scf": 1e-4, "temperature_K": 2000.0}
    crude |= {"cutoff_Ry": min(settings.cp2k.cutoff_Ry, 150.0)}
    return settings.model_copy(update={"cp2k": settings.cp2k.model_copy(update=crude)})
