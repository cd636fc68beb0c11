"""The energy reference of a set of labels: an energy for each element, and who does not share it.

Total energies of DFT carry a constant per element that depends on code, pseudopotential and correction: bcc iron stands
at −4479.9, −3460.9 and −8.4 eV/atom in public data. A label whose energy is further than any physics from what its
composition says comes from elsewhere. Shifting energies for a training is ``train/energies.py``; labels stay raw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

MAX_OFFSET_EV_ATOM = 2.0
_MAX_LEVERAGE = 1.0
_MOST_FITTED = 1000


@dataclass(frozen=True)
class EnergyReference:
    """Energy of each element (eV), and the compositions it was fitted to.

    Attributes
    ----------
    energies
        Element: its energy, eV.
    fractions
        (n, elements) mole fractions of the labels behind a fit; empty when the energies were given.
    """

    energies: Mapping[str, float]
    fractions: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))

    def offset_eV_atom(self, frame: Atoms, energy: float) -> float | None:
        """Energy per atom (eV) above the reference of its composition; None where that says nothing.

        It says nothing of a composition with a new element, or beyond those fitted to: a leverage xᵀ(XᵀX)⁻¹x above
        that of any label in the fit (1) means extrapolation.
        """
        symbols = frame.get_chemical_symbols()
        if not symbols or any(s not in self.energies for s in symbols):
            return None
        x = _fractions([frame], list(self.energies))[0]
        if self.fractions.size:
            products, inverse = self._products
            spanned = np.linalg.norm(products @ inverse @ x - x) < 1e-6
            if not spanned or float(x @ inverse @ x) > _MAX_LEVERAGE + 1e-9:
                return None
        return energy / len(symbols) - float(x @ np.array(list(self.energies.values())))

    @cached_property
    def _products(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """XᵀX and its inverse, within what the compositions span."""
        products = self.fractions.T @ self.fractions
        return products, np.asarray(np.linalg.pinv(products, rcond=1e-10, hermitian=True), dtype=np.float64)

    def problem(self, frame: Atoms, energy: float, *, most: float = MAX_OFFSET_EV_ATOM) -> str:
        """Why an energy (eV) is not of this reference, with the shift that would bring it there; empty when it is."""
        offset = self.offset_eV_atom(frame, energy)
        if offset is None or abs(offset) <= most:
            return ""
        return (
            f"the energy is {energy / len(frame):.1f} eV/atom, {offset:+.1f} from the labels of its level (limit "
            f"{most:g}): another energy reference (code, pseudopotential or correction), or a frame far from all "
            "others. If it is the reference, keep such labels in a store of their own; a shift of "
            f"{-offset:+.3f} eV/atom would put them on this one"
        )


def fit_energies(frames: Sequence[Atoms], energies: Sequence[float]) -> EnergyReference | None:
    """Energy of each element (eV) that explains total energies (eV) best by composition, unmoved by strangers.

    Least absolute deviations of E/N on the mole fractions, by linear programming (Charnes, Cooper and Ferguson,
    Manage. Sci. 1, 138 (1955)): a minority with another reference does not move it, as it would move a mean. Where the
    compositions cannot tell elements apart, the solution of least norm is taken. Of two halves the earlier one stands.
    Of many labels every n-th of each composition stands for all: linear programming takes the square of their number.

    Returns
    -------
    EnergyReference or None
        None without frames.
    """
    if not frames:
        return None
    elements = sorted({s for f in frames for s in f.get_chemical_symbols()})
    fractions = _fractions(frames, elements)
    per_atom = np.asarray(energies, dtype=float) / np.array([len(f) for f in frames])
    kept = _thinned(fractions)
    fractions, per_atom = fractions[kept], per_atom[kept]
    # what the compositions span: along other directions nothing is known, and the solution of least norm has nothing
    _, sizes, axes = np.linalg.svd(fractions, full_matrices=False)
    axes = axes[sizes > 1e-10 * sizes.max()]
    # two equal halves have a whole interval of medians: a little more weight for the earlier labels decides
    weights = 1.0 + 0.2 / np.arange(1, len(kept) + 1)
    solution = axes.T @ _least_absolute(fractions @ axes.T, per_atom, weights)
    return EnergyReference({e: float(x) for e, x in zip(elements, solution, strict=True)}, fractions)


def _thinned(fractions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows to fit to: all, or every n-th of each composition, at least a few of it."""
    if len(fractions) <= _MOST_FITTED:
        return np.arange(len(fractions))
    stride = int(np.ceil(len(fractions) / _MOST_FITTED))
    _, group = np.unique(fractions.round(9), axis=0, return_inverse=True)
    rows = [np.flatnonzero(group == g) for g in range(int(group.max()) + 1)]
    return np.sort(np.concatenate([r[:: min(stride, max(1, len(r) // 5))] for r in rows]))


def _least_absolute(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The b of the least Σ w |x b − y|: with u, v ≥ 0, the least Σ w (u + v) with x b + u − v = y."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, eye_array, hstack

    n, m = x.shape
    middle = float(np.median(y))  # numbers of the size of energy differences, whatever the reference
    shift = np.linalg.lstsq(x, np.full(n, middle), rcond=None)[0]
    found = linprog(
        np.concatenate([np.zeros(m), weights, weights]),
        A_eq=hstack([csr_array(x), eye_array(n), -eye_array(n)]),
        b_eq=y - x @ shift,
        bounds=[(None, None)] * m + [(0, None)] * (2 * n),
        method="highs",
    )
    return np.asarray(found.x[:m] + shift, dtype=np.float64)


def _fractions(frames: Sequence[Atoms], elements: Sequence[str]) -> NDArray[np.float64]:
    counts = np.array([[f.get_chemical_symbols().count(e) for e in elements] for f in frames], dtype=float)
    return np.asarray(counts / counts.sum(axis=1)[:, None], dtype=np.float64)
