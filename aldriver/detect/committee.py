"""Spread of a committee: how far potentials refined from one start disagree on the forces.

Who is a member is decided by ``train/committee.py``; a spread is a number in eV/Å that is too small as a rule (members
of one start are almost parallel), which is why it is calibrated like any other signal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import InputError

Array = NDArray[np.float64]
FEWEST = 2


def spread(forces: Sequence[Array]) -> Array:
    """Standard deviation of the force vector of each atom over M members, (N,) eV/Å: √(Σ over x, y, z of s²).

    s² has M − 1 in its denominator.

    Raises
    ------
    InputError
        With fewer than two members.
    """
    check_size(len(forces))
    return np.sqrt(np.var(np.asarray(forces, dtype=float), axis=0, ddof=1).sum(axis=1))


def check_size(members: int) -> None:
    """Refuse a committee of fewer than two: a committee that has shrunk says nothing and must not say "accurate"."""
    if members < FEWEST:
        raise InputError(
            f"the signal committee needs at least {FEWEST} potentials, there is {members or 'none'}: give members, or "
            "remove committee from detect.signals"
        )
