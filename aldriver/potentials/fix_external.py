"""A potential inside LAMMPS through ``fix external pf/callback``. What is run there is the caller's business.

Conventions (units ``metal``): the virial handed over is W = −V·σ in eV, order xx, yy, zz, xy, xz, yz, set inside the
callback at each step; atoms arrive in LAMMPS' own order and are scattered through their tags; coordinates are wrapped
only when LAMMPS reneighbours; the box moves its origin under a barostat.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.core.units import lammps_virial, voigt_to_matrix
from aldriver.potentials.base import Prediction

EXTERNAL = re.compile(r"^\s*fix\s+(\S+)\s+all\s+external\s+pf/callback\b.*$", re.MULTILINE)
"""The line of a LAMMPS input that a potential is attached to; its first group is the name of the fix."""

Evaluate = Callable[[int, NDArray[np.float64], NDArray[np.float64]], Prediction]
"""(step, positions (N, 3), cell 3×3) -> prediction."""


def check_finite(prediction: Prediction, name: str, step: int) -> None:
    """Refuse a prediction that would wreck the run.

    Raises
    ------
    AldriverError
        When energy, forces or stress are not finite, naming potential and step.
    """
    p = prediction
    finite = math.isfinite(p.energy) and np.isfinite(p.forces).all()
    if not (finite and p.stress is not None and np.isfinite(p.stress).all()):
        raise AldriverError(f"{name} gave numbers that are not finite at step {step}: the run is lost")


class LammpsStopped(AldriverError):
    """LAMMPS gave up; `kind` is ``lost_atoms``, ``not_finite`` or ``error``."""

    def __init__(self, kind: Literal["lost_atoms", "not_finite", "error"], message: str, step: int) -> None:
        super().__init__(message)
        self.kind, self.step = kind, step


class FixExternal:
    """Couples `evaluate` to the ``fix external`` of a LAMMPS instance (one MPI rank, periodic box, tags 1…N).

    Parameters
    ----------
    lmp
        LAMMPS instance that holds the atoms.
    evaluate
        Called once a step, with positions relative to the box origin, in the order of the tags.
    n_atoms
        How many atoms there must be.
    rotation
        3×3; `evaluate` sees and gives vectors ``v @ rotation.T`` where LAMMPS has v (identity by default).
    fix_id
        Name of the fix in LAMMPS.

    Attributes
    ----------
    error
        What `evaluate` raised, None while all is well.
    step
        The last step evaluated.
    """

    def __init__(
        self,
        lmp: Any,
        evaluate: Evaluate,
        n_atoms: int,
        *,
        rotation: NDArray[np.float64] | None = None,
        fix_id: str = "potential",
    ) -> None:
        self.lmp, self.evaluate, self.n_atoms, self.fix_id = lmp, evaluate, n_atoms, fix_id
        self.rotation = np.eye(3) if rotation is None else rotation
        self.error: BaseException | None = None
        self.step = 0

    def attach(self) -> None:
        """Set the callback; the fix must exist."""
        self.lmp.set_fix_external_callback(self.fix_id, self._callback, None)

    def command(self, text: str) -> None:
        """Run LAMMPS commands; an exception raised by `evaluate` comes out of here unchanged.

        Raises
        ------
        LammpsStopped
            When LAMMPS itself gives up.
        """
        try:
            self.lmp.commands_string(text)
        except Exception as error:
            if self.error is None:
                raise explained(error, self.step) from error
        if self.error is not None:
            raise self.error

    def _callback(self, _caller: Any, step: int, nlocal: int, tag: Any, x: Any, f: Any) -> None:
        # An exception must not cross the C++ frames of LAMMPS: keep it, end the run at the next step, raise it later.
        if self.error is None:
            try:
                self._evaluate(int(step), int(nlocal), tag, x, f)
                return
            except BaseException as error:
                self.error = error
        f[:] = 0.0
        self.lmp.force_timeout()

    def _evaluate(self, step: int, nlocal: int, tag: Any, x: Any, f: Any) -> None:
        self.step, n = step, self.n_atoms
        if nlocal != n:
            raise LammpsStopped("lost_atoms", f"{n - nlocal} of {n} atoms are lost at step {step}", step)
        origin, cell = box(self.lmp)
        site = np.asarray(tag).reshape(-1) - 1
        positions = np.empty((n, 3))
        positions[site] = x
        positions -= origin
        back = self.rotation.T
        prediction = self.evaluate(step, positions @ back, cell @ back)
        f[:] = (prediction.forces @ self.rotation)[site]
        self.lmp.fix_external_set_energy_global(self.fix_id, prediction.energy)
        if prediction.stress is not None:
            stress = back @ voigt_to_matrix(prediction.stress) @ self.rotation
            virial = lammps_virial(stress, abs(float(np.linalg.det(cell))))
            self.lmp.fix_external_set_virial_global(self.fix_id, virial)


def box(lmp: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Origin (3,) and lower-triangular cell (3, 3) of a LAMMPS box, Å."""
    low, high, xy, yz, xz, _, _ = lmp.extract_box()
    origin = np.array(low)
    lx, ly, lz = np.array(high) - origin
    return origin, np.array([[lx, 0.0, 0.0], [xy, ly, 0.0], [xz, yz, lz]])


def explained(error: Exception, step: int) -> LammpsStopped:
    """An exception of LAMMPS with what it means."""
    message = str(error).strip()
    text = message.lower()
    if "lost atoms" in text or "out of range atoms" in text:
        return LammpsStopped("lost_atoms", f"LAMMPS lost atoms at step {step}: {message}", step)
    if "non-numeric" in text:
        return LammpsStopped("not_finite", f"LAMMPS met coordinates that are not numbers: {message}", step)
    return LammpsStopped("error", f"LAMMPS stopped at step {step}: {message}", step)
