"""Detector files: arrays as npz without pickle, and a ``config.json`` that holds their SHA-256 and its own digest.

Owns the format and the refusal of edited files; what the numbers mean is ``detector.py``'s.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import InputError, StoreError
from aldriver.core.records import dumps, jsonable, read_json
from aldriver.core.store import atomic_write
from aldriver.detect.descriptors import SoapDescriptor
from aldriver.detect.mahalanobis import Gaussian
from aldriver.detect.neighbour import Neighbours
from aldriver.detect.novelty import Novelty
from aldriver.detect.subspace import Subspace

if TYPE_CHECKING:
    from aldriver.core.recipe_detect import Detect

FORMAT = 1
CONFIG = "config.json"

Arrays = dict[str, NDArray[np.float64]]


def write(folder: Path, config: dict[str, Any], files: dict[str, Arrays]) -> None:
    """Write each group of arrays as ``NAME.npz`` and then ``config.json``; the same content gives the same bytes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sums = {}
    for name, arrays in files.items():
        buffer = io.BytesIO()
        np.savez(buffer, **{key: np.asarray(value) for key, value in arrays.items()})  # type: ignore[arg-type]
        sums[f"{name}.npz"] = hashlib.sha256(buffer.getvalue()).hexdigest()
        atomic_write(folder / f"{name}.npz", buffer.getvalue())
    whole = jsonable({"format": FORMAT, **config, "files": sums})
    atomic_write(folder / CONFIG, dumps({**whole, "digest": _digest(whole)}))


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """Config and arrays of a directory written by :func:`write`.

    Raises
    ------
    InputError
        When a file is missing, unreadable, of another format, or not the one that was written.
    """
    folder = Path(folder)
    try:
        config = read_json(folder / CONFIG)
    except StoreError as error:
        raise InputError(f"{folder}: not a saved detector ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{folder / CONFIG}: not a detector of format {FORMAT}; fit and save it again")
    digest = config.pop("digest", None)
    if digest != _digest(config):
        raise InputError(f"{folder / CONFIG}: was edited after it was saved; fit and save the detector again")
    files: dict[str, Arrays] = {}
    for name, digest in config["files"].items():
        path = folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: belongs to the detector but cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise InputError(f"{path}: was changed after it was saved (SHA-256 differs from {CONFIG})")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            files[path.stem] = {key: archive[key] for key in archive.files}
    return config, files


def pack(novelty: Novelty) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and plain numbers (by element) of the models."""
    arrays: Arrays = {}
    numbers: dict[str, Any] = {element: {} for element in novelty.elements}
    for kind, spaces in (("pca", novelty.subspaces), ("feature_pca", novelty.feature_spaces)):
        for element, s in spaces.items():
            arrays |= {f"{element}.{kind}.{key}": getattr(s, key) for key in ("mean", "components", "variances")}
            numbers[element][kind] = {"spread": s.spread, "rows": s.rows, "explained": s.explained}
    for element, g in novelty.gaussians.items():
        arrays |= {f"{element}.features.{key}": getattr(g, key) for key in ("mean", "whitening")}
        numbers[element]["features"] = {"shrinkage": g.shrinkage, "rows": g.rows}
    for element, near in novelty.neighbours.items():
        arrays[f"{element}.neighbours.rows"] = near.rows
    return arrays, numbers


def unpack(arrays: Arrays, numbers: dict[str, Any], settings: Detect) -> Novelty:
    """Models from what :func:`pack` gave."""
    novelty = Novelty(
        signals=tuple(s for s in dict.fromkeys(settings.signals) if s.startswith(("soap", "feature"))),
        elements=tuple(numbers),
        soap=SoapDescriptor(numbers, settings.soap) if settings.wants("soap") else None,
    )
    for element, entry in numbers.items():
        for kind, spaces in (("pca", novelty.subspaces), ("feature_pca", novelty.feature_spaces)):
            if kind in entry:
                mean, axes, variances = (arrays[f"{element}.{kind}.{k}"] for k in ("mean", "components", "variances"))
                known = {key: entry[kind][key] for key in ("spread", "rows")}
                spaces[element] = Subspace(mean=mean, components=axes, variances=variances, **known)
        if "features" in entry:
            mean, whitening = (arrays[f"{element}.features.{k}"] for k in ("mean", "whitening"))
            novelty.gaussians[element] = Gaussian(mean=mean, whitening=whitening, **entry["features"])
        if f"{element}.neighbours.rows" in arrays:
            novelty.neighbours[element] = Neighbours(rows=arrays[f"{element}.neighbours.rows"])
    return novelty


def _digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
