"""AseLabeler: labels by any ASE calculator, each in a process group of its own. GPAW is ``gpaw.py``, built on it.

The calculator is named by its import path and made in the other process (``runner/ase_run.py``), so that a crash, a
hang or a leak of it ends with its label.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver import __version__
from aldriver.core.errors import InputError
from aldriver.core.recipe_engines import Ase
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.core.records import dumps, read_json
from aldriver.label.attempts import ABSENT, Ending, label_by_attempts, last_words, refuse_full_disk, run_problem
from aldriver.label.base import Label, Labeler, LabelSpec, Status, frame_problem
from aldriver.label.process import RunResult, child_environment, run_process
from aldriver.label.program import version_problem

JOB, RESULT, OUTPUT, ERRORS = "job.json", "result.json", "run.out", "run.err"
SCRIPT = Path(__file__).parent / "runner" / "ase_run.py"
KNOWN = ("ase", "gpaw", "tblite", "xtb", "dftd3", "dftd4", "mopac", "psi4", "pyscf", "aims")
"""Packages a calculator may be imported from without being named under ``trusted``."""
_PROBE_S = 120.0


def make(settings: LabelBlock, elements: tuple[str, ...], *, threads: int = 1) -> tuple[AseLabeler, LabelSpec]:
    """Labeler and spec of a recipe's label block.

    Raises
    ------
    InputError
        When the calculator is of a package that is neither known nor trusted by the recipe.
    """
    a = settings.ase
    if a is None:
        raise InputError("label.engine 'ase' needs the block label.ase")
    package = a.calculator.partition(":")[0].partition(".")[0]
    if package not in (*KNOWN, *a.trusted):
        raise InputError(
            f"label.ase.calculator: '{package}' is not among the packages that are imported unasked "
            f"({', '.join(KNOWN)}); importing runs its code: add it to label.ase.trusted if that is what you want"
        )
    numbers = {"calculator": a.calculator, "arguments": a.arguments, "starting_moments_muB": a.starting_moments_muB}
    name = a.calculator.rpartition(":")[2]
    method = a.level or f"stand-in {name}" + (f" {json.dumps(a.arguments, sort_keys=True)}" if a.arguments else "")
    spec = LabelSpec.of(settings, method, numbers)
    return AseLabeler(a, spec, elements=elements, threads=threads), spec


class AseLabeler(Labeler):
    """Single points by an ASE calculator in another process.

    A crash, a signal or a missing result is tried again with the same input, `spec.retries` times; what the
    calculator itself reports (not converged, element unknown) is not: the same input would end the same way.

    Parameters
    ----------
    settings
        The recipe's block, with the calculator and its arguments.
    spec
        From ``make``.
    elements
        Those of the campaign.
    threads
        Threads of the process.
    """

    engine = "ase"
    code = "ASE calculator"

    def __init__(self, settings: Ase, spec: LabelSpec, *, elements: tuple[str, ...] = (), threads: int = 1) -> None:
        super().__init__()
        self.settings, self.spec, self.elements, self.threads = settings, spec, elements, threads

    @property
    def command(self) -> list[str]:
        """How its Python is started."""
        words = shlex.split(self.settings.command or "") or [sys.executable]
        # it runs in the label's own folder: a path relative to here would be lost there
        return [str(Path(words[0]).absolute()) if "/" in words[0] else words[0], *words[1:]]

    def probe(self) -> dict[str, Any]:
        """Versions and data files of the calculator, or ``error``; asked once for each command."""
        return probe(tuple(self.command), self.settings.calculator, self.data_names())

    def data_names(self) -> tuple[str, ...]:
        """Names of the data files the calculator needs."""
        return ()

    @property
    def code_id(self) -> str:
        """Version of the calculator's package: as the recipe names it, else as it is here."""
        version = self.settings.version
        if version is None:
            found = self.probe()
            if "error" in found:
                return f"{self.engine}:absent"
            version = found["versions"].get(self.package, "unknown")
        return f"{self.engine}:{self.package}-{version}"

    @property
    def package(self) -> str:
        """Package the calculator is imported from."""
        return self.settings.calculator.partition(":")[0].partition(".")[0]

    def preflight(self) -> list[str]:
        """Whether the command starts a Python that can import the calculator."""
        if shutil.which(self.command[0]) is None:
            return [f"{self.command[0]} was not found on PATH: set label.{self.engine}.command"]
        found = self.probe()
        return (
            [f"{self.settings.calculator} cannot be used: {found['error']}; {self.install}"] if "error" in found else []
        )

    @property
    def install(self) -> str:
        """What to do when the calculator is not there."""
        return f"install {self.package} in the Python that label.{self.engine}.command starts ({self.command[0]})"

    def warnings(self) -> list[str]:
        """A calculator whose level of theory is not stated."""
        if self.settings.level:
            return []
        return [f"{self.settings.calculator}: no label.ase.level of theory is stated, so its labels count as stand-ins"]

    def label(self, frame: Atoms, workdir: Path) -> Label:
        """Run the calculator on one frame; whatever happens is in the label."""
        workdir = Path(workdir)
        problem = self.frame_problem(frame)
        if problem:
            return Label(status="failed", reason=problem)
        job = dumps(job_of(frame, self.settings.calculator, self.arguments(frame), self.moments()))
        return label_by_attempts(
            lambda _: (workdir / JOB).write_text(job),
            lambda: self._attempt(frame, workdir),
            workdir,
            retries=self.spec.retries,
            cancel=self._cancel,
            keep=(RESULT, OUTPUT, ERRORS),
        )

    def frame_problem(self, frame: Atoms) -> str:
        """Why this frame cannot be computed; empty when it can."""
        return frame_problem(frame)

    def arguments(self, frame: Atoms) -> dict[str, Any]:
        """Keyword arguments of the calculator for this frame."""
        return self.settings.arguments

    def moments(self) -> Mapping[str, float]:
        """Starting moments by element, µB; empty: none are given, whatever the frame carries."""
        return self.settings.starting_moments_muB

    def provenance(self, frame: Atoms, workdir: Path, result: Mapping[str, Any]) -> dict[str, Any]:
        """What the outputs say of the calculation."""
        level = self.settings.level
        found = {
            "calculator": self.settings.calculator,
            "arguments": self.settings.arguments,
            "level": level,
            "stand_in": level is None,
            "energy_is": "potential energy of the calculator",
        }
        return found if level else found | {"note": f"a stand-in reference ({self.settings.calculator}), not DFT"}

    def _attempt(self, frame: Atoms, workdir: Path) -> tuple[RunResult, Ending]:
        run = run_process(
            [*self.command, str(SCRIPT), JOB, RESULT],
            cwd=workdir,
            stdout=workdir / OUTPUT,
            stderr=workdir / ERRORS,
            timeout_s=self.spec.timeout_s,
            env=child_environment(threads=self.threads),
            cancel=self._cancel,
        )
        if run.outcome == "done":
            refuse_full_disk(workdir / RESULT, workdir / OUTPUT, workdir / ERRORS, code=self.settings.calculator)
        result = read_json(workdir / RESULT) if (workdir / RESULT).is_file() else {}
        return run, self._ending(frame, workdir, run, result)

    def _ending(self, frame: Atoms, workdir: Path, run: RunResult, result: Mapping[str, Any]) -> Ending:
        versions = result.get("versions") or self.probe().get("versions", {})
        common = {
            "code": self.code,
            "version": versions.get(self.package),
            "versions": versions,
            "binary": shutil.which(self.command[0]),
            "magnetisation": result.get("magnetisation"),
            "threads": self.threads,
            "aldriver": __version__,
        }
        about = common | self.provenance(frame, workdir, result)
        problem = run_problem(run, code=self.settings.calculator, timeout_s=self.spec.timeout_s, install=self.install)
        if problem is not None:
            return replace(problem, provenance=problem.provenance | about)
        if not result:
            reason = f"{self.settings.calculator} ended without a result ({run.message or 'exit status 0'})"
            return Ending(status="failed", reason=reason + last_words(workdir / ERRORS), retry=True, provenance=about)
        if result["status"] != "ok":
            status: Status = "unconverged" if result["status"] == "unconverged" else "failed"
            absent = {ABSENT: True} if result["reason"].startswith(("ModuleNotFoundError", "ImportError")) else {}
            return Ending(status=status, reason=self.failure(result), provenance=about | absent)
        other = version_problem(self.engine, self.settings.version, common["version"])
        if other:
            return Ending(status="rejected", reason=other, provenance=about)
        return Ending(status="ok", values=self.values(result), provenance=about)

    def values(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the label."""
        names = ("forces", "stress", "magmoms")
        arrays = {k: None if result[k] is None else np.asarray(result[k], dtype=float) for k in names}
        free = result["free_energy"]
        return {"energy": result["energy"], "free_energy": result["energy"] if free is None else free} | arrays

    def failure(self, result: Mapping[str, Any]) -> str:
        """The reason of a calculation that the calculator itself gave up."""
        said = result["reason"]
        return f"the SCF did not converge: {said}" if result["status"] == "unconverged" else str(said)


def job_of(frame: Atoms, calculator: str, arguments: Mapping[str, Any], moments: Mapping[str, float]) -> dict[str, Any]:
    """What ``ase_run.py`` is asked; moments that the frame itself carries are left behind."""
    symbols = frame.get_chemical_symbols()
    return {
        "calculator": calculator,
        "arguments": dict(arguments),
        "numbers": frame.numbers.tolist(),
        "positions": frame.positions.tolist(),
        "cell": np.asarray(frame.cell).tolist(),
        "pbc": frame.pbc.tolist(),
        "magmoms": [float(moments.get(s, 0.0)) for s in symbols] if any(moments.values()) else None,
    }


@lru_cache(maxsize=32)
def probe(command: tuple[str, ...], calculator: str, names: tuple[str, ...]) -> dict[str, Any]:
    """What ``ase_run.py --probe`` says in the Python of `command`, or ``{"error": why}``."""
    # one process is enough to ask: what starts many (mpirun -np 8) would answer as often
    environment = child_environment() | {"PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            [*command, str(SCRIPT), "--probe", calculator, *names],
            capture_output=True, text=True, timeout=_PROBE_S, env=environment, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": f"{command[0]} could not be asked ({error})"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    said = done.stderr.strip().splitlines()
    return {"error": f"exit status {done.returncode}" + (f": {said[-1][:200]}" if said else "")}
