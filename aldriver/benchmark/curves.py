"""The highest point of a curve known at a few points. What the curve is, is the property modules' business."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline


def crest(x: NDArray[np.float64], y: NDArray[np.float64], *, level_ends: bool = False) -> tuple[float, float]:
    """Maximum of the cubic spline through points at even steps, and its numerical error.

    The error of a spline falls with the fourth power of the step, so that it is 1/15 of what the maximum changes when
    every second point is left out (L. F. Richardson, Philos. Trans. R. Soc. A 210, 307 (1911)).

    Parameters
    ----------
    x, y
        At least 5 points.
    level_ends
        Whether the slope at both ends is zero, as symmetry makes it on a path between two stationary points.
    """
    highest = _crest(x, y, level_ends)
    return highest, abs(_crest(x[::2], y[::2], level_ends) - highest) / 15


def _crest(x: NDArray[np.float64], y: NDArray[np.float64], level_ends: bool) -> float:
    spline = CubicSpline(x, y, bc_type="clamped" if level_ends else "not-a-knot")
    level = spline.derivative().roots(extrapolate=False)
    return float(np.max(spline(level[np.isfinite(level)]), initial=float(y.max())))
