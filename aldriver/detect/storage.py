"""Detector files: arrays as npz without pickle, and a ``config.json`` that holds their SHA-256 and its own digest.

Owns the format and the refusal of edited files; what the numbers mean is ``detector.py``'s.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import InputError, StoreError
from aldriver.core.records import dumps, jsonable, read_json
from aldriver.core.store import atomic_write
from aldriver.detect.descriptors import SoapDescriptor
from aldriver.detect.llpr import LastLayer
from aldriver.detect.mahalanobis import Gaussian
from aldriver.detect.neighbour import Neighbours
from aldriver.detect.novelty import Novelty
from aldriver.detect.signals import Signals
from aldriver.detect.subspace import Subspace

if TYPE_CHECKING:
    from aldriver.core.recipe_detect import Detect
    from aldriver.potentials.base import Potential

FORMAT = 2
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
    if not isinstance(config, dict) or config.get("format") not in (1, FORMAT):
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
    return (config, files) if config["format"] == FORMAT else _from_format_1(config, files)


def _from_format_1(config: dict[str, Any], files: dict[str, Arrays]) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """A detector of format 1 knew no force errors: thresholds by signal are all it had."""
    from aldriver.detect.calibrate import Threshold
    from aldriver.detect.verdict import by_quantile

    thresholds = {k: Threshold(**t) for k, t in config["thresholds"].items()}
    scores = np.zeros(0)
    saved = None
    if thresholds:
        scores = np.max([files["heldout_scores"][k] / t.value for k, t in thresholds.items()], axis=0)
        saved = by_quantile(thresholds, list(scores)).as_dict()
    config = {**config, "format": FORMAT, "calibration": saved, "members": [], "last_layer": None}
    return config, {**files, "calibration": {"score": scores}}


def write_members(folder: Path, members: Sequence[Potential]) -> list[str]:
    """Save a committee as ``members/N``; returns the fingerprints."""
    from aldriver.potentials.bundle import save_bundle

    for k, member in enumerate(members):
        save_bundle(member, folder / "members" / str(k))
    return [member.fingerprint for member in members]


def read_members(folder: Path, fingerprints: Sequence[str], beside: Potential | None) -> tuple[Potential, ...]:
    """The committee again, on the device of the potential beside it.

    Raises
    ------
    InputError
        When a member is missing or is another one.
    """
    if not fingerprints:
        return ()
    from aldriver.potentials import load

    device = str(getattr(beside, "device", "cpu"))
    members = tuple(load(folder / "members" / str(k), device=device) for k in range(len(fingerprints)))
    for k, (member, fingerprint) in enumerate(zip(members, fingerprints, strict=True)):
        if member.fingerprint != fingerprint:
            raise InputError(f"{folder / 'members' / str(k)}: not the member that was saved with the detector")
    return members


def pack(signals: Signals) -> tuple[Arrays, dict[str, Any]]:
    """Arrays, and plain numbers for the config: ``elements`` (models by element) and ``last_layer``."""
    arrays, elements = _pack_novelty(signals.novelty)
    layer = signals.layer
    if layer is not None:
        arrays |= {f"last_layer.{key}": getattr(layer, key) for key in ("axes", "eigenvalues", "sampled")}
    return arrays, {
        "elements": elements,
        "last_layer": None if layer is None else {"ridge": layer.ridge, "scale": layer.scale},
    }


def unpack(arrays: Arrays, config: dict[str, Any], settings: Detect) -> Signals:
    """Signals from what :func:`pack` gave; members of a committee are left to :func:`read_members`."""
    layer = None
    if config["last_layer"] is not None:
        axes, eigenvalues, sampled = (arrays[f"last_layer.{key}"] for key in ("axes", "eigenvalues", "sampled"))
        layer = LastLayer(axes=axes, eigenvalues=eigenvalues, sampled=sampled, **config["last_layer"])
    novelty = _unpack_novelty(arrays, config["elements"], settings)
    return Signals(names=tuple(dict.fromkeys(settings.signals)), novelty=novelty, layer=layer)


def _pack_novelty(novelty: Novelty) -> tuple[Arrays, dict[str, Any]]:
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


def _unpack_novelty(arrays: Arrays, numbers: dict[str, Any], settings: Detect) -> Novelty:
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
