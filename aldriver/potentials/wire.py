"""Messages between two Pythons: a JSON header and raw arrays, over pipes. Nothing received is ever executed.

A message is the length of its header (8 bytes, big-endian), the header (JSON: the body, and name, type and shape of
each array) and the arrays' bytes. What is said is ``remote.py``'s and ``remote_worker.py``'s business.
"""

from __future__ import annotations

import json
import math
import os
import select
import struct
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.potentials.base import Prediction

PROTOCOL = 1
Arrays = dict[str, NDArray[Any]]
_TYPES = frozenset({"<f8", "<i8", "|b1"})
_LENGTH = struct.Struct(">Q")
_MAX_HEADER = 1 << 28


def send(stream: BinaryIO, body: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
    """Write one message."""
    plain = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    listed = [[name, array.dtype.str, list(array.shape)] for name, array in plain.items()]
    header = json.dumps({"body": dict(body), "arrays": listed}).encode()
    stream.write(b"".join([_LENGTH.pack(len(header)), header, *(array.tobytes() for array in plain.values())]))
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], Arrays]:
    """Read one message.

    Raises
    ------
    EOFError
        When the other side is gone.
    ValueError
        When it is not a message.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > _MAX_HEADER:
        raise ValueError("not a message")
    header = json.loads(_exactly(stream, length))
    arrays: Arrays = {}
    for name, kind, shape in header["arrays"]:
        if kind not in _TYPES:
            raise ValueError(f"arrays of type {kind} are not sent")
        dtype = np.dtype(kind)
        data = _exactly(stream, dtype.itemsize * math.prod(shape))
        arrays[name] = np.frombuffer(data, dtype=dtype).reshape(shape).copy()
    return header["body"], arrays


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if data is None or len(data) < count:
        raise EOFError("the other side has closed the pipe")
    return data


# ---- frames and predictions --------------------------------------------------------------------------------------


def pack_frames(frames: Sequence[Atoms]) -> Arrays:
    """What a potential reads of frames: species, positions, cell and periodicity."""
    return {
        "counts": np.array([len(a) for a in frames], dtype="<i8"),
        "numbers": _joined([a.numbers for a in frames], (), "<i8"),
        "positions": _joined([a.positions for a in frames], (3,), "<f8"),
        "cells": np.array([np.asarray(a.cell) for a in frames], dtype="<f8").reshape(-1, 3, 3),
        "pbc": np.array([a.pbc for a in frames], dtype="|b1").reshape(-1, 3),
    }


def unpack_frames(arrays: Arrays) -> list[Atoms]:
    """The inverse of :func:`pack_frames`."""
    ends = np.cumsum(arrays["counts"])[:-1]
    numbers, positions = np.split(arrays["numbers"], ends), np.split(arrays["positions"], ends)
    return [
        Atoms(numbers=n, positions=p, cell=cell, pbc=pbc)
        for n, p, cell, pbc in zip(numbers, positions, arrays["cells"], arrays["pbc"], strict=False)
    ]


def pack_rows(rows: Sequence[NDArray[Any]]) -> Arrays:
    """One (N, D) array per frame."""
    width = rows[0].shape[1] if rows else 0
    return {
        "counts": np.array([len(r) for r in rows], dtype="<i8"),
        "rows": _joined(rows, (width,), "<f8"),
    }


def unpack_rows(arrays: Arrays) -> list[NDArray[np.float64]]:
    """The inverse of :func:`pack_rows`."""
    return _split(arrays["rows"], arrays["counts"])


def pack_predictions(predictions: Sequence[Prediction]) -> Arrays:
    """Predictions as arrays; what only some frames have (stress) is marked."""
    arrays: Arrays = {
        "counts": np.array([len(p.forces) for p in predictions], dtype="<i8"),
        "energy": np.array([p.energy for p in predictions], dtype="<f8"),
        "forces": _joined([p.forces for p in predictions], (3,), "<f8"),
        "has_stress": np.array([p.stress is not None for p in predictions], dtype="|b1"),
        "stress": np.array([np.zeros(6) if p.stress is None else p.stress for p in predictions], dtype="<f8"),
    }
    magmoms = [p.magmoms for p in predictions if p.magmoms is not None]
    if magmoms:
        arrays["magmoms"] = _joined(magmoms, (), "<f8")
    features = [p.features for p in predictions if p.features is not None]
    if features:
        arrays["features"] = _joined(features, features[0].shape[1:], "<f8")
    return arrays


def unpack_predictions(arrays: Arrays) -> list[Prediction]:
    """The inverse of :func:`pack_predictions`."""
    counts = arrays["counts"]
    forces = _split(arrays["forces"], counts)
    magmoms = _split(arrays["magmoms"], counts) if "magmoms" in arrays else [None] * len(counts)
    features = _split(arrays["features"], counts) if "features" in arrays else [None] * len(counts)
    return [
        Prediction(
            energy=float(arrays["energy"][k]),
            forces=forces[k],
            stress=arrays["stress"][k] if arrays["has_stress"][k] else None,
            magmoms=magmoms[k],
            features=features[k],
        )
        for k in range(len(counts))
    ]


def _split(array: NDArray[Any], counts: NDArray[Any]) -> list[NDArray[Any]]:
    return np.split(array, np.cumsum(counts)[:-1]) if len(counts) else []


def _joined(arrays: Sequence[NDArray[Any]], shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros((0, *shape), dtype=dtype)


# ---- the worker's side of the pipes ------------------------------------------------------------------------------


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for messages alone, and the first one said: that the worker is there.

    Whatever a library prints goes to standard error from now on.
    The process ends as soon as nobody holds the other end of its standard input, whatever it is doing.
    """
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    threading.Thread(target=_end_with, args=(incoming.fileno(), os.getppid()), daemon=True).start()
    send(outgoing, {"protocol": PROTOCOL})
    return incoming, outgoing


def error_message(error: Exception) -> dict[str, str]:
    """What is said of an error; one that nobody expected is printed with its traceback."""
    if isinstance(error, AldriverError):
        return {"error": type(error).__name__, "message": str(error)}
    traceback.print_exception(error)
    return {"error": "AldriverError", "message": f"{type(error).__name__}: {error}"}


def _end_with(descriptor: int, parent: int) -> None:
    watch = select.poll()
    watch.register(descriptor, 0)  # a hang-up is always reported
    while not watch.poll(1000) and os.getppid() == parent:
        pass
    os._exit(0)
