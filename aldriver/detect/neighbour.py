"""Distance to the nearest known atom in whitened feature space, with a bounded store of known rows.

One :class:`Neighbours` describes one element; whitening is ``mahalanobis.py``'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import InputError

MAX_STORED = 2000
"""Rows kept per element: scoring an atom costs so many distances."""
_CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Known rows of one element.

    Attributes
    ----------
    rows
        (m, d) whitened features, m ≤ :data:`MAX_STORED`.
    """

    rows: NDArray[np.float64]

    @classmethod
    def fit(cls, rows: NDArray[np.float64], *, most: int = MAX_STORED) -> Neighbours:
        """Keep (n, d) rows; of more than `most`, every ⌈n/most⌉-th.

        Raises
        ------
        InputError
            When there is no row.
        """
        x = np.asarray(rows, dtype=float)
        if x.ndim != 2 or len(x) == 0:
            raise InputError("a neighbour distance needs at least one row of features")
        return cls(rows=np.ascontiguousarray(x[:: -(-len(x) // most)]))

    def distance(self, rows: NDArray[np.float64], *, others: bool = False) -> NDArray[np.float64]:
        """Euclidean distance of each (m, d) row to the nearest known one, (m,); NaN where the row is not finite.

        Parameters
        ----------
        others
            For rows that may be stored themselves: take the second nearest, which gives known rows a distance that
            compares with that of new ones.
        """
        from scipy.spatial.distance import cdist

        x = np.asarray(rows, dtype=float)
        out = np.full(len(x), np.nan)
        usable = np.flatnonzero(np.isfinite(x).all(axis=1))
        for start in range(0, len(usable), _CHUNK):
            chunk = usable[start : start + _CHUNK]
            found = cdist(x[chunk], self.rows)
            if others and len(self.rows) > 1:
                out[chunk] = np.partition(found, 1, axis=1)[:, 1]
            else:
                out[chunk] = found.min(axis=1)
        return out
