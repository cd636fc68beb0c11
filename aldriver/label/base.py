"""The contract of the label room: how a label is specified (LabelSpec), what it is (Label) and who makes it (Labeler).

Which labels are good is ``gate.py``, where they are kept ``cache.py``, how an engine is run its own module.
"""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import StoreError
from aldriver.core.frames import PROVENANCE_KEYS, frame_hash, with_labels
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.core.records import dumps, jsonable

Status = Literal["ok", "unconverged", "failed", "timeout", "cancelled", "rejected"]


@dataclass(frozen=True, kw_only=True)
class LabelSpec:
    """How labels are made.

    Attributes
    ----------
    engine, method
        e.g. ``espresso`` and ``PBE, plane waves 20 Ry, k-grid 2x2x2``.
    settings
        All that decides the numbers (cutoffs, grids, hashes of the pseudopotentials), plain JSON types.
    timeout_s, retries
        How long one run may take, and how often a crash is tried again with the same input. Neither changes the
        numbers, so neither is part of the digest.
    effort
        Limits that decide whether a number comes out, not which (``max_scf_steps``): not in the digest either. A label
        that failed for lack of effort is tried again when these allow more.
    """

    engine: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 3600.0
    retries: int = 2
    effort: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, label: LabelBlock, method: str, settings: Mapping[str, Any], **effort: float) -> LabelSpec:
        """Spec of a recipe's label block."""
        return cls(
            engine=label.engine,
            method=method,
            settings=settings,
            timeout_s=label.timeout_s,
            retries=label.retries,
            effort=effort,
        )

    @property
    def level(self) -> str:
        """The level of theory in a line; labels of different levels are never trained on together."""
        return f"{self.engine}: {self.method} ({self.digest()[:8]})"

    def digest(self) -> str:
        """SHA-256 (16 hex characters) of engine, method and settings."""
        content = {"engine": self.engine, "method": self.method, "settings": jsonable(dict(self.settings))}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label of a frame of N atoms: a value (`status` ok), or the reason why there is none.

    Attributes
    ----------
    status
        ``ok``; ``unconverged`` (the physics did not converge); ``failed`` (crash, missing or damaged output, missing
        engine); ``timeout``; ``cancelled``; ``rejected`` (computed, but refused by the gate).
    reason
        Empty when ok, otherwise a sentence.
    energy, free_energy
        Total, raw (no correction of any kind), eV. `energy` is what potentials are trained on; the provenance says
        which of the engine's energies it is.
    forces
        (N, 3), eV/Å, in the order of the frame's atoms.
    stress
        (6,) Voigt xx, yy, zz, yz, xz, xy, eV/Å³ (ASE sign), or None when the engine gave none.
    magmoms
        (N,), µB, or None.
    provenance
        Code, version, settings, files, host, cost, parent frame.
    key
        Where it lies in the label store.
    seconds, cpu_s
        Wall time, and CPU time of the engine's processes plus our own.
    cached
        True when it was read from the store instead of computed now.
    """

    status: Status
    reason: str = ""
    energy: float | None = None
    free_energy: float | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    magmoms: NDArray[np.float64] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    seconds: float = 0.0
    cpu_s: float = 0.0
    cached: bool = False

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"'{self.status}' is not a label status; allowed: {', '.join(get_args(Status))}")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"a label with status '{self.status}' needs a reason")

    @property
    def ok(self) -> bool:
        """Whether there is a value to train on."""
        return self.status == "ok"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; numbers keep their full precision, non-finite ones become None."""
        data = jsonable(self)
        del data["cached"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Label:
        """The label of :meth:`to_json`.

        Raises
        ------
        StoreError
            When `data` is not the JSON form of a label.
        """
        try:
            values = dict(data)
            for name in ("forces", "stress", "magmoms"):
                if values.get(name) is not None:
                    values[name] = np.asarray(values[name], dtype=float)
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise StoreError(f"not a label: {error}") from error

    def labelled(self, frame: Atoms) -> Atoms:
        """Copy of `frame` that carries this label (``info['label_key']`` says which); only for labels that are ok."""
        if not self.ok or self.energy is None or self.forces is None:
            raise ValueError(f"label {self.key or '(no key)'} has no value: {self.status}: {self.reason}")
        return with_labels(
            frame,
            energy=self.energy,
            forces=self.forces,
            stress=self.stress,
            magmoms=self.magmoms,
            free_energy=self.free_energy,
            label_key=self.key,
        )


class Labeler(ABC):
    """Makes labels with one engine. ``label`` never raises for a frame that fails: the failure is the label."""

    def __init__(self) -> None:
        self._cancel = threading.Event()

    @property
    @abstractmethod
    def code_id(self) -> str:
        """Identity of the code that computes (part of the cache key): another build or potential, another label."""

    @abstractmethod
    def preflight(self) -> list[str]:
        """What is missing here before a label can be made, each a sentence with what to do; empty when ready."""

    @abstractmethod
    def label(self, frame: Atoms, workdir: Path) -> Label:
        """Label one frame, blocking; inputs and outputs stay in `workdir`."""

    def with_start(self, moments: Mapping[str, float]) -> Labeler | None:
        """The same labeler with other starting moments (by element, in the engine's own unit), else the same in all.

        None when the engine has no starting moments, or its run is not spin-polarised.
        """
        return None

    def warnings(self) -> list[str]:
        """What would work but looks unwise, each a sentence."""
        return []

    def cancel(self) -> None:
        """End the label in progress (from any thread); it and all later ones come back ``cancelled``."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancel.is_set()


def frame_problem(frame: Atoms, *, periodic: str = "") -> str:
    """Why no engine can compute a frame; empty when it can.

    Parameters
    ----------
    periodic
        What needs a cell that is periodic in three dimensions, if anything does.
    """
    if len(frame) == 0:
        return "the frame has no atoms"
    if not np.isfinite(frame.positions).all() or not np.isfinite(np.asarray(frame.cell)).all():
        return "positions or cell are not finite numbers"
    if periodic and (frame.cell.rank < 3 or not frame.pbc.all()):
        return f"{periodic} a cell that is periodic in three dimensions"
    return ""


def frame_provenance(frame: Atoms) -> dict[str, Any]:
    """Where a frame comes from: its id and, where known, group, generation, walker, step, system."""
    known = {k: jsonable(frame.info[k]) for k in PROVENANCE_KEYS if k in frame.info}
    return {"frame_id": frame_hash(frame), "n_atoms": len(frame), "formula": frame.get_chemical_formula()} | known


def settings_text(spec: LabelSpec) -> str:
    """The spec as readable JSON (kept beside each label)."""
    return dumps({"engine": spec.engine, "method": spec.method, "digest": spec.digest(), "settings": spec.settings})
