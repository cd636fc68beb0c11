"""One score out of several signals, as one formula: a product of their powers.

The powers are never negative, so the score never falls when a signal rises. They are fitted to force errors
(:func:`fitted`), or, without enough frames to fit, equal (:func:`balanced`). Which frames may be used is the caller's
knowledge: those that set the threshold may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FEWEST = 10
"""Frames below which nothing is fitted."""
SQUARED = ("soap_q", "soap_t2", "feature_q", "feature_t2")
"""Signals that are squared distances; the others are distances, or deviations in eV/Å."""
_FLOOR = 1e-6
_SMALLEST_ERROR = 0.1
"""Errors below this, in units of their root mean square, count as this: forces that symmetry keeps at nought are right
without telling anything about what the potential knows."""


@dataclass(frozen=True, kw_only=True)
class Formula:
    """``factor · Π (signal / unit)^power`` of an atom; a frame has the root mean square, or the largest, of its atoms.

    Attributes
    ----------
    kind
        ``fused`` (expected force error, eV/Å), ``balanced`` or ``single`` (no unit).
    powers, units
        By signal; powers are not negative. A value below 1e-6 of its unit counts as that.
    error
        ``rms`` or ``max``: how a frame's number is made of its atoms'.
    """

    kind: Literal["fused", "balanced", "single"]
    factor: float
    powers: dict[str, float]
    units: dict[str, float]
    error: Literal["rms", "max"] = "rms"

    def atoms(self, signals: Mapping[str, Array]) -> Array:
        """Score of each atom, (N,): infinite where any signal is, NaN where any is NaN."""
        found = np.zeros_like(next(iter(signals.values())), dtype=float)
        for name, power in self.powers.items():
            found += power * np.log(np.maximum(signals[name] / self.units[name], _FLOOR)) if power else 0.0
        with np.errstate(over="ignore"):
            score = self.factor * np.exp(found)
        values = np.stack(list(signals.values()))
        score = np.where(np.isinf(values).any(axis=0), np.inf, score)
        return np.where(np.isnan(values).any(axis=0), np.nan, score)

    def frame(self, atoms: Array) -> float:
        """Score of a frame from those of its atoms; NaN without atoms."""
        return aggregated(atoms, self.error)

    @property
    def text(self) -> str:
        """E.g. ``0.12 eV/Å × (soap_q / 1.3)^0.4 × (feature_distance / 8.1)^0.9``."""
        used = [f"({k} / {self.units[k]:.3g})^{p:.3g}" for k, p in self.powers.items() if p]
        if self.kind == "single":
            return next(iter(self.powers))
        head = f"{self.factor:.3g} eV/Å" if self.kind == "fused" else f"{self.factor:.3g}"
        return " × ".join([head, *used])


def aggregated(values: Array, error: str) -> float:
    """Root mean square, or the largest, of the values of a frame's atoms; NaN without atoms."""
    if len(values) == 0:
        return float("nan")
    return float(values.max()) if error == "max" else float(np.sqrt(np.mean(np.square(values))))


def single(signal: str, error: Literal["rms", "max"]) -> Formula:
    """A signal by itself."""
    return Formula(kind="single", factor=1.0, powers={signal: 1.0}, units={signal: 1.0}, error=error)


def balanced(typical: Mapping[str, float], error: Literal["rms", "max"]) -> Formula:
    """Geometric mean of the signals, each as a distance in units of what is typical of known frames.

    Unlike a mean of ranks it keeps growing beyond the known frames.
    """
    powers = {name: (0.5 if name in SQUARED else 1.0) / len(typical) for name in typical}
    units = {name: value if np.isfinite(value) and value > 0 else 1.0 for name, value in typical.items()}
    return Formula(kind="balanced", factor=1.0, powers=powers, units=units, error=error)


def fitted(
    signals: Sequence[Mapping[str, Array]], errors: Sequence[Array], error: Literal["rms", "max"]
) -> Formula | None:
    """Expected force error by non-negative least squares of log |error| on log signals, each frame of equal weight.

    The factor is then set so that the frames' scores agree with their errors in the (geometric) mean.

    Parameters
    ----------
    signals
        Of each frame, (N,) each, finite.
    errors
        (N,) lengths of the atoms' force errors, eV/Å.

    Returns
    -------
    Formula or None
        None with fewer than :data:`FEWEST` frames, or when no signal grows with the error.
    """
    from scipy.optimize import nnls

    if len(signals) < FEWEST:
        return None
    names = list(signals[0])
    values = {name: np.concatenate([one[name] for one in signals]) for name in names}
    units = {name: float(np.median(v)) or 1.0 for name, v in values.items()}
    x = np.stack([np.log(np.maximum(values[name] / units[name], _FLOOR)) for name in names], axis=1)
    lengths = np.concatenate(errors)
    smallest = max(_SMALLEST_ERROR * float(np.sqrt(np.mean(np.square(lengths)))), np.finfo(float).tiny)
    y = np.log(np.maximum(lengths, smallest))
    weight = np.concatenate([np.full(len(e), len(e) ** -0.5) for e in errors])[:, None]
    ones = np.ones((len(x), 1))
    powers, _ = nnls(weight * np.hstack([x, ones, -ones]), weight[:, 0] * y)
    powers = powers[: len(names)]
    if not powers.any():
        return None
    raw = Formula(kind="fused", factor=1.0, powers=dict(zip(names, map(float, powers), strict=True)), units=units)
    raw = Formula(**{**vars(raw), "error": error})
    off = [
        np.log(max(aggregated(e, error), smallest) / raw.frame(raw.atoms(s)))
        for s, e in zip(signals, errors, strict=True)
    ]
    return Formula(**{**vars(raw), "factor": float(np.exp(np.mean(off)))})
