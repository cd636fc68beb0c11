"""The energy reference of a set of labels: an energy for each element, and who does not share it.

Total energies of DFT carry a constant per element that depends on code, pseudopotential and correction: bcc iron stands
at −4479.9, −3460.9 and −8.4 eV/atom in public data. A label whose energy is further than any physics from what its
composition says comes from elsewhere. Shifting energies for a training is ``train/energies.py``; labels stay raw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms

MAX_OFFSET_EV_ATOM = 2.0
_ROUNDS = 60


def fit_energies(frames: Sequence[Atoms], energies: Sequence[float]) -> dict[str, float]:
    """Energy of each element (eV) that explains total energies (eV) best by composition, unmoved by strangers.

    Least absolute deviations of E/N on the mole fractions, by reweighted least squares (Schlossmacher, J. Am. Stat.
    Assoc. 68, 857 (1973)): a minority with another reference does not move it, as it would move a mean. Where the
    compositions cannot tell elements apart, the solution of least norm is taken. Of two halves the earlier one stands.
    """
    if not frames:
        return {}
    elements = sorted({s for f in frames for s in f.get_chemical_symbols()})
    counts = np.array([[f.get_chemical_symbols().count(e) for e in elements] for f in frames], dtype=float)
    n = counts.sum(axis=1)
    fractions, per_atom = counts / n[:, None], np.asarray(energies, dtype=float) / n
    # two equal halves have a whole interval of medians: a touch more weight for the earlier labels decides
    prior = 1.0 + 0.2 / np.arange(1, len(frames) + 1)
    weights = prior.copy()
    solution = np.zeros(len(elements))
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(fractions * root[:, None], per_atom * root, rcond=1e-10)[0]
        weights = prior / np.maximum(np.abs(fractions @ solution - per_atom), 1e-6)
        weights /= weights.max()
    return {e: float(x) for e, x in zip(elements, solution, strict=True)}


def offset_eV_atom(frame: Atoms, energy: float, energies: Mapping[str, float]) -> float | None:
    """Energy per atom (eV) above the reference of its composition; None when an element is not in it."""
    symbols = frame.get_chemical_symbols()
    if not symbols or any(s not in energies for s in symbols):
        return None
    return (energy - sum(energies[s] for s in symbols)) / len(symbols)


def energy_problem(
    frame: Atoms, energy: float, energies: Mapping[str, float], *, most: float = MAX_OFFSET_EV_ATOM
) -> str:
    """Why an energy does not belong to the reference, with the shift that would bring it there; empty when it does."""
    offset = offset_eV_atom(frame, energy, energies)
    if offset is None or abs(offset) <= most:
        return ""
    return (
        f"the energy is {energy / len(frame):.1f} eV/atom, {offset:+.1f} from the labels of its level (limit {most:g}):"
        " another energy reference (code, pseudopotential or correction), or a frame far from all others. If it is the "
        f"reference, keep such labels in a store of their own and shift them by {-offset:+.3f} eV/atom for the training"
    )
