"""Records: the small frozen results that stages hand on, and their JSON form (NaN never passes as a number)."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from aldriver.core.errors import StoreError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PropertyRecord:
    """One benchmarked property: a value, or the reason why there is none.

    Attributes
    ----------
    property, case
        e.g. ``bulk_modulus`` of ``bcc-Fe``.
    value, unit, error
        `error` is the numerical error (fit residual, finite difference) in the same unit, None where unknown.
    converged
        False when a relaxation stopped at its step limit: such a value is shown, never trusted.
    force_calls, atom_calls
        Force evaluations spent, and their sum weighted by the number of atoms.
    protocol
        Name and version of the protocol, e.g. ``elastic/1``.
    reason
        Empty, or why the value is missing or not to be trusted.
    curve
        Columns of the curve that the value was read from, by their names, the abscissa first; empty without one.
    """

    property: str
    case: str
    value: float | None
    unit: str
    error: float | None = None
    converged: bool = True
    force_calls: int = 0
    atom_calls: int = 0
    seconds: float = 0.0
    protocol: str = ""
    reason: str = ""
    curve: dict[str, list[float]] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)
            object.__setattr__(self, "converged", False)
            object.__setattr__(self, "reason", self.reason or "the calculation gave a number that is not finite")


def jsonable(obj: Any) -> Any:
    """Plain JSON types from dataclasses, paths and numpy; non-finite floats become None."""
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: jsonable(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    if isinstance(obj, dict):
        return {str(k): jsonable(v) for k, v in obj.items()}
    if isinstance(obj, list | tuple | set | frozenset):
        return [jsonable(v) for v in obj]
    if isinstance(obj, np.ndarray):
        finite = obj.dtype.kind in "iub" or (obj.dtype.kind == "f" and bool(np.isfinite(obj).all()))
        return obj.tolist() if finite else jsonable(obj.tolist())
    if isinstance(obj, np.generic):
        return jsonable(obj.item())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    if isinstance(obj, Path):
        return str(obj)
    return obj


def dumps(obj: Any, *, indent: int | None = 2) -> str:
    """JSON text of anything :func:`jsonable` understands."""
    return json.dumps(jsonable(obj), indent=indent, allow_nan=False)


def read_json(path: str | Path) -> Any:
    """Parse a JSON file; a damaged one is named in the error."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not readable as JSON ({error})") from error
