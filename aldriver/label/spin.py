"""The spin state of labels: whether moments are those a campaign expects, and the second start of those that are not.

Owns the judgement and the second run; starting moments are set by the engines (``Labeler.with_start``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ase import Atoms
from pydantic import BaseModel

from aldriver.label.base import Label, Labeler

Block = TypeVar("Block", bound=BaseModel)

USUAL: Mapping[str, tuple[float, float]] = {"Fe": (1.0, 4.0), "Co": (0.8, 3.0), "Ni": (0.2, 1.5)}
"""Mean |moment| (µB) of the ferromagnetic metals, for labels of which nothing else is known. bcc Fe has 2.2, hcp Co 1.6
and fcc Ni 0.6 (Kittel, Introduction to Solid State Physics, ch. 12); the windows leave room for strain, defects and
alloying."""

MAGNETIC = ("Cr", "Mn", "Fe", "Co", "Ni")
"""Elements whose metals or alloys are magnetic."""

STARTS = ("starting_moments_muB", "magmoms", "starting_magnetization")
"""Keys of an engine's block that hold starting moments by element, the one to use first."""


def with_start(block: Block, moments: Mapping[str, float]) -> Block | None:
    """An engine's block with other starting moments; None when it has none, or is not spin-polarised."""
    key = next((k for k in STARTS if k in type(block).model_fields), None)
    if key is None or not getattr(block, "spin", True):
        return None
    return block.model_copy(update={key: getattr(block, key) | dict(moments)})


def spin_warnings(elements: Iterable[str], block: BaseModel, engine: str) -> list[str]:
    """Magnetic elements that are labelled without spin, in a sentence."""
    magnetic = [e for e in elements if e in MAGNETIC]
    if not magnetic or getattr(block, "spin", True):
        return []
    names = ", ".join(magnetic)
    return [f"{names}: labelled without spin, which is wrong for magnetic metals; set label.{engine}.spin"]


def usual_moments(frame: Atoms) -> dict[str, tuple[float, float]]:
    """Windows of a metal that is ferromagnetic by what it is made of: more than half Fe, Co and Ni; else none."""
    symbols = frame.get_chemical_symbols()
    magnetic = sum(s in USUAL for s in symbols)
    return {e: USUAL[e] for e in USUAL if e in symbols} if 2 * magnetic > len(symbols) else {}


def moment_problem(label: Label, frame: Atoms, moments: Mapping[str, tuple[float, float]]) -> str:
    """Why a label is of another spin state than `moments` (element: least, greatest mean |moment|, µB) asks for.

    Without site moments the cell's absolute magnetisation ∫|m| counts, or else the size of the total one, per atom of
    the elements in question: an upper and a lower bound of the mean |moment|.
    """
    symbols = np.array(frame.get_chemical_symbols())
    present = {e: window for e, window in moments.items() if (symbols == e).any()}
    if not present:
        return ""
    if label.magmoms is not None:
        for element, (least, greatest) in present.items():
            mean = float(np.abs(label.magmoms[symbols == element]).mean())
            if not least <= mean <= greatest:
                return _elsewhere(f"the mean moment of {element} is {mean:.2f} µB", least, greatest)
        return ""
    sites = int(sum((symbols == e).sum() for e in present))
    least, greatest = min(w[0] for w in present.values()), max(w[1] for w in present.values())
    names = ", ".join(present)
    absolute, total = (label.provenance.get(k) for k in ("absolute_magnetisation", "magnetisation"))
    if absolute is None and total is None:
        if least == 0:
            return ""
        return f"no magnetic moments, but {names} is expected to have {least:g} to {greatest:g} µB"
    if absolute is not None and absolute / sites < least:
        return _elsewhere(f"the cell has {absolute / sites:.2f} µB per atom of {names}", least, greatest)
    if absolute is None and total is not None and abs(total) / sites < least:
        return _elsewhere(
            f"the cell has a total of {abs(total) / sites:.2f} µB per atom of {names}, without site moments to tell "
            "antiferromagnetic order from none", least, greatest
        )  # fmt: skip
    if total is not None and abs(total) / sites > greatest:
        return _elsewhere(f"the cell has {abs(total) / sites:.2f} µB per atom of {names}", least, greatest)
    return ""


def _elsewhere(what: str, least: float, greatest: float) -> str:
    return f"{what}, expected {least:g} to {greatest:g}: another spin state"


def second_start(
    first: Label,
    frame: Atoms,
    labeler: Labeler,
    workdir: Path,
    *,
    start: Mapping[str, float],
    moments: Mapping[str, tuple[float, float]],
) -> Label:
    """The label of one more run from other starting moments, when it has the expected spin state; else the first.

    Everything but the starting moments stays, so the level of theory does. The correction is recorded, and so is what
    came of it: of two converged spin states in the window the campaign's is the one it asked for, not the lower one.
    """  # fmt: skip
    other = labeler.with_start(start) if start else None
    problem = moment_problem(first, frame, moments)
    if other is None or not problem:
        return first
    folder = Path(workdir) / "second-start"
    folder.mkdir()
    label = other.label(frame, folder)
    note: dict[str, Any] = {"what": "second start", "starting_moments": dict(start), "because": problem}
    note |= {"first_energy": first.energy, "second_status": label.status, "second_energy": label.energy}
    seconds, cpu_s = first.seconds + label.seconds, first.cpu_s + label.cpu_s
    if label.status == "cancelled":
        return replace(label, seconds=seconds, cpu_s=cpu_s)
    good = label.ok and not moment_problem(label, frame, moments)
    kept = label if good else first
    corrections = [*kept.provenance.get("corrections", []), note]
    provenance = kept.provenance | {"corrections": corrections}
    return replace(kept, provenance=provenance, seconds=seconds, cpu_s=cpu_s)
