"""Mahalanobis distance in the model's own feature space, with a shrunk covariance.

One :class:`Gaussian` describes one element's features; where features come from is the potential's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import InputError

_EIGENVALUE_FLOOR = 1e-8
_ROUNDING = 1e-12
_NARROWEST = 1e-3
"""Standard deviation of a column, in units of the columns' rms one, below which it is taken for this."""


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Mean and shrunk covariance of n feature rows of length d.

    Attributes
    ----------
    mean
        (d,).
    whitening
        (d, d) matrix A with A Aᵀ = Σ⁻¹: distances are norms of (x − µ)A.
    shrinkage
        Ledoit–Wolf intensity, 0 (plain covariance) to 1 (variances of the columns alone).
    rows
        n.
    """

    mean: NDArray[np.float64]
    whitening: NDArray[np.float64]
    shrinkage: float
    rows: int

    @classmethod
    def fit(cls, rows: NDArray[np.float64]) -> Gaussian:
        """Fit on (n, d) rows; the covariance is shrunk after Ledoit & Wolf, J. Multivar. Anal. 88, 365 (2004).

        Columns are brought to unit variance first, because shrinkage treats all directions alike and columns may be of
        different kinds (inputs of a readout and its hidden units).

        Raises
        ------
        InputError
            When there is no row, or a value is not finite.
        """
        x = np.asarray(rows, dtype=float)
        if x.ndim != 2 or len(x) == 0:
            raise InputError("a feature distance needs at least one row of features")
        if not np.isfinite(x).all():
            raise InputError("features hold values that are not finite numbers")
        mean, scale = x.mean(axis=0), _scales(x)
        x = x / scale
        if len(x) > 1:
            from sklearn.covariance import ledoit_wolf

            covariance, shrinkage = ledoit_wolf(x)
        else:  # one atom says nothing about scatter: only rounding keeps the distance finite
            covariance, shrinkage = np.zeros((x.shape[1], x.shape[1])), 1.0
        values, vectors = np.linalg.eigh(covariance)
        floor = max(
            _EIGENVALUE_FLOOR * float(values[-1]),
            _ROUNDING * float(np.mean(x * x)),
            np.finfo(float).tiny,
        )
        whitening = vectors / np.sqrt(np.maximum(values, floor)) / scale[:, None]
        return cls(mean=mean, whitening=whitening, shrinkage=float(shrinkage), rows=len(x))

    def whitened(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """(x − µ)A of each row, (m, d): of unit covariance over the fitted rows, but for the shrinkage."""
        return (np.asarray(rows, dtype=float) - self.mean) @ self.whitening

    def distance(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """√((x − µ)ᵀ Σ⁻¹ (x − µ)) of each row, (m,), dimensionless (Mahalanobis 1936)."""
        return np.linalg.norm(self.whitened(rows), axis=1)


def _scales(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(d,) what the columns are divided by: their standard deviations, no nought among them."""
    deviations = x.std(axis=0)
    usual = float(np.sqrt(np.mean(deviations**2)))
    return np.maximum(deviations, _NARROWEST * usual) if usual > 0 else np.ones_like(deviations)
