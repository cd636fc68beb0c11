"""VaspLabeler: says in plain words what a VASP set-up lacks here. It runs nothing: each label is a reason."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.core.recipe_label import Vasp
from aldriver.label.base import Label, Labeler, LabelSpec

_NOT_RUN = (
    "this version of aldriver checks a VASP set-up but does not run VASP; use label.engine espresso or calculator"
)


def make(settings: LabelBlock, elements: tuple[str, ...], *, threads: int = 1) -> tuple[VaspLabeler, LabelSpec]:
    """Labeler and spec of a recipe's label block."""
    if settings.vasp is None:
        raise InputError("label.engine 'vasp' needs the block label.vasp")
    spec = LabelSpec.of(settings, "VASP", settings.vasp.model_dump(mode="json", exclude={"command"}))
    return VaspLabeler(settings.vasp, spec, elements=elements), spec


class VaspLabeler(Labeler):
    """Checks for the binary and the POTCAR files of `elements`."""

    def __init__(self, settings: Vasp, spec: LabelSpec, *, elements: tuple[str, ...]) -> None:
        super().__init__()
        self.settings, self.spec, self.elements = settings, spec, elements

    @property
    def code_id(self) -> str:
        """Fixed: no VASP label has a value."""
        return "vasp:not-run"

    def preflight(self) -> list[str]:
        """Missing launcher or binary, POTCAR folder, POTCAR files, and that VASP is not run yet."""
        problems = []
        for program in _programs(self.settings.command):
            if shutil.which(program) is None:
                problems.append(
                    f"'{program}' was not found on PATH: VASP is licensed software; load your cluster's module for it "
                    "or set label.vasp.command"
                )
        return [*problems, *self._potcar_problems(), _NOT_RUN]

    def _potcar_problems(self) -> list[str]:
        unnamed = [e for e in self.elements if e not in self.settings.potcars]
        problems = [
            f"label.vasp.potcars names no POTCAR for {e}: add for example '{e}: {e}' (the choice decides the number of "
            "valence electrons)"
            for e in unnamed
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
            for element in self.elements:
                symbol = self.settings.potcars.get(element)
                if symbol is not None and not _has_potcar(Path(root), symbol):
                    problems.append(f"no POTCAR '{symbol}' for {element} in {root} (PMG_VASP_PSP_DIR)")
        return problems

    def label(self, frame: Atoms, workdir: Path) -> Label:
        """A failed label with what is missing."""
        return Label(status="failed", reason=f"vasp is not available: {'; '.join(self.preflight())}")


def _programs(command: str) -> list[str]:
    """Launcher and VASP binary of a command line, e.g. ``mpirun -np 4 vasp_std``."""
    tokens = shlex.split(command) or ["vasp_std"]
    return list(dict.fromkeys([tokens[0], *(t for t in tokens if "vasp" in Path(t).name)]))


def _has_potcar(root: Path, symbol: str) -> bool:
    names = (f"POTCAR.{symbol}", f"POTCAR.{symbol}.gz", f"{symbol}/POTCAR", f"{symbol}/POTCAR.gz")
    return any((folder / name).is_file() for folder in (root, *root.glob("*/")) for name in names)
