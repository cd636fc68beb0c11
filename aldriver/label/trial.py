"""A trial label: one cheap single point that shows that an engine runs here. What it lacks ``preflight`` says.

An engine whose labels can be made cheaper (fewer k-points, a coarser threshold) says how with a function ``cheap`` of
its module; the others are tried as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii, reference_states

from aldriver.core import recipe_label
from aldriver.label.base import Label

LIMIT_S = 120.0
_CRYSTALS = ("fcc", "bcc", "hcp", "diamond", "sc")
_MAGNETIC = ("O", "Cr", "Mn", "Fe", "Co", "Ni")  # slow to converge in a crude calculation


def trial_frame(element: str) -> Atoms:
    """A few atoms of an element: its crystal's primitive cell, its molecule in a box, or else a close packing."""
    number = atomic_numbers[element]
    known = reference_states[number] or {}
    kind = known.get("symmetry")
    if kind in _CRYSTALS:
        return bulk(element)
    if kind == "diatom":
        length = float(str(known["d"]))
        return Atoms([element] * 2, [[0, 0, 0], [0, 0, length]], cell=np.eye(3) * (length + 5.0), pbc=True)
    return bulk(element, "fcc", a=2 * np.sqrt(2) * covalent_radii[number])


def easiest(elements: Iterable[str]) -> str:
    """The element whose trial costs least: not magnetic, a light crystal or molecule."""
    return min(elements, key=lambda e: (e in _MAGNETIC, atomic_numbers[e]))


def trial_label(settings: recipe_label.Label, elements: Iterable[str], *, threads: int = 1) -> tuple[Atoms, Label]:
    """Frame and label of a crude calculation with the engine, commands and data files of `settings`.

    Parameters
    ----------
    elements
        Of the campaign; the easiest is tried.
    """
    engine = import_module(f"aldriver.label.{settings.engine}")
    cheap = getattr(engine, "cheap", lambda block: block)
    crude = cheap(settings).model_copy(update={"timeout_s": min(settings.timeout_s, LIMIT_S), "retries": 0})
    element = easiest(elements)
    frame = trial_frame(element)
    labeler, _ = engine.make(crude, (element,), threads=threads)
    with tempfile.TemporaryDirectory(prefix="aldriver-trial-") as folder:
        return frame, labeler.label(frame, Path(folder))


def trial_text(frame: Atoms, label: Label) -> str:
    """A sentence on a trial: what was computed, by which version, in what time, and what came of it."""
    p = label.provenance
    code = " ".join(str(x) for x in (p.get("code"), p.get("version")) if x)
    where = f" at {p['binary']}" if p.get("binary") else ""
    done = f"{frame.get_chemical_formula()} in {label.seconds:.1f} s ({label.cpu_s:.1f} s CPU) by {code}{where}"
    if label.ok:
        return done
    if label.status == "unconverged":
        return f"{done}; it runs, though the SCF of this crude calculation did not converge"
    return f"{frame.get_chemical_formula()}: {label.status}: {label.reason}"
