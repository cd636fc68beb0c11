"""All signals of atoms: novelty from their rows, and what only the potential itself can tell.

Owns frames → numbers by atom. Making one score of them is ``fuse.py``'s, thresholds are ``calibrate.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.detect import committee
from aldriver.detect.descriptors import unusable
from aldriver.detect.llpr import LastLayer
from aldriver.detect.novelty import Novelty

if TYPE_CHECKING:
    from aldriver.core.recipe_detect import Detect
    from aldriver.potentials.base import Potential

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(kw_only=True)
class Signals:
    """What a detector measures.

    Attributes
    ----------
    names
        In the order of the recipe.
    novelty
        Models of SOAP and features.
    layer
        None when not asked for.
    members
        Committee beside the potential itself.
    """

    names: tuple[str, ...]
    novelty: Novelty
    layer: LastLayer | None = None
    members: tuple[Potential, ...] = ()

    @property
    def asks_potential(self) -> bool:
        """Whether a signal cannot be had from features alone."""
        return self.layer is not None or "committee" in self.names

    def of_atoms(
        self,
        frames: Sequence[Atoms],
        potential: Potential | None,
        features: Sequence[Array | None] | None,
    ) -> list[tuple[dict[str, Array], str]]:
        """Signals of the atoms of each frame, and why a frame has none.

        Parameters
        ----------
        features
            (N, d) per frame, where they are known already.

        Raises
        ------
        InputError
            When a signal needs the potential and there is none.
        """
        frames = list(frames)
        if self.asks_potential and potential is None and frames:
            raise InputError("the signals last_layer and committee need the potential itself")
        given = features_of(frames, potential, features, wanted=self.novelty.needs_features)
        found = []
        for atoms, feats in zip(frames, given, strict=True):
            problem = unusable(atoms)
            if problem:
                found.append(({s: np.full(len(atoms), np.nan) for s in self.names}, problem))
                continue
            scores = self.novelty.atom_scores(self.novelty.rows(atoms, feats))
            if potential is not None and self.asks_potential:
                scores |= self._asked(atoms, potential)
            found.append(({name: scores[name] for name in self.names}, ""))
        return found

    def _asked(self, atoms: Atoms, potential: Potential) -> dict[str, Array]:
        """Signals of the potential itself; infinite for an element never fitted, or unknown to the potential."""
        scores: dict[str, Array] = {
            name: np.full(len(atoms), np.inf) for name in ("last_layer", "committee") if name in self.names
        }
        symbols = atoms.get_chemical_symbols()
        if not set(symbols) <= potential.elements:
            return scores
        known = np.isin(symbols, self.novelty.elements)
        if self.layer is not None:
            (forces,) = potential.last_layer_forces([atoms], self.layer.directions)
            scores["last_layer"][known] = self.layer.deviations(forces)[known]
        if "committee" in scores:
            scores["committee"][known] = self.committee_spread(atoms, potential)[known]
        return scores

    def committee_spread(self, atoms: Atoms, potential: Potential) -> Array:
        """Deviation of the members' forces on each atom, (N,) eV/Å."""
        return committee.spread([p.evaluate([atoms], stress=False)[0].forces for p in (potential, *self.members)])


def fit_layer(frames: Sequence[Atoms], potential: Potential | None, settings: Detect) -> tuple[LastLayer, list[Array]]:
    """The last layer's covariance over known frames, evenly thinned, and the forces it was made of.

    Raises
    ------
    InputError
        When there is no potential, or its family cannot say.
    """
    if potential is None:
        raise InputError("the signal last_layer needs the potential itself")
    forces = potential.last_layer_forces(thinned(frames, settings.last_layer.frames))
    return LastLayer.fit(forces, heads=settings.last_layer.heads), forces


def thinned(items: Sequence[T], most: int) -> list[T]:
    """Every ⌈n/most⌉-th of n items."""
    return list(items)[:: max(1, -(-len(items) // most))]


def others(potential: Potential | None, members: Sequence[Potential]) -> tuple[Potential, ...]:
    """Members of a committee beside the potential itself.

    Raises
    ------
    InputError
        When none is left: a committee of one has no spread.
    """
    own = potential.fingerprint if potential else None
    left = {m.fingerprint: m for m in members if m.fingerprint != own}
    committee.check_size(len(left) + (potential is not None))
    return tuple(left.values())


def features_of(
    frames: list[Atoms], potential: Potential | None, features: Sequence[Array | None] | None, *, wanted: bool
) -> list[Array | None]:
    """Per-frame features: the given ones, or the potential's; None for frames the potential cannot be asked about."""
    out: list[Array | None] = [None] * len(frames)
    if not wanted:
        return out
    if features is not None:
        if len(features) != len(frames):
            raise InputError(f"{len(features)} feature arrays for {len(frames)} frames")
        out = list(features)
    askable = potential.elements if potential else None
    missing = [
        i
        for i, atoms in enumerate(frames)
        if out[i] is None and not unusable(atoms) and (askable is None or set(atoms.get_chemical_symbols()) <= askable)
    ]
    if missing and potential is None:
        raise InputError("this detector needs features, or the potential that computes them")
    if missing and potential is not None:
        for i, rows in zip(missing, potential.features([frames[i] for i in missing]), strict=True):
            out[i] = rows
    return out
