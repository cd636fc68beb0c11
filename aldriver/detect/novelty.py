"""How new an atom's environment is, by its SOAP and by the model's features: one model per element and question.

Owns rows → numbers. Signals that ask the potential itself are ``signals.py``'s, thresholds and frame verdicts
``detector.py``'s, reading and writing ``storage.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.detect.descriptors import SoapDescriptor, unusable
from aldriver.detect.mahalanobis import Gaussian
from aldriver.detect.neighbour import Neighbours
from aldriver.detect.subspace import Subspace

if TYPE_CHECKING:
    from aldriver.core.recipe_detect import Detect

Array = NDArray[np.float64]
M = TypeVar("M")
MAX_ROWS = 20_000
"""Rows per element that a fit uses; beyond it every m-th atom is taken, which changes nothing a PCA of k ≈ 5 sees."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What one frame of N atoms looks like: SOAP (N, p) and features (N, d), each None when no signal asks for it."""

    symbols: NDArray[np.str_]
    soap: Array | None
    features: Array | None


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """Per-element models behind the signals.

    Attributes
    ----------
    signals
        Of those that start with ``soap`` or ``feature``, the ones asked for.
    elements
        Chemical symbols of the fitted frames.
    soap
        None when no signal needs it.
    subspaces, feature_spaces, gaussians, neighbours
        By element: principal components of SOAP and of the features, Gaussian of the features, known rows whitened by
        it. Those that no signal needs are empty; without SOAP the Gaussians are always there, for frame vectors.
    """

    signals: tuple[str, ...]
    elements: tuple[str, ...]
    soap: SoapDescriptor | None = None
    subspaces: dict[str, Subspace] = field(default_factory=dict)
    feature_spaces: dict[str, Subspace] = field(default_factory=dict)
    gaussians: dict[str, Gaussian] = field(default_factory=dict)
    neighbours: dict[str, Neighbours] = field(default_factory=dict)

    @property
    def needs_features(self) -> bool:
        """Whether scoring needs the model's features."""
        return any(s.startswith("feature") for s in self.signals)

    @classmethod
    def fit(cls, frames: Sequence[Atoms], features: Sequence[Array | None], settings: Detect) -> Novelty:
        """Fit on known frames.

        Raises
        ------
        InputError
            When there is no frame, a frame is not usable (named by its position), or features are missing.
        """
        if not frames:
            raise InputError("a detector needs at least one frame to fit on")
        for i, atoms in enumerate(frames):
            problem = unusable(atoms)
            if problem:
                raise InputError(f"the detector cannot be fitted on frame {i}: {problem}")
        elements = tuple(sorted({s for atoms in frames for s in atoms.get_chemical_symbols()}))
        signals = tuple(s for s in dict.fromkeys(settings.signals) if s.startswith(("soap", "feature")))
        soap = SoapDescriptor(elements, settings.soap) if settings.wants("soap") else None
        empty = cls(signals=signals, elements=elements, soap=soap)
        rows = (empty.rows(a, f, fitting=True) for a, f in zip(frames, features, strict=True))
        soap_rows, feature_rows = _gather(rows, _strides(frames, elements))

        def space(x: Array) -> Subspace:
            return Subspace.fit(x, components=settings.components)

        gaussians = _fit_each(feature_rows, Gaussian.fit)
        near = feature_rows if "feature_neighbour" in signals else {}
        return cls(
            signals=signals,
            elements=elements,
            soap=soap,
            subspaces=_fit_each(soap_rows, space),
            feature_spaces=_fit_each(feature_rows, space) if {"feature_q", "feature_t2"} & set(signals) else {},
            gaussians=gaussians,
            neighbours={
                e: Neighbours.fit(gaussians[e].whitened(np.concatenate(x))) for e, x in near.items() if e in gaussians
            },
        )

    def rows(self, atoms: Atoms, features: Array | None, *, fitting: bool = False) -> Rows:
        """Rows of a usable frame; `features` (N, d) of the potential, needed only for the ``feature_`` signals.

        A frame with an element that the potential does not know has no features; its feature signals are infinite.
        """
        symbols = np.asarray(atoms.get_chemical_symbols())
        if not (self.needs_features or (self.soap is None and (fitting or features is not None))):
            features = None
        elif features is not None:
            features = np.asarray(features, dtype=float)
            if features.ndim != 2 or len(features) != len(atoms):
                raise InputError(f"features have shape {features.shape}, expected ({len(atoms)}, d)")
            width = len(next(iter(self.gaussians.values())).mean) if self.gaussians else features.shape[1]
            if features.shape[1] != width:
                raise InputError(
                    f"the potential gives {features.shape[1]} features an atom, this detector was fitted to {width}, "
                    "perhaps by an earlier version of aldriver: fit it again (aldriver detector fit)"
                )
            features = np.where(np.isfinite(features), features, np.nan)
        elif set(symbols) <= set(self.elements):
            raise InputError("this detector needs the potential's per-atom features")
        return Rows(symbols=symbols, soap=self.soap.rows(atoms) if self.soap else None, features=features)

    def atom_scores(self, rows: Rows, *, known: bool = False) -> dict[str, Array]:
        """Each signal of each atom, (N,), dimensionless; larger is stranger; infinite for an element never fitted.

        ``soap_q`` and ``feature_q`` are Q-residuals over the total variance of the element's fitted rows, so that
        elements compare; for the plain Q-residual see :meth:`Subspace.q_residual`.

        Parameters
        ----------
        known
            The rows were fitted on: their nearest neighbour is another one than themselves.
        """
        scores = {signal: np.full(len(rows.symbols), np.inf) for signal in self.signals}
        for element in self.elements:
            mine = rows.symbols == element
            if not mine.any():
                continue
            if rows.soap is not None:
                self._of_space(scores, "soap", self.subspaces.get(element), rows.soap, mine)
            if rows.features is None:
                continue
            self._of_space(scores, "feature", self.feature_spaces.get(element), rows.features, mine)
            white = self.gaussians[element].whitened(rows.features[mine])
            if "feature_distance" in scores:
                scores["feature_distance"][mine] = np.linalg.norm(white, axis=1)
            if "feature_neighbour" in scores:
                scores["feature_neighbour"][mine] = self.neighbours[element].distance(white, others=known)
        return scores

    @staticmethod
    def _of_space(
        scores: dict[str, Array], kind: str, space: Subspace | None, rows: Array, mine: NDArray[np.bool_]
    ) -> None:
        if space is None:
            return
        x = rows[mine]
        if f"{kind}_q" in scores:
            scores[f"{kind}_q"][mine] = space.q_residual(x) / space.spread
        if f"{kind}_t2" in scores:
            scores[f"{kind}_t2"][mine] = space.t2(x)

    def frame_vector(self, rows: Rows) -> Array:
        """Mean and scatter over a frame's atoms, by element, in units of that element's fitted spread; (D,).

        SOAP where a signal uses it, the model's features otherwise. The scatter tells a defect from the strain that
        gives the same mean. Elements that a frame lacks contribute zeros.
        """
        blocks = []
        for element in self.elements:
            mine = rows.symbols == element
            if self.soap is not None and rows.soap is not None:
                space = self.subspaces[element]
                x = (rows.soap[mine] - space.mean) / np.sqrt(space.spread)
            elif rows.features is not None:
                gaussian = self.gaussians[element]
                x = gaussian.whitened(rows.features[mine]) / np.sqrt(len(gaussian.mean))
            else:
                return np.full(self.vector_size, np.nan)
            zeros = np.zeros(x.shape[1])
            blocks += [x.mean(axis=0), x.std(axis=0)] if len(x) else [zeros, zeros]
        return np.concatenate(blocks)

    @property
    def vector_size(self) -> int:
        """Length of :meth:`frame_vector`."""
        models = self.gaussians if self.soap is None else self.subspaces
        return 2 * sum(len(m.mean) for m in models.values())


def _strides(frames: Sequence[Atoms], elements: Iterable[str]) -> dict[str, int]:
    counts = {e: sum(int((a.symbols == e).sum()) for a in frames) for e in elements}
    return {e: -(-n // MAX_ROWS) for e, n in counts.items()}


def _gather(rows: Iterable[Rows], strides: dict[str, int]) -> tuple[dict[str, list[Array]], dict[str, list[Array]]]:
    soap: dict[str, list[Array]] = {e: [] for e in strides}
    features: dict[str, list[Array]] = {e: [] for e in strides}
    seen = dict.fromkeys(strides, 0)
    for frame in rows:
        for element, stride in strides.items():
            sites = np.flatnonzero(frame.symbols == element)
            taken = sites[(-seen[element]) % stride :: stride]
            seen[element] += len(sites)
            if frame.soap is not None:
                soap[element].append(frame.soap[taken])
            if frame.features is not None:
                features[element].append(frame.features[taken])
    return soap, features


def _fit_each(rows: dict[str, list[Array]], fit: Callable[[Array], M]) -> dict[str, M]:
    return {element: fit(np.concatenate(blocks)) for element, blocks in rows.items() if blocks}
