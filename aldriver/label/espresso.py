"""EspressoLabeler: real DFT labels by Quantum ESPRESSO's pw.x, each in a process group of its own.

Owns the order of events: input, run, retry, verdict, provenance. File formats are ``pwio.py`` and ``upf.py``, processes
``process.py``.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver import __version__
from aldriver.core.errors import InputError
from aldriver.core.recipe_label import Espresso
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.label.attempts import Ending, label_by_attempts, last_words, refuse_full_disk, run_problem, words_of
from aldriver.label.base import Label, Labeler, LabelSpec, frame_problem
from aldriver.label.kgrid import grid_of, grid_problem, grid_text
from aldriver.label.process import RunResult, child_environment, run_process
from aldriver.label.program import Program, version_problem
from aldriver.label.pwio import SCRATCH, PwOutput, parse_pw_output, pw_input
from aldriver.label.spin import spin_warnings, with_start
from aldriver.label.upf import Upf, read_upf

INPUT, OUTPUT, ERRORS = "espresso.pwi", "espresso.pwo", "espresso.err"
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


def make(settings: LabelBlock, elements: tuple[str, ...], *, threads: int = 1) -> tuple[EspressoLabeler, LabelSpec]:
    """Labeler and spec of a recipe's label block.

    The numbers depend on what is in the pseudopotential files, not on where they lie: the spec holds their hashes.
    """
    e = settings.espresso
    if e is None:
        raise InputError("label.engine 'espresso' needs the block label.espresso")
    numbers = e.model_dump(mode="json", exclude={"command", "version", "pseudo_dir", "max_scf_steps"})
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
        self.program = Program(
            engine="espresso",
            command=settings.command,
            default="pw.x",
            pattern=r"^pw.*\.x$",
            version=settings.version,
        )

    @property
    def code_id(self) -> str:
        """The version the recipe names, else a hash of the pw.x binary; a fixed text when it is absent."""
        return self.program.code_id

    def preflight(self) -> list[str]:
        """Missing programs and pseudopotentials, mixed functionals, impossible spin settings."""
        problems = [f"{program} was not found on PATH: {_INSTALL}" for program in self.program.missing()]
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
        return spin_warnings(self.elements, self.settings, "espresso")

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
        workdir = Path(workdir)
        problem = self._frame_problem(frame)
        if problem:
            return Label(status="failed", reason=problem)
        valence = {e: u.valence for e, u in self._upfs(frame).items() if u.valence is not None}

        def prepare(changes: Mapping[str, Any]) -> None:
            (workdir / INPUT).write_text(pw_input(frame, self.settings, valence, electrons=changes))

        return label_by_attempts(
            prepare,
            lambda: self._attempt(frame, workdir),
            workdir,
            retries=self.spec.retries,
            cancel=self._cancel,
            keep=(INPUT, OUTPUT, ERRORS, "CRASH"),
            corrections=_CORRECTIONS[: int(self.spec.effort.get("corrections", 0))],
        )

    def _frame_problem(self, frame: Atoms) -> str:
        missing = sorted(set(frame.get_chemical_symbols()) - set(self.settings.pseudopotentials))
        return (
            frame_problem(frame, periodic="pw.x needs")
            or (f"no pseudopotential for {', '.join(missing)} in label.espresso.pseudopotentials" if missing else "")
            or grid_problem(np.asarray(frame.cell), self.settings.kpoints, self.settings.kspacing_per_A)
        )

    def _attempt(self, frame: Atoms, workdir: Path) -> tuple[RunResult, Ending]:
        try:
            run = run_process(
                [*self.program.words, "-in", INPUT],
                cwd=workdir,
                stdout=workdir / OUTPUT,
                stderr=workdir / ERRORS,
                timeout_s=self.spec.timeout_s,
                env=child_environment(threads=self.threads),
                cancel=self._cancel,
            )
        finally:
            shutil.rmtree(workdir / SCRATCH, ignore_errors=True)
        parsed = parse_pw_output(words_of(workdir / OUTPUT))
        if run.outcome == "done":
            refuse_full_disk(workdir / ERRORS, code="pw.x")
        ending = self._ending(frame, run, parsed, workdir)
        values: dict[str, Any] = {"energy": parsed.energy, "free_energy": parsed.energy}
        values |= {"forces": parsed.forces, "stress": parsed.stress, "magmoms": parsed.magmoms}
        about = ending.provenance | self.program.absence(ending) | self._provenance(frame, parsed)
        return run, replace(ending, values=values, provenance=about)

    def _ending(self, frame: Atoms, run: RunResult, parsed: PwOutput, workdir: Path) -> Ending:
        problem = run_problem(run, code="pw.x", timeout_s=self.spec.timeout_s, install=_INSTALL)
        if problem is not None:
            told = f"; {_progress(parsed)}" if problem.status == "timeout" else ""
            return replace(problem, reason=problem.reason + told)
        status, reason = parsed.verdict()
        if status == "unconverged":
            reason += f"; limit: label.espresso.max_scf_steps {self.settings.max_scf_steps}"
            return Ending(status=status, reason=reason, correct=True)
        if parsed.error is not None:
            routine = (parsed.error_routine or "").lower()
            passing, broken = routine.startswith(_PASSING), routine.startswith(_BROKEN_DOWN)
            return Ending(status="failed", reason=reason, retry=passing, correct=broken)
        said = last_words(workdir / ERRORS)
        if run.returncode != 0:
            return Ending(status="failed", reason=f"pw.x crashed ({run.message}){said}", retry=True)
        if status != "ok":
            return Ending(status="failed", reason=f"{reason}{said}", retry=True)
        drift = self._drift(frame, parsed)
        return Ending(status="rejected", reason=drift) if drift else Ending(status="ok")

    def _drift(self, frame: Atoms, parsed: PwOutput) -> str:
        """Whether pw.x computed something else than it was asked to, or is another one."""
        if parsed.n_atoms != len(frame):
            return f"pw.x computed {parsed.n_atoms} atoms, the frame has {len(frame)}"
        cutoff = parsed.ecutwfc_Ry
        if cutoff is None or abs(cutoff - self.settings.ecutwfc_Ry) > 1e-3:
            return f"pw.x used a cutoff of {cutoff} Ry, {self.settings.ecutwfc_Ry} was asked for"
        foreign = set(parsed.pseudo_md5) - {u.md5 for u in self._upfs(frame).values()}
        if foreign:
            return f"pw.x read another pseudopotential (MD5 {', '.join(sorted(foreign))}) than the recipe names"
        return version_problem("espresso", self.settings.version, parsed.version)

    def _upfs(self, frame: Atoms) -> dict[str, Upf]:
        found = {}
        for element in dict.fromkeys(frame.get_chemical_symbols()):
            try:
                found[element] = read_upf(self.settings.pseudo_dir / self.settings.pseudopotentials[element])
            except InputError:
                continue
        return found

    def _provenance(self, frame: Atoms, parsed: PwOutput) -> dict[str, Any]:
        binary = self.program.binary
        return {
            "code": "Quantum ESPRESSO pw.x",
            "version": parsed.version,
            "command": self.settings.command,
            "binary": None if binary is None else str(binary),
            "binary_sha256": self.program.sha256,
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
            "threads": self.threads,
            "machine": platform.machine(),
            "aldriver": __version__,
        }  # fmt: skip


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


def cheap(settings: LabelBlock) -> LabelBlock:
    """A crude and fast variant, for a trial."""
    assert settings.espresso is not None
    crude: dict[str, Any] = {"kpoints": (1, 1, 1), "kspacing_per_A": None, "spin": False, "conv_thr_Ry": 1e-4}
    crude |= {"smearing": "gaussian", "degauss_Ry": 0.02}
    return settings.model_copy(update={"espresso": settings.espresso.model_copy(update=crude)})
