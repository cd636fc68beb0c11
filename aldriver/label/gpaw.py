"""GpawLabeler: real DFT labels by GPAW in plane waves, each in a process group of its own.

Owns what is GPAW's: parameters, PAW data sets, what its log says. How the process is run is ``ase.py``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.config import backend_python
from aldriver.core.errors import InputError
from aldriver.core.recipe_engines import Ase, Gpaw
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.label.ase import AseLabeler
from aldriver.label.base import LabelSpec, frame_problem
from aldriver.label.gpaw_output import scf_steps
from aldriver.label.kgrid import grid_of, grid_problem, grid_text
from aldriver.label.spin import spin_warnings, with_start

LOG = "gpaw.txt"
_SETUPS = ("LDA", "PBE", "revPBE", "RPBE")


def make(settings: LabelBlock, elements: tuple[str, ...], *, threads: int = 1) -> tuple[GpawLabeler, LabelSpec]:
    """Labeler and spec of a recipe's label block; the PAW data sets are part of the code's identity."""
    g = settings.gpaw
    if g is None:
        raise InputError("label.engine 'gpaw' needs the block label.gpaw")
    numbers = g.model_dump(mode="json", exclude={"command", "version", "max_scf_steps"})
    numbers = {k: v for k, v in numbers.items() if v is not None and v != {}}
    own = "".join(f", {e} {name}" for e, name in sorted(g.setups.items()))
    spin = ", spin-polarised" if g.spin else ""
    method = f"{g.xc}, PAW{own}, plane waves {g.ecut_eV:g} eV, {grid_text(g.kpoints, g.kspacing_per_A)}{spin}"
    spec = LabelSpec.of(settings, method, numbers, max_scf_steps=g.max_scf_steps)
    return GpawLabeler(g, spec, elements=elements, threads=threads), spec


class GpawLabeler(AseLabeler):
    """Single-point energy, forces and stress by GPAW.

    Parameters
    ----------
    gpaw
        The recipe's block.
    spec
        From ``make``.
    elements
        Those that must have a PAW data set.
    threads
        OpenMP threads.
    """

    engine = "gpaw"
    code = "GPAW"

    def __init__(self, gpaw: Gpaw, spec: LabelSpec, *, elements: tuple[str, ...] = (), threads: int = 1) -> None:
        command = gpaw.command or _python()
        block = Ase(calculator="gpaw:GPAW", level=spec.method, command=command, version=gpaw.version)
        super().__init__(block, spec, elements=elements, threads=threads)
        self.gpaw = gpaw

    def with_start(self, moments: Mapping[str, float]) -> GpawLabeler | None:
        """The same from other starting moments (µB by element); None without spin."""
        settings = with_start(self.gpaw, moments)
        if settings is None:
            return None
        other = GpawLabeler(settings, self.spec, elements=self.elements, threads=self.threads)
        other._cancel = self._cancel
        return other

    def data_names(self) -> tuple[str, ...]:
        """PAW data sets as their files are called, e.g. ``Si.PBE``."""
        xc = self.gpaw.xc if self.gpaw.xc in _SETUPS else "PBE"
        names = {e: self.gpaw.setups.get(e, "").partition(":")[0] for e in self.elements}
        return tuple(f"{e}.{name}.{xc}" if name else f"{e}.{xc}" for e, name in names.items())

    @property
    def code_id(self) -> str:
        """Version of GPAW, and hashes of the PAW data sets of `elements` unless the recipe vouches for a version."""
        if self.gpaw.version is not None:
            return super().code_id
        setups = self.probe().get("setups", {})
        hashes = ",".join(f"{n}:{'missing' if s is None else s['sha256'][:12]}" for n, s in sorted(setups.items()))
        return f"{super().code_id} {hashes}".strip()

    def preflight(self) -> list[str]:
        """GPAW itself, the PAW data sets, and impossible spin settings."""
        problems = super().preflight()
        if problems:
            return problems
        problems = [
            f"GPAW has no PAW data set {name}: install gpaw-data, or name another in label.gpaw.setups"
            for name, found in self.probe().get("setups", {}).items()
            if found is None
        ]
        if self.gpaw.spin and not any(self.gpaw.starting_moments_muB.get(e, 0.0) for e in self.elements):
            problems.append("label.gpaw: spin needs starting_moments_muB other than 0 for at least one element")
        return problems

    @property
    def install(self) -> str:
        """How to get GPAW."""
        return (
            "run `make setup-gpaw` in a checkout of aldriver (it needs a C++ compiler, libxc and BLAS: "
            "docs/labels_engines.md), or name the Python that has it in label.gpaw.command"
        )

    def warnings(self) -> list[str]:
        """Magnetic elements without spin."""
        return spin_warnings(self.elements, self.gpaw, "gpaw")

    def frame_problem(self, frame: Atoms) -> str:
        """Cells that are not periodic, and those that the frozen grid samples too thinly."""
        return frame_problem(frame, periodic="plane waves need") or grid_problem(
            np.asarray(frame.cell), self.gpaw.kpoints, self.gpaw.kspacing_per_A
        )

    def arguments(self, frame: Atoms) -> dict[str, Any]:
        """GPAW's parameters for this frame; no point group, for frames of MD have none and a near one would jump."""
        g = self.gpaw
        smearing = {"name": "fermi-dirac", "width": 0.0}
        if g.smearing != "none":
            smearing = {"name": g.smearing, "width": g.width_eV}
        return {
            "mode": {"name": "pw", "ecut": g.ecut_eV},
            "xc": g.xc,
            "kpts": {"size": list(grid_of(np.asarray(frame.cell), g.kpoints, g.kspacing_per_A)), "gamma": True},
            "occupations": smearing,
            "spinpol": g.spin,
            "setups": dict(g.setups),
            "symmetry": {"point_group": False},
            "convergence": {"density": g.density_tol},
            "maxiter": g.max_scf_steps,
            "txt": LOG,
        }

    def moments(self) -> Mapping[str, float]:
        """Starting moments by element, µB."""
        return self.gpaw.starting_moments_muB if self.gpaw.spin else {}

    def provenance(self, frame: Atoms, workdir: Path, result: Mapping[str, Any]) -> dict[str, Any]:
        """What the log and the settings say."""
        g, log = self.gpaw, workdir / LOG
        return {
            "kpoints": self.arguments(frame)["kpts"]["size"],
            "cutoff": f"{g.ecut_eV:g} eV",
            "smearing": g.smearing,
            "width_eV": 0.0 if g.smearing == "none" else g.width_eV,
            "functional": g.xc,
            "pseudopotentials": self.probe().get("setups", {}),
            "scf_steps": scf_steps(log.read_text(errors="replace")) if log.is_file() else None,
            "energy_is": "extrapolated to zero smearing",
            "stand_in": False,
        }

    def values(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the label; without spin there are no moments."""
        return super().values(result) | ({} if self.gpaw.spin else {"magmoms": None})

    def failure(self, result: Mapping[str, Any]) -> str:
        """As GPAW says it, with the limit where it was reached."""
        if result["status"] == "unconverged":
            return f"the SCF did not converge; limit: label.gpaw.max_scf_steps {self.gpaw.max_scf_steps}"
        return super().failure(result)


def _python() -> str | None:
    """The Python of GPAW where it is not this one: as configured, or made by ``make setup-gpaw``."""
    elsewhere = None if find_spec("gpaw") else backend_python("gpaw")
    return None if elsewhere is None else shlex.quote(str(elsewhere))


def cheap(settings: LabelBlock) -> LabelBlock:
    """A crude and fast variant, for a trial."""
    assert settings.gpaw is not None
    crude: dict[str, Any] = {
        "kpoints": (1, 1, 1),
        "kspacing_per_A": None,
        "spin": False,
        "density_tol": 1e-3,
        "width_eV": 0.2,
    }
    crude |= {"ecut_eV": min(settings.gpaw.ecut_eV, 250.0), "smearing": "fermi-dirac"}
    return settings.model_copy(update={"gpaw": settings.gpaw.model_copy(update=crude)})
