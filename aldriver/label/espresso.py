"""EspressoLabeler: real DFT labels by Quantum ESPRESSO's pw.x, each in a process group of its own.

Owns the order of events: input, run, retry, verdict, provenance. File formats are ``pwio.py`` and ``upf.py``, processes
``process.py``.
"""

from __future__ import annotations

import errno
import itertools
import platform
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver import __version__
from aldriver.core.errors import InputError
from aldriver.core.recipe_label import Espresso
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.core.store import sha256_file
from aldriver.label.base import Label, Labeler, LabelSpec, Status
from aldriver.label.kgrid import grid_of, grid_problem, grid_text
from aldriver.label.process import RunResult, child_environment, run_process
from aldriver.label.pwio import SCRATCH, PwOutput, parse_pw_output, pw_input
from aldriver.label.spin import with_start
from aldriver.label.upf import Upf, read_upf

INPUT, OUTPUT, ERRORS = "espresso.pwi", "espresso.pwo", "espresso.err"
_MAGNETIC = ("Cr", "Mn", "Fe", "Co", "Ni")
# pw.x reports trouble with files or the network like its own errors; those may go away, the others do not
_PASSING = ("davcio", "diropn", "open", "mp_", "mp ", "copy", "seqopn", "iosys_open")
# ways to the same ground state, in the order in which they are tried when the SCF does not get there
_CORRECTIONS: tuple[dict[str, Any], ...] = (
    {"mixing_beta": 0.35},  # half of pw.x's own
    {"mixing_beta": 0.35, "diagonalization": "cg"},  # slower than Davidson's, and sturdier
)
# diagonalisation that broke down: another algorithm may not
_BROKEN_DOWN = ("cdiaghg", "rdiaghg", "c_bands", "zpotrf", "dpotrf", "cegterg", "regterg")
_INSTALL = "install Quantum ESPRESSO (Debian: apt-get install quantum-espresso) or set label.espresso.command"


@dataclass(frozen=True)
class _Ending:
    """How an attempt ended, and whether the same input (`retry`) or another way to the SCF (`correct`) may help."""

    status: Status
    reason: str = ""
    retry: bool = False
    correct: bool = False


def make(settings: LabelBlock, elements: tuple[str, ...], *, threads: int = 1) -> tuple[EspressoLabeler, LabelSpec]:
    """Labeler and spec of a recipe's label block.

    The numbers depend on what is in the pseudopotential files, not on where they lie: the spec holds their hashes.
    """
    e = settings.espresso
    if e is None:
        raise InputError("label.engine 'espresso' needs the block label.espresso")
    numbers = e.model_dump(mode="json", exclude={"command", "pseudo_dir", "max_scf_steps"})
    numbers = {k: v for k, v in numbers.items() if v is not None and v != {}}
    hashes, functionals = {}, set()
    for element, name in e.pseudopotentials.items():
        try:
            upf = read_upf(e.pseudo_dir.expanduser().absolute() / name)
        except InputError:
            hashes[element] = "missing"
            continue
        hashes[element] = upf.sha256
        functionals.add(upf.functional)
    numbers["pseudopotentials"] = hashes
    spin = ", spin-polarised" if e.spin else ""
    functional = "/".join(sorted(functionals)) or "unknown functional"
    method = f"{functional}, plane waves {e.ecutwfc_Ry:g} Ry, {grid_text(e.kpoints, e.kspacing_per_A)}{spin}"
    spec = LabelSpec.of(settings, method, numbers, max_scf_steps=e.max_scf_steps, corrections=settings.corrections)
    return EspressoLabeler(e, spec, elements=elements, threads=threads), spec


class EspressoLabeler(Labeler):
    """Single-point energy, forces and stress by pw.x.

    A crash, a signal, or a missing or truncated output is tried again with the same input, `spec.retries` times. An
    SCF that does not converge gets ``spec.effort["corrections"]`` further attempts with another mixing and
    diagonalisation, recorded in the provenance: they lead to the same ground state. An error of pw.x about its input
    and a run past `spec.timeout_s` are final: the same input would end the same way.

    Parameters
    ----------
    settings
        The recipe's block.
    spec
        From ``make_labeler``.
    elements
        Those that must have a pseudopotential.
    threads
        OpenMP threads of pw.x.
    """

    def __init__(
        self, settings: Espresso, spec: LabelSpec, *, elements: tuple[str, ...] = (), threads: int = 1
    ) -> None:
        super().__init__()
        # pw.x runs in the label's own folder: a relative folder of pseudopotentials would be lost there
        self.settings = settings.model_copy(update={"pseudo_dir": Path(settings.pseudo_dir).expanduser().absolute()})
        self.spec, self.elements, self.threads = spec, elements, threads

    @property
    def code_id(self) -> str:
        """Hash of the pw.x binary; a fixed text when it is absent."""
        binary = self._binary()
        return "espresso:absent" if binary is None else f"espresso:{_sha256(*_identity(binary))[:16]}"

    def _tokens(self) -> list[str]:
        return shlex.split(self.settings.command) or ["pw.x"]

    def _program(self) -> str:
        """pw.x within a command line such as ``mpirun -np 4 pw.x -nk 2``."""
        tokens = self._tokens()
        return next((t for t in tokens if Path(t).name.startswith("pw") and Path(t).name.endswith(".x")), tokens[0])

    def _binary(self) -> Path | None:
        found = shutil.which(self._program())
        return None if found is None else Path(found).resolve()

    def preflight(self) -> list[str]:
        """Missing programs and pseudopotentials, mixed functionals, impossible spin settings."""
        problems = []
        for program in dict.fromkeys([self._tokens()[0], self._program()]):
            if shutil.which(program) is None:
                problems.append(f"{program} was not found on PATH: {_INSTALL}")
        folder = self.settings.pseudo_dir
        if not folder.is_dir():
            problems.append(
                f"label.espresso.pseudo_dir {folder} is not a folder "
                "(Debian's pseudopotentials: apt-get install quantum-espresso-data)"
            )
        else:
            problems += self._pseudo_problems()
        return problems + self._spin_problems()

    def _pseudo_problems(self) -> list[str]:
        problems = []
        functionals: dict[str, str] = {}
        for element in self.elements:
            name = self.settings.pseudopotentials.get(element)
            if name is None:
                problems.append(f"no pseudopotential for {element}: add it to label.espresso.pseudopotentials")
                continue
            try:
                upf = read_upf(self.settings.pseudo_dir / name)
            except InputError as error:
                problems.append(f"{element}: {error}")
                continue
            if upf.element != element:
                problems.append(
                    f"label.espresso.pseudopotentials gives {element} the file {name}, which is for {upf.element}"
                )
            functionals[element] = upf.functional
        if len(set(functionals.values())) > 1:
            listed = ", ".join(f"{e}: {f}" for e, f in functionals.items())
            problems.append(
                f"the pseudopotentials were made for different functionals ({listed}); use one for all elements"
            )
        return problems

    def _spin_problems(self) -> list[str]:
        s = self.settings
        if not s.spin:
            return []
        if s.smearing == "none":
            return [
                "label.espresso: spin needs a smearing (pw.x refuses fixed occupations without a fixed total moment)"
            ]
        starts = s.starting_magnetization | s.starting_moments_muB
        if not any(starts.get(e, 0.0) for e in (self.elements or s.pseudopotentials)):
            return ["label.espresso: spin needs a starting_magnetization other than 0 for at least one element"]
        return []

    def warnings(self) -> list[str]:
        """Magnetic elements without spin."""
        magnetic = [e for e in self.elements if e in _MAGNETIC]
        if magnetic and not self.settings.spin:
            names = ", ".join(magnetic)
            return [f"{names}: labelled without spin, which is wrong for magnetic metals; set label.espresso.spin"]
        return []

    def with_start(self, moments: Mapping[str, float]) -> EspressoLabeler | None:
        """The same from other starting moments; None without spin."""
        settings = with_start(self.settings, moments)
        if settings is None:
            return None
        other = EspressoLabeler(settings, self.spec, elements=self.elements, threads=self.threads)
        other._cancel = self._cancel
        return other

    def label(self, frame: Atoms, workdir: Path) -> Label:
        """Run pw.x on one frame; whatever happens is in the label."""
        start, cpu = time.monotonic(), time.process_time()
        problem = self._frame_problem(frame)
        if problem:
            return Label(status="failed", reason=problem)
        run, parsed, ending, attempts = self._attempts(frame, Path(workdir))
        reason = ending.reason
        same = sum(a["changes"] == attempts[-1]["changes"] for a in attempts)
        if ending.retry and same > 1:
            reason += f" ({same} attempts with the same input)"
        if ending.correct and any(a["changes"] for a in attempts):
            reason += f"; also not with {_in_words(attempts[-1]['changes'])}"
        complete = ending.status == "ok"
        energy = parsed.energy if complete else None
        return Label(
            status=ending.status,
            reason=reason,
            energy=energy,
            free_energy=energy,
            forces=parsed.forces if complete else None,
            stress=parsed.stress if complete else None,
            magmoms=parsed.magmoms if complete else None,
            provenance=self._provenance(frame, parsed, run, attempts),
            seconds=time.monotonic() - start,
            cpu_s=sum(a["cpu_s"] for a in attempts) + time.process_time() - cpu,
        )

    def _attempts(self, frame: Atoms, workdir: Path) -> tuple[RunResult, PwOutput, _Ending, list[dict[str, Any]]]:
        """Run pw.x until it has come to an end or nothing is left to try; each attempt is noted, and its files kept."""
        attempts: list[dict[str, Any]] = []
        ways = iter(_CORRECTIONS[: int(self.spec.effort.get("corrections", 0))])
        changes: dict[str, Any] = {}
        same = 0
        valence = {e: u.valence for e, u in self._upfs(frame).items() if u.valence is not None}
        (workdir / INPUT).write_text(pw_input(frame, self.settings, valence))
        while True:
            run, parsed, ending = self._attempt(frame, workdir)
            attempts.append(
                {"ending": ending.status, "reason": ending.reason, "changes": changes, "seconds": run.seconds,
                 "cpu_s": run.cpu_s}
            )  # fmt: skip
            further = next(ways, None) if ending.correct else None
            if further is None and not (ending.retry and same < self.spec.retries):
                return run, parsed, ending, attempts
            for name in (INPUT, OUTPUT, ERRORS, "CRASH"):
                if (workdir / name).exists():
                    shutil.copy2(workdir / name, workdir / f"{name}.attempt-{len(attempts)}")
            for name in (OUTPUT, ERRORS, "CRASH"):
                (workdir / name).unlink(missing_ok=True)
            if further is None:
                same += 1
                self._cancel.wait(min(0.1 * 2**same, 5.0))  # what made it crash may need a moment to pass
            else:
                changes = further
                (workdir / INPUT).write_text(pw_input(frame, self.settings, valence, electrons=changes))

    def _frame_problem(self, frame: Atoms) -> str:
        if len(frame) == 0:
            return "the frame has no atoms"
        if frame.cell.rank < 3 or not frame.pbc.all():
            return "pw.x needs a cell that is periodic in three dimensions"
        if not np.isfinite(frame.positions).all() or not np.isfinite(np.asarray(frame.cell)).all():
            return "positions or cell are not finite numbers"
        missing = sorted(set(frame.get_chemical_symbols()) - set(self.settings.pseudopotentials))
        if missing:
            return f"no pseudopotential for {', '.join(missing)} in label.espresso.pseudopotentials"
        return grid_problem(np.asarray(frame.cell), self.settings.kpoints, self.settings.kspacing_per_A)

    def _attempt(self, frame: Atoms, workdir: Path) -> tuple[RunResult, PwOutput, _Ending]:
        try:
            run = run_process(
                [*self._tokens(), "-in", INPUT],
                cwd=workdir,
                stdout=workdir / OUTPUT,
                stderr=workdir / ERRORS,
                timeout_s=self.spec.timeout_s,
                env=child_environment(threads=self.threads),
                cancel=self._cancel,
            )
        finally:
            shutil.rmtree(workdir / SCRATCH, ignore_errors=True)
        parsed = parse_pw_output(_text(workdir / OUTPUT))
        words = _text(workdir / ERRORS)
        if run.outcome == "done" and "No space left on device" in words:
            raise OSError(errno.ENOSPC, "pw.x found no space left on the disk")
        return run, parsed, self._ending(frame, run, parsed, words)

    def _ending(self, frame: Atoms, run: RunResult, parsed: PwOutput, words: str) -> _Ending:
        if run.outcome == "cancelled":
            return _Ending("cancelled", "cancelled")
        if run.outcome == "missing":
            return _Ending("failed", f"{run.message}: {_INSTALL}")
        status, reason = parsed.verdict()
        if run.outcome == "timeout":
            return _Ending(
                "timeout", f"pw.x was {run.message} (label.timeout_s {self.spec.timeout_s:g}); {_progress(parsed)}"
            )
        if status == "unconverged":
            return _Ending(
                "unconverged",
                f"{reason}; limit: label.espresso.max_scf_steps {self.settings.max_scf_steps}",
                correct=True,
            )
        if parsed.error is not None:
            routine = (parsed.error_routine or "").lower()
            broken = routine.startswith(_BROKEN_DOWN)
            return _Ending("failed", reason, retry=routine.startswith(_PASSING), correct=broken)
        if run.returncode != 0:
            return _Ending("failed", f"pw.x crashed ({run.message}){_last_words(words)}", retry=True)
        if status != "ok":
            return _Ending("failed", f"{reason}{_last_words(words)}", retry=True)
        drift = self._drift(frame, parsed)
        return _Ending("rejected", drift) if drift else _Ending("ok")

    def _drift(self, frame: Atoms, parsed: PwOutput) -> str:
        """Whether pw.x computed something else than it was asked to."""
        if parsed.n_atoms != len(frame):
            return f"pw.x computed {parsed.n_atoms} atoms, the frame has {len(frame)}"
        cutoff = parsed.ecutwfc_Ry
        if cutoff is None or abs(cutoff - self.settings.ecutwfc_Ry) > 1e-3:
            return f"pw.x used a cutoff of {cutoff} Ry, {self.settings.ecutwfc_Ry} was asked for"
        foreign = set(parsed.pseudo_md5) - {u.md5 for u in self._upfs(frame).values()}
        return (
            f"pw.x read another pseudopotential (MD5 {', '.join(sorted(foreign))}) than the recipe names"
            if foreign
            else ""
        )

    def _upfs(self, frame: Atoms) -> dict[str, Upf]:
        found = {}
        for element in dict.fromkeys(frame.get_chemical_symbols()):
            try:
                found[element] = read_upf(self.settings.pseudo_dir / self.settings.pseudopotentials[element])
            except InputError:
                continue
        return found

    def _provenance(
        self, frame: Atoms, parsed: PwOutput, run: RunResult, attempts: list[dict[str, Any]]
    ) -> dict[str, Any]:
        binary = self._binary()
        return {
            "code": "Quantum ESPRESSO pw.x",
            "version": parsed.version,
            "command": self.settings.command,
            "binary": None if binary is None else str(binary),
            "binary_sha256": None if binary is None else _sha256(*_identity(binary)),
            "pseudopotentials": {
                e: {"file": self.settings.pseudopotentials[e], "functional": u.functional, "valence": u.valence,
                    "md5": u.md5, "sha256": u.sha256}
                for e, u in self._upfs(frame).items()
            },
            "kpoints": list(grid_of(np.asarray(frame.cell), self.settings.kpoints, self.settings.kspacing_per_A)),
            "cutoff": f"{self.settings.ecutwfc_Ry:g} Ry",
            "smearing": self.settings.smearing,
            "degauss_Ry": self.settings.degauss_Ry,
            "stand_in": False,
            "energy_is": "free energy F = E - TS (what the forces derive from)",
            "minus_TS_eV": parsed.minus_ts,
            "scf_steps": parsed.n_scf,
            "magnetisation": parsed.total_magnetization,
            "scf_accuracy_Ry": parsed.accuracy_Ry,
            "returncode": run.returncode,
            "retries": sum(a["changes"] == b["changes"] for a, b in itertools.pairwise(attempts)),
            "corrections": _corrections(attempts),
            "attempts": attempts,
            "wall_s": sum(a["seconds"] for a in attempts),
            "engine_cpu_s": sum(a["cpu_s"] for a in attempts),
            "threads": self.threads,
            "machine": platform.machine(),
            "aldriver": __version__,
        }  # fmt: skip


def _corrections(attempts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was changed after which ending, to reach the SCF; empty when nothing was."""
    pairs = itertools.pairwise(attempts)
    return [{"after": a["reason"], "changes": b["changes"]} for a, b in pairs if b["changes"] != a["changes"]]


def _in_words(changes: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in changes.items())


def _identity(path: Path) -> tuple[Path, int, int]:
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=16)
def _sha256(path: Path, _mtime_ns: int, _size: int) -> str:
    return sha256_file(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _progress(parsed: PwOutput) -> str:
    if parsed.version is None:
        return "it had written nothing"
    if parsed.converged:
        return "the SCF had converged, forces or stress were unfinished"
    return (
        "no SCF iteration was complete"
        if parsed.accuracy_Ry is None
        else f"SCF accuracy so far {parsed.accuracy_Ry:.1e} Ry"
    )


def _last_words(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip(" -\t")]
    return f": {lines[-1][:200]}" if lines else ""


def cheap(settings: LabelBlock) -> LabelBlock:
    """A crude and fast variant, for a trial."""
    assert settings.espresso is not None
    crude: dict[str, Any] = {"kpoints": (1, 1, 1), "kspacing_per_A": None, "spin": False, "conv_thr_Ry": 1e-4}
    crude |= {"smearing": "gaussian", "degauss_Ry": 0.02}
    return settings.model_copy(update={"espresso": settings.espresso.model_copy(update=crude)})
