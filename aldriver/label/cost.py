"""What a label will cost, from what labels have cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

CUBIC = 3.0
"""Power of the number of atoms with which plane-wave DFT grows (Payne et al., Rev. Mod. Phys. 64, 1045 (1992))."""


def expected_cost(n_atoms: ArrayLike, known_atoms: ArrayLike, known_cost: ArrayLike) -> NDArray[np.float64] | None:
    """Expected cost of labels, in the unit of `known_cost`; None while no label has a cost.

    A power of the number of atoms N: its exponent is fitted where labels of several sizes are known, within 1 and 3,
    and is 3 otherwise; its factor makes the known costs come out right in the sum.

    Parameters
    ----------
    n_atoms
        (n,) atoms of the frames in question.
    known_atoms, known_cost
        (m,) atoms and cost of finished labels; those that cost nothing (cached) are left out.
    """
    size, cost = np.asarray(known_atoms, dtype=float), np.asarray(known_cost, dtype=float)
    paid = (cost > 0) & (size > 0)
    if not paid.any():
        return None
    size, cost = size[paid], cost[paid]
    power = CUBIC
    if np.ptp(size) > 0:
        power = float(np.clip(np.polyfit(np.log(size), np.log(cost), 1)[0], 1.0, CUBIC))
    return np.asarray(cost.sum() / (size**power).sum() * np.asarray(n_atoms, dtype=float) ** power, dtype=float)
