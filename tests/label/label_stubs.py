"""Stand-ins for the tests of the label room: a potential with a known truth, and executables that play pw.x."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

from aldriver.core import recipe
from aldriver.label import make_labeler
from aldriver.label.base import Label, Labeler, LabelSpec
from aldriver.potentials.base import Potential, Prediction

UPF_V2 = """<UPF version="2.0.1">
<PP_HEADER
element="Si"
functional=" SLA  PW   PBE  PBE"
z_valence="4.000e0"
/>
</UPF>
"""


GEOMETRY = """     celldm(1)=  10.261200  celldm(2)=   0.000000  celldm(3)=   0.000000
     crystal axes: (cart. coord. in units of alat)
               a(1) = (  -0.500000   0.000000   0.500000 )
               a(2) = (   0.000000   0.500000   0.500000 )
               a(3) = (  -0.500000   0.500000   0.000000 )
     site n.     atom                  positions (alat units)
         1           Si  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2           Si  tau(   2) = (   0.2500000   0.2500000   0.2600000  )
     Self-consistent Calculation
"""
"""What ``pw.x`` says of a cell of silicon, before its SCF."""


class Springs(Potential):
    """Each atom on a spring to where it stood in `rest`: E = k/2 Σ|u|², F = −k u, exactly."""

    name, family, fingerprint = "springs:1", "springs", "f00dfeed00000001"
    elements = frozenset({"Si", "Fe"})

    def __init__(self, rest: Atoms, k: float = 2.0, forces_scale: float = 1.0) -> None:
        self.rest, self.k, self.scale, self.calls = rest.copy(), k, forces_scale, 0

    def evaluate(self, frames, *, stress=True, features=False, batch_atoms=None):
        self.check_elements(frames)
        self.calls += len(frames)
        out = []
        for atoms in frames:
            u = atoms.positions - self.rest.positions
            u = u - u.mean(axis=0)
            energy = 0.5 * self.k * float((u**2).sum())
            out.append(
                Prediction(energy=energy, forces=-self.k * u * self.scale, stress=np.zeros(6) if stress else None)
            )
        return out


class CountingLabeler(Labeler):
    """Leaves a file for each run in `log`, so that runs can be counted across processes."""

    def __init__(self, log: Path, *, seconds: float = 0.0, answer: str = "ok") -> None:
        super().__init__()
        self.log, self.seconds, self.answer = log, seconds, answer

    code_id = "counting:1"

    def preflight(self):
        return []

    def label(self, frame, workdir):
        (self.log / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        self._cancel.wait(self.seconds)
        if self.cancelled:
            return Label(status="cancelled", reason="cancelled")
        if self.answer == "raise":
            raise RuntimeError("the engine's reader stumbled")
        if self.answer != "ok":
            return Label(status=self.answer, reason="as asked")
        return Label(status="ok", energy=-1.5, forces=np.zeros((len(frame), 3)), stress=np.zeros(6))


def spec(**changes) -> LabelSpec:
    return LabelSpec(**({"engine": "calculator", "method": "counting", "settings": {"a": 1}} | changes))


def silicon(seed: int = 1, stdev: float = 0.05) -> Atoms:
    atoms = bulk("Si", a=5.43)
    atoms.rattle(stdev, seed=seed)
    return atoms


def pw_output(
    *,
    n: int = 2,
    energy: str = "-15.50000000",
    force: str = "0.01000000   -0.02000000    0.00000000",
    minus: str = "-0.01000000    0.02000000    0.00000000",
    cutoff: float = 20.0,
    converged: bool = True,
    done: bool = True,
) -> str:
    """An output in the form of pw.x 6.7, two atoms with opposite forces."""
    verdict = "convergence has been achieved in   8 iterations" if converged else (
        "convergence NOT achieved after   1 iterations: stopping"
    )  # fmt: skip
    lines = [
        "     Program PWSCF v.6.7MaX starts on 21Nov2026 at  2:51: 2",
        f"     number of atoms/cell      =            {n}",
        f"     kinetic-energy cutoff     =      {cutoff:.4f}  Ry",
        "     estimated scf accuracy    <       0.00002000 Ry",
    ]
    if converged:
        lines.append(f"!    total energy              =     {energy} Ry")
    lines += ["", f"     {verdict}", ""]
    if converged:
        lines += [
            "     Forces acting on atoms (cartesian axes, Ry/au):",
            "",
            f"     atom    1 type  1   force =     {force}",
            f"     atom    2 type  1   force =     {minus}",
            "",
            "          total   stress  (Ry/bohr**3)                   (kbar)     P=      122.64",
            "   0.00080101  -0.00002702   0.00016307          117.83       -3.97       23.99",
            "  -0.00002702   0.00084286  -0.00032415           -3.97      123.99      -47.68",
            "   0.00016307  -0.00032415   0.00085723           23.99      -47.68      126.10",
        ]
    if done:
        lines.append("   JOB DONE.")
    return "\n".join(lines) + "\n"


def script(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def fake_espresso(
    tmp: Path, body: str, *, output: str | None = None, timeout_s: float = 20.0, retries: int = 0, **more
):
    """Labeler whose pw.x is a shell script; ``$OUT`` in it is a file with `output`."""
    tmp.mkdir(parents=True, exist_ok=True)
    pseudo = tmp / "pseudo"
    pseudo.mkdir(exist_ok=True)
    (pseudo / "Si.UPF").write_text(UPF_V2)
    answer = tmp / "answer.txt"
    answer.write_text(pw_output() if output is None else output)
    binary = script(tmp / "pw.x", f"OUT={answer}\nHERE={tmp}\n{body}")
    block = {
        "command": str(binary),
        "pseudo_dir": pseudo,
        "pseudopotentials": {"Si": "Si.UPF"},
        "ecutwfc_Ry": 20,
        "kpoints": (2, 2, 2),
    }
    settings = recipe.Label(engine="espresso", espresso=block | more, timeout_s=timeout_s, retries=retries)
    return make_labeler(settings, ["Si"])
