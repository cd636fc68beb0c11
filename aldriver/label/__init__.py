"""Label: energy, forces and stress of a frame from a reference engine; each label is a value or a reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aldriver.core import recipe
from aldriver.core.errors import InputError
from aldriver.label.base import Label, Labeler, LabelSpec
from aldriver.label.cache import label_frame
from aldriver.label.gate import LabelLimits, check_label
from aldriver.label.process import clean_orphans

__all__ = [
    "Label",
    "LabelLimits",
    "LabelSpec",
    "Labeler",
    "check_label",
    "clean_orphans",
    "label_frame",
    "make_labeler",
]


def make_labeler(
    settings: recipe.Label, elements: Iterable[str] = (), *, threads: int = 1
) -> tuple[Labeler, LabelSpec]:
    """Labeler and spec of a recipe's label block.

    Parameters
    ----------
    elements
        Chemical symbols of the frames (for ``preflight``).
    threads
        Threads of the engine's processes.
    """
    symbols = tuple(dict.fromkeys(elements))
    if settings.engine == "calculator":
        return _calculator(settings, symbols)
    if settings.engine == "espresso":
        return _espresso(settings, symbols, threads)
    return _vasp(settings, symbols)


def _spec(settings: recipe.Label, method: str, numbers: dict[str, Any], **effort: float) -> LabelSpec:
    return LabelSpec(
        engine=settings.engine,
        method=method,
        settings=numbers,
        timeout_s=settings.timeout_s,
        retries=settings.retries,
        effort=effort,
    )


def _calculator(settings: recipe.Label, elements: tuple[str, ...]) -> tuple[Labeler, LabelSpec]:
    from aldriver.label.calculator import CalculatorLabeler

    if settings.reference is None:
        raise InputError("label.engine 'calculator' needs label.reference, e.g. eam:Fe_mm.eam.fs")
    spec = _spec(settings, f"stand-in {settings.reference}", {"reference": settings.reference})
    return CalculatorLabeler(settings.reference, spec, elements=elements), spec


def _espresso(settings: recipe.Label, elements: tuple[str, ...], threads: int) -> tuple[Labeler, LabelSpec]:
    from aldriver.label.espresso import EspressoLabeler
    from aldriver.label.upf import read_upf

    e = settings.espresso
    if e is None:
        raise InputError("label.engine 'espresso' needs the block label.espresso")
    # the numbers depend on what is in the pseudopotential files, not on where they lie
    numbers = e.model_dump(mode="json", exclude={"command", "pseudo_dir", "max_scf_steps"})
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
    grid = "x".join(str(k) for k in e.kpoints)
    spin = ", spin-polarised" if e.spin else ""
    functional = "/".join(sorted(functionals)) or "unknown functional"
    method = f"{functional}, plane waves {e.ecutwfc_Ry:g} Ry, k-grid {grid}{spin}"
    spec = _spec(settings, method, numbers, max_scf_steps=e.max_scf_steps)
    return EspressoLabeler(e, spec, elements=elements, threads=threads), spec


def _vasp(settings: recipe.Label, elements: tuple[str, ...]) -> tuple[Labeler, LabelSpec]:
    from aldriver.label.vasp import VaspLabeler

    if settings.vasp is None:
        raise InputError("label.engine 'vasp' needs the block label.vasp")
    spec = _spec(settings, "VASP", settings.vasp.model_dump(mode="json", exclude={"command"}))
    return VaspLabeler(settings.vasp, spec, elements=elements), spec
