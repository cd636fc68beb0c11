"""``aldriver doctor``: what works on this machine, what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aldriver.cli.common import Json, console, emit
from aldriver.core.errors import AldriverError

if TYPE_CHECKING:
    from aldriver.core.recipe import Recipe


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, whether it is fine, and what to do if not."""

    name: str
    ok: bool
    detail: str


def doctor(
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Also check all that this recipe needs.")] = None,
    test_label: Annotated[
        bool, typer.Option(help="With --recipe: let the label engine compute a few atoms (seconds).")
    ] = True,
    json_to: Json = None,
) -> None:
    """Check this installation, and with --recipe everything that a campaign would need here."""
    looks = {"python": _python, "machine": _machine, "LAMMPS": _lammps, "CHGNet": _chgnet, "launchpad": _launchpad}
    checks = [_guard(name, look) for name, look in looks.items()]
    if recipe is not None:
        from aldriver.core.recipe import load_recipe

        checks += recipe_checks(load_recipe(recipe), test_label=test_label)
    ok = all(c.ok for c in checks)
    if not emit({"ok": ok, "checks": checks}, json_to):
        for check in checks:
            mark = "[green]ok     [/]" if check.ok else "[bold red]missing[/]"
            console.print(f"{mark} {check.name}: ", end="")
            console.print(check.detail, markup=False, highlight=False)
    if not ok:
        raise typer.Exit(1)


def _guard(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (AldriverError, ImportError, OSError, RuntimeError) as error:
        return Check(name, False, str(error))


def _python() -> str:
    return f"{sys.version.split()[0]} at {sys.executable}"


def _machine() -> str:
    import psutil
    import torch

    gib = psutil.virtual_memory().available / 2**30
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    cores = len(os.sched_getaffinity(0))
    if free < 1:
        raise AldriverError(f"only {free:.1f} GiB of disk free here; a campaign needs at least 1")
    return f"{cores} cores, {gib:.0f} GiB of memory free, {free:.0f} GiB of disk free, GPU: {gpu}"


def _lammps() -> str:
    from aldriver.potentials.lammps_library import new_lammps

    lmp = new_lammps()
    version = lmp.version()
    lmp.close()
    return f"version {version}, `fix external` usable"


def _chgnet() -> str:
    from aldriver.potentials import load

    return "weights load: " + ", ".join(load(f"chgnet:{v}").name for v in ("0.2.0", "0.3.0"))


def _launchpad() -> str:
    from aldriver.workflow.launchpad import describe

    return describe(None)


def recipe_checks(recipe: Recipe, *, test_label: bool = False) -> list[Check]:
    """What a recipe needs here: its cells, a potential that knows their elements, and a label engine that can run.

    Parameters
    ----------
    test_label
        Let the engine label a few atoms.
    """
    from aldriver.core.systems import build_systems

    checks = []
    elements: set[str] = set()

    def cells() -> str:
        systems = build_systems(recipe)
        elements.update(s for a in systems for s in a.get_chemical_symbols())
        return ", ".join(f"{a.info['system']} ({a.get_chemical_formula()}, {len(a)} atoms)" for a in systems)

    def potential() -> str:
        from aldriver.potentials import load

        loaded = load(recipe.potential, device=recipe.resources.device)
        loaded.check_elements(build_systems(recipe))
        return f"{loaded.name} knows {', '.join(sorted(elements))}"

    checks.append(_guard("systems", cells))
    checks.append(_guard("potential", potential))
    checks += _label_checks(recipe, sorted(elements), test_label)
    return checks


def _label_checks(recipe: Recipe, elements: list[str], test_label: bool) -> list[Check]:
    from aldriver.label import make_labeler

    name = f"label engine {recipe.label.engine}"
    try:
        labeler, spec = make_labeler(recipe.label, elements)
        problems = labeler.preflight()
    except (AldriverError, ImportError, OSError) as error:
        return [Check(name, False, str(error))]
    if problems:
        return [Check(name, False, p) for p in problems]
    checks = [Check(name, True, "; ".join([f"ready: {spec.method}", *labeler.warnings()]))]
    if test_label and elements:
        checks.append(_trial(recipe, elements))
    return checks


def _trial(recipe: Recipe, elements: list[str]) -> Check:
    from aldriver.label.trial import trial_label, trial_text

    try:
        frame, label = trial_label(recipe.label, elements)
    except (AldriverError, OSError) as error:
        return Check("test label", False, str(error))
    return Check("test label", label.status in ("ok", "unconverged"), trial_text(frame, label))
