"""Uncertainty of forces from the last layer of the network: exact, or by sampled last layers.

Owns the statistics; the forces G of the layer's inputs (F = G·w) are the potential's, see
``Potential.last_layer_forces``. Last-layer prediction rigidity: Bigi, Chong, Ceriotti & Grasselli, Mach. Learn.: Sci.
Technol. 5, 045018 (2024), here with the forces of the known frames in the covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import InputError

Array = NDArray[np.float64]
RIDGES = 10.0 ** np.arange(-10.0, 3.0)
"""Tried regularisers ς², in units of the mean eigenvalue of GᵀG."""
UNCALIBRATED_RIDGE = 1e-6
_TINY = 1e-300


@dataclass(frozen=True, kw_only=True)
class LastLayer:
    """Covariance S = (GᵀG + ς²)⁻¹ of the weights of a last layer with D inputs.

    Attributes
    ----------
    axes, eigenvalues
        (D, D) columns and (D,) eigenvalues of GᵀG over the known frames.
    ridge
        ς².
    scale
        α, eV/Å: σ² = α² g S gᵀ. 1 until :meth:`calibrated`, and then the result has no unit.
    sampled
        (D, K) standard normal numbers of K sampled layers; K = 0 is the exact variance.
    """

    axes: Array
    eigenvalues: Array
    ridge: float
    scale: float
    sampled: Array

    @classmethod
    def fit(cls, forces: Sequence[Array], *, heads: int = 0, seed: int = 0) -> LastLayer:
        """From (N, 3, D) forces of the inputs of known frames.

        Parameters
        ----------
        heads
            K sampled layers; 0 for the exact variance.

        Raises
        ------
        InputError
            When there is no frame, or a number is not finite.
        """
        if not forces:
            raise InputError("the last layer's covariance needs at least one known frame")
        width = forces[0].shape[-1]
        gram = np.zeros((width, width))
        for one in forces:
            rows = one.reshape(-1, width)
            gram += rows.T @ rows
        if not np.isfinite(gram).all():
            raise InputError("forces of the last layer's inputs are not finite numbers on a known frame")
        eigenvalues, axes = np.linalg.eigh(gram)
        eigenvalues = np.maximum(eigenvalues, 0.0)
        mean = max(float(eigenvalues.mean()), _TINY)
        sampled = np.random.default_rng(seed).normal(size=(width, heads))
        return cls(axes=axes, eigenvalues=eigenvalues, ridge=UNCALIBRATED_RIDGE * mean, scale=1.0, sampled=sampled)

    def calibrated(self, forces: Sequence[Array], errors: Sequence[Array]) -> LastLayer:
        """With the ς² and α that make held-out force errors most likely, as normal with variance α² g S gᵀ.

        For each ς² tried, the best α² is the mean of error²/(g S gᵀ); so neither is guessed.

        Parameters
        ----------
        forces
            (N, 3, D) of frames that were not fitted on.
        errors
            (N, 3) label − prediction, eV/Å.

        Raises
        ------
        InputError
            When there is no finite error.
        """
        width = len(self.axes)
        projected = np.concatenate([np.zeros((0, width)), *(g.reshape(-1, width) for g in forces)]) @ self.axes
        squared = np.concatenate([np.zeros(0), *(np.ravel(e) for e in errors)]) ** 2
        usable = np.isfinite(squared) & np.isfinite(projected).all(axis=1)
        if not usable.any() or not squared[usable].any():
            raise InputError("the last layer's scale needs held-out frames with finite force errors that are not all 0")
        projected, squared = projected[usable] ** 2, squared[usable]
        best, chosen = np.inf, (self.ridge, self.scale)
        for ridge in RIDGES * max(float(self.eigenvalues.mean()), _TINY):
            variance = np.maximum(projected @ (1.0 / (self.eigenvalues + ridge)), _TINY)
            scale = float(np.mean(squared / variance))
            loss = float(np.mean(np.log(variance))) + np.log(scale)
            if loss < best - 1e-12:
                best, chosen = loss, (float(ridge), float(np.sqrt(scale)))
        return replace(self, ridge=chosen[0], scale=chosen[1])

    @property
    def directions(self) -> Array | None:
        """(D, K) what to ask the potential for: sampled deviations of the weights; None for all inputs."""
        return self._root @ self.sampled if self.sampled.shape[1] else None

    def deviations(self, forces: Array) -> Array:
        """Standard deviation of the force vector of each atom, (N,): √(Σ over x, y, z of σ²).

        Parameters
        ----------
        forces
            (N, 3, D) of the inputs, or (N, 3, K) of :attr:`directions`.
        """
        if not self.sampled.shape[1]:
            return self.scale * np.sqrt(np.square(forces @ self._root).sum(axis=(1, 2)))
        # the mean of the sampled deviations is known to be zero: K samples give K degrees of freedom
        return self.scale * np.sqrt(np.square(forces).sum(axis=1).mean(axis=1))

    @property
    def _root(self) -> Array:
        return self.axes / np.sqrt(self.eigenvalues + self.ridge)
