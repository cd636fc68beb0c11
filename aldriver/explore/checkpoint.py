"""A walker on disk while it walks: the samples so far and the engine's state, so that a killed walker goes on exactly.

What the engine's state is, is the engine's business; when one is taken, the walker's.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.errors import StoreError
from aldriver.core.records import dumps, read_json
from aldriver.core.store import atomic_write, disk_errors
from aldriver.explore.engine import Sample, State, sampled_atoms
from aldriver.explore.health import HealthLimits
from aldriver.explore.protocol import MDProtocol
from aldriver.potentials.base import Potential, Prediction

WALK = "walk.json"
Scored = tuple[Sample, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A walker as its checkpoint has it: engine state, samples with scores, wall seconds spent."""

    state: State
    samples: list[Scored]
    seconds: float


class Checkpoint:
    """The checkpoint of one walker in a folder of its own.

    Samples are written once, a file for each :meth:`save`; ``walk.json`` is replaced last and names what counts, so
    that a kill at any moment leaves the one before.

    Parameters
    ----------
    key
        Of :func:`walk_key`; a checkpoint of another walk is not gone on with, and goes.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.files: list[str] = []

    def load(self, start: Atoms) -> Resumed | None:
        """The walker so far, or None when there is nothing (or nothing readable) of this walk."""
        try:
            walk = read_json(self.folder / WALK)
            if walk["key"] != self.key:
                raise StoreError("of another walk")
            state = _read(self.folder / walk["state"])
            samples = [s for name in walk["files"] for s in _samples(start, _read(self.folder / name))]
        except (StoreError, OSError, ValueError, KeyError):
            self.clear()
            return None
        self.files = list(walk["files"])
        return Resumed(state=state, samples=samples, seconds=float(walk["seconds"]))

    def save(self, state: State, new: Sequence[Scored], seconds: float) -> None:
        """Add the samples since the last time, and the state at the last of them.

        Raises
        ------
        StoreError
            When the disk is full or not writable.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        step = new[-1][0].step
        name, names = f"state-{step}.npz", [*self.files, f"samples-{step}.npz"]
        _write(self.folder / names[-1], _arrays(new))
        _write(self.folder / name, state)
        walk = {"key": self.key, "step": step, "state": name, "files": names, "seconds": seconds}
        atomic_write(self.folder / WALK, dumps(walk))
        self.files = names
        for old in self.folder.glob("state-*.npz"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.files = []


def walk_key(potential: Potential, start: Atoms, protocol: MDProtocol, engine: str, health: HealthLimits) -> str:
    """Hash of all that a walk follows from: potential, start, protocol, engine and its version, health limits."""
    facts = [potential.fingerprint, protocol.to_json(), engine, metadata.version(engine), health]
    h = hashlib.sha256(json.dumps(facts, default=vars, sort_keys=True).encode())
    for array in (start.numbers, start.positions, np.asarray(start.cell), start.pbc, start.get_momenta()):
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()[:24]


def _arrays(samples: Sequence[Scored]) -> dict[str, Any]:
    frames, predictions = [s.atoms for s, _ in samples], [s.prediction for s, _ in samples]
    columns: dict[str, list[Any]] = {
        "step": [s.step for s, _ in samples],
        "swaps": [s.swaps for s, _ in samples],
        "positions": [a.positions for a in frames],
        "momenta": [a.get_momenta() for a in frames],
        "cell": [np.asarray(a.cell) for a in frames],
        "energy": [p.energy for p in predictions],
        "forces": [p.forces for p in predictions],
        "stress": [p.stress for p in predictions],
    }
    if all(p.magmoms is not None for p in predictions):
        columns["magmoms"] = [p.magmoms for p in predictions]
    for name in samples[0][1]:
        columns[f"score.{name}"] = [scores[name] for _, scores in samples]
    return {name: np.array(column) for name, column in columns.items()}


def _samples(start: Atoms, arrays: State) -> list[Scored]:
    names = [k.removeprefix("score.") for k in arrays if k.startswith("score.")]
    out = []
    for k, step in enumerate(arrays["step"].tolist()):
        prediction = Prediction(
            energy=float(arrays["energy"][k]),
            forces=arrays["forces"][k],
            stress=arrays["stress"][k],
            magmoms=arrays["magmoms"][k] if "magmoms" in arrays else None,
        )
        atoms = sampled_atoms(start, arrays["positions"][k], arrays["cell"][k], arrays["momenta"][k])
        tried, accepted = arrays["swaps"][k].tolist()
        sample = Sample(step=step, atoms=atoms, prediction=prediction, swaps=(tried, accepted))
        out.append((sample, {name: float(arrays[f"score.{name}"][k]) for name in names}))
    return out


def _write(path: Path, arrays: State) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    atomic_write(path, buffer.getvalue())


def _read(path: Path) -> State:
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except zipfile.BadZipFile as error:
        raise StoreError(f"{path}: is damaged ({error})") from error
