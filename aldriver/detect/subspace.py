"""A principal subspace of descriptor rows: Q-residual (off it) and Hotelling's T² (far out inside it).

One :class:`Subspace` describes one element. Which rows go in, and when a value is too large, is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import InputError

_RANK_TOLERANCE = 1e-10
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Subspace:
    """Principal components of n rows with p columns.

    Attributes
    ----------
    mean
        (p,) µ of the fitted rows.
    components
        (k, p) orthonormal rows, Wᵀ in eq. 4.
    variances
        (k,) variance of the fitted rows along each component (n − 1 in the denominator), largest first.
    spread
        Total variance (trace of the covariance) of the fitted rows, never below rounding; dividing Q by it makes
        elements comparable.
    rows
        n.
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    variances: NDArray[np.float64]
    spread: float
    rows: int

    @classmethod
    def fit(cls, rows: NDArray[np.float64], *, components: int | float) -> Subspace:
        """Fit on (n, p) rows.

        Fewer components are kept when there are fewer than two rows for each, or when the rows do not vary along
        them: a variance estimated from nothing would make T² explode. All the rest counts as Q.

        Parameters
        ----------
        components
            How many; or, below 1, the share of the total variance that the fewest components must explain.

        Raises
        ------
        InputError
            When there is no row, or a value is not finite.
        """
        x = np.asarray(rows, dtype=float)
        if x.ndim != 2 or len(x) == 0:
            raise InputError("a subspace needs at least one row of descriptors")
        if not np.isfinite(x).all():
            raise InputError("descriptors hold values that are not finite numbers")
        n, p = x.shape
        mean = x.mean(axis=0)
        total = float(x.var(axis=0, ddof=1).sum()) if n > 1 else 0.0
        floor = max(_ROUNDING * float(np.mean(np.sum(x * x, axis=1))), np.finfo(float).tiny)
        wanted = p if components < 1 else int(components)
        k = min(wanted, (n - 1) // 2, p)
        if k < 1 or total <= floor:
            axes, variances = np.zeros((0, p)), np.zeros(0)
        else:
            axes, variances = _principal(x, k)
            keep = variances > max(_RANK_TOLERANCE * total, floor)
            axes, variances = axes[keep], variances[keep]
        if components < 1 and len(variances):
            enough = int(np.searchsorted(np.cumsum(variances) / total, components - _ROUNDING)) + 1
            axes, variances = axes[:enough], variances[:enough]
        return cls(mean=mean, components=axes, variances=variances, spread=max(total, floor), rows=n)

    def scores(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates in the subspace, (m, k): Z = (X − µ)W (Wong & Yang 2026, eq. 4)."""
        return (np.asarray(rows, dtype=float) - self.mean) @ self.components.T

    def q_residual(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared distance of each row from the subspace, (m,), in squared descriptor units.

        Wong & Yang 2026, eqs. 5–7: the sum over columns of (X − X̂)², X̂ = ZWᵀ + µ. (Their eq. 6 is printed with the
        sign of a negative square; the text describes the squared residual, which is what is computed.)
        """
        residual = np.asarray(rows, dtype=float) - self.mean
        residual -= (residual @ self.components.T) @ self.components
        return np.einsum("ij,ij->i", residual, residual)

    def t2(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Hotelling's T² of each row, (m,): Σ z²/λ over the kept components.

        Jackson & Mudholkar, Technometrics 21, 341 (1979). Dimensionless; its mean over the fitted rows is k(n − 1)/n.
        """
        z = self.scores(rows)
        return np.einsum("ij,ij,j->i", z, z, 1.0 / self.variances)

    @property
    def explained(self) -> float:
        """Share of the total variance inside the subspace."""
        return float(min(1.0, self.variances.sum() / self.spread))


def _principal(x: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from sklearn.decomposition import PCA

    # both solvers are exact and deterministic; the first is the cheaper one for tall matrices
    solver = "covariance_eigh" if x.shape[0] > x.shape[1] else "full"
    pca = PCA(n_components=k, svd_solver=solver).fit(x)
    return np.asarray(pca.components_), np.asarray(pca.explained_variance_)
