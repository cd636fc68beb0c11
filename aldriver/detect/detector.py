"""The detector: fitted on what a potential has seen, calibrated on held-out frames, saved beside the potential.

Owns frame verdicts. Choosing which flagged frames to label is ``select.py``'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.detect import storage
from aldriver.detect.calibrate import Threshold, threshold
from aldriver.detect.descriptors import unusable
from aldriver.detect.novelty import Novelty, Rows

if TYPE_CHECKING:
    from aldriver.core.recipe_detect import Detect
    from aldriver.potentials.base import Potential, Prediction

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FrameScore:
    """Verdict on one frame of N atoms.

    Attributes
    ----------
    values
        By signal: the largest value over the atoms, which is what the threshold is for.
    means
        By signal: mean over the atoms.
    atoms
        By signal: (N,).
    ratio
        Largest value/threshold over the signals: above 1 the frame is flagged. Infinite for an element the detector
        never saw; NaN for a frame that cannot be scored.
    flagged
        ``ratio > 1``. A frame that cannot be scored is never flagged and never called known: look at `finite`.
    finite
        False when a score is NaN (broken positions or features): quarantine the frame.
    reason
        One sentence on what decided.
    """

    values: dict[str, float]
    means: dict[str, float]
    atoms: dict[str, Array]
    ratio: float
    flagged: bool
    finite: bool
    reason: str


@dataclass(kw_only=True)
class Detector:
    """Novelty signals with thresholds, tied to one potential; made by :meth:`fit` or :meth:`load`.

    Attributes
    ----------
    settings
        The recipe's ``detect`` section.
    novelty
        The per-element models.
    potential, fingerprint
        Name and fingerprint of the potential it belongs to (empty when fitted without one, on SOAP alone).
    thresholds
        By signal; empty until calibrated.
    train_scores, heldout_scores
        By signal: frame values of the fitted and of the held-out frames, for reports.
    """

    settings: Detect
    novelty: Novelty
    potential: str = ""
    fingerprint: str = ""
    vector_scale: float = 1.0
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    train_scores: dict[str, Array] = field(default_factory=dict)
    heldout_scores: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        frames: Sequence[Atoms],
        potential: Potential | None,
        settings: Detect,
        *,
        heldout: Sequence[Atoms] | None = None,
        features: Sequence[Array | None] | None = None,
    ) -> Detector:
        """Fit on the frames a potential was trained on, and calibrate on `heldout` when it is given.

        Held-out frames should be of other trajectories (groups) than `frames`: neighbouring snapshots are so alike that
        the threshold would come out too low.

        Raises
        ------
        InputError
            When a frame is not usable, features are asked for but the potential has none, or `heldout` does not do.
        """
        frames = list(frames)
        wanted = settings.wants("feature") or not settings.wants("soap")
        if wanted and potential is not None and not potential.has_features:
            asked = [s for s in settings.signals if s.startswith("feature")]
            remedy = f"remove {', '.join(asked)} from" if asked else "add soap_q to"
            raise InputError(
                f"{potential.name} has no per-atom features: {remedy} detect.signals, or use a potential that has them"
            )
        features = _features(frames, potential, features, wanted=wanted)
        novelty = Novelty.fit(frames, features, settings)
        detector = cls(
            settings=settings,
            novelty=novelty,
            potential=potential.name if potential else "",
            fingerprint=potential.fingerprint if potential else "",
        )
        scores, vectors = [], []
        for atoms, feats in zip(frames, features, strict=True):
            rows = novelty.rows(atoms, feats, fitting=True)
            scores.append(novelty.atom_scores(rows, known=True))
            vectors.append(novelty.frame_vector(rows))
        detector.train_scores = _frame_values(scores, novelty.signals)
        scatter = float(np.sqrt(np.var(vectors, axis=0).sum()))
        detector.vector_scale = scatter if scatter > 1e-6 else 1.0
        if heldout is not None:
            detector.calibrate(heldout, potential)
        return detector

    def calibrate(
        self,
        frames: Sequence[Atoms],
        potential: Potential | None = None,
        *,
        features: Sequence[Array | None] | None = None,
    ) -> dict[str, Threshold]:
        """Set the threshold of each signal from frames that were not fitted on; returns the thresholds.

        Each signal alone keeps the recipe's quantile. A frame counts as flagged when any signal exceeds its threshold,
        so the joint rate of false alarms lies between 1 − q and the number of signals times that.

        Raises
        ------
        InputError
            When no frame can be scored, or one holds an element the fitted frames lack.
        """
        scores = self._atom_scores(frames, potential, features)
        self.heldout_scores = _frame_values([s for s, _ in scores], self.novelty.signals)
        self.thresholds = {k: threshold(v, self.settings.quantile) for k, v in self.heldout_scores.items()}
        return self.thresholds

    def score(
        self,
        frames: Sequence[Atoms],
        potential: Potential | None = None,
        features: Sequence[Array | None] | None = None,
    ) -> list[FrameScore]:
        """Verdict on each frame.

        Parameters
        ----------
        features
            (N, d) per frame, where they are known already; otherwise they are computed with `potential` if a signal
            needs them. SOAP is computed only for a SOAP signal.

        Raises
        ------
        InputError
            When the detector is not calibrated, belongs to another potential, or features are missing.
        """
        self._need_thresholds()
        return [
            self._verdict(a, *s) for a, s in zip(frames, self._atom_scores(frames, potential, features), strict=True)
        ]

    def scorer(self, potential: Potential | None = None) -> Callable[[Atoms, Prediction], dict[str, float]]:
        """Callable for a running MD: (frame, prediction) → signals (largest over atoms) and ``ratio``.

        Uses the features of the prediction; without them it asks `potential`.
        """
        self._need_thresholds()
        self._check_potential(potential)

        def score(atoms: Atoms, prediction: Prediction) -> dict[str, float]:
            known = None if prediction.features is None else [prediction.features]
            verdict = self.score([atoms], potential, known)[0]
            return {**verdict.values, "ratio": verdict.ratio}

        return score

    def frame_vectors(
        self,
        frames: Sequence[Atoms],
        features: Sequence[Array | None] | None = None,
        *,
        potential: Potential | None = None,
    ) -> Array:
        """Vectors of fixed length for comparing frames, (n_frames, d); NaN where a frame cannot be described.

        Mean and scatter of SOAP (or, without a SOAP signal, of the model's features) over the atoms of each element,
        scaled so that the fitted frames lie a root-mean-square distance of 1 from their centre.
        """
        frames, novelty = list(frames), self.novelty
        given = self._checked_features(frames, potential, features, wanted=novelty.soap is None)
        vectors = np.full((len(frames), novelty.vector_size), np.nan)
        for i, (atoms, feats) in enumerate(zip(frames, given, strict=True)):
            if not unusable(atoms):
                symbols = np.asarray(atoms.get_chemical_symbols())
                soap = Rows(symbols=symbols, soap=novelty.soap.rows(atoms), features=None) if novelty.soap else None
                vectors[i] = novelty.frame_vector(soap or novelty.rows(atoms, feats)) / self.vector_scale
        return vectors

    def save(self, folder: str | Path) -> None:
        """Write ``config.json``, ``models.npz``, ``train_scores.npz`` and ``heldout_scores.npz`` (no pickle)."""
        models, numbers = storage.pack(self.novelty)
        config = {
            "potential": {"name": self.potential, "fingerprint": self.fingerprint},
            "settings": self.settings.model_dump(mode="json"),
            "elements": numbers,
            "vector_scale": self.vector_scale,
            "thresholds": {k: asdict(t) for k, t in self.thresholds.items()},
        }
        files = {"models": models, "train_scores": self.train_scores, "heldout_scores": self.heldout_scores}
        storage.write(Path(folder), config, files)

    @classmethod
    def load(cls, folder: str | Path, potential: Potential | None = None) -> Detector:
        """Read a saved detector; with `potential`, make sure that it belongs to it.

        Raises
        ------
        InputError
            When a file is missing or was edited, or the detector belongs to another potential.
        """
        from aldriver.core.recipe_detect import Detect

        config, files = storage.read(Path(folder))
        settings = Detect.model_validate(config["settings"])
        detector = cls(
            settings=settings,
            novelty=storage.unpack(files["models"], config["elements"], settings),
            potential=config["potential"]["name"],
            fingerprint=config["potential"]["fingerprint"],
            vector_scale=config["vector_scale"],
            thresholds={k: Threshold(**t) for k, t in config["thresholds"].items()},
            train_scores=files["train_scores"],
            heldout_scores=files["heldout_scores"],
        )
        detector._check_potential(potential)
        return detector

    def _need_thresholds(self) -> None:
        if not self.thresholds:
            raise InputError("the detector has no thresholds: calibrate it on held-out frames first")

    def _check_potential(self, potential: Potential | None) -> None:
        if potential is not None and self.fingerprint and potential.fingerprint != self.fingerprint:
            raise InputError(
                f"the detector belongs to the potential {self.potential} ({self.fingerprint}), not to {potential.name} "
                f"({potential.fingerprint}): fit a detector for this potential"
            )

    def _checked_features(
        self, frames: list[Atoms], potential: Potential | None, features: Sequence[Array | None] | None, *, wanted: bool
    ) -> list[Array | None]:
        self._check_potential(potential)
        return _features(frames, potential, features, wanted=wanted)

    def _atom_scores(
        self, frames: Sequence[Atoms], potential: Potential | None, features: Sequence[Array | None] | None
    ) -> list[tuple[dict[str, Array], str]]:
        """Signals of the atoms of each frame, and why a frame has none."""
        frames = list(frames)
        given = self._checked_features(frames, potential, features, wanted=self.novelty.needs_features)
        out = []
        for atoms, feats in zip(frames, given, strict=True):
            problem = unusable(atoms)
            if problem:
                out.append(({s: np.full(len(atoms), np.nan) for s in self.novelty.signals}, problem))
            else:
                out.append((self.novelty.atom_scores(self.novelty.rows(atoms, feats)), ""))
        return out

    def _verdict(self, atoms: Atoms, scores: dict[str, Array], problem: str) -> FrameScore:
        values = {k: float(v.max()) if len(v) else math.nan for k, v in scores.items()}
        means = {k: float(v.mean()) if len(v) else math.nan for k, v in scores.items()}
        ratios = {k: v / self.thresholds[k].value for k, v in values.items()}
        finite = not any(math.isnan(v) for v in values.values())
        signal = max(ratios, key=lambda k: ratios[k]) if finite else ""
        ratio = ratios[signal] if finite else math.nan
        if not finite:
            reason = problem or "the features of the potential are not finite numbers"
        elif math.isinf(ratio):
            new = sorted(set(atoms.get_chemical_symbols()) - set(self.novelty.elements))
            reason = f"{', '.join(new)} is new to the detector" if new else f"{signal} is infinite"
        else:
            site = int(np.argmax(scores[signal]))
            reason = f"{signal} is {ratio:.3g} × its threshold at atom {site} ({atoms.symbols[site]})"
        return FrameScore(
            values=values,
            means=means,
            atoms=scores,
            ratio=ratio,
            flagged=finite and ratio > 1.0,
            finite=finite,
            reason=reason,
        )


def _features(
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


def _frame_values(scores: Sequence[dict[str, Array]], signals: Sequence[str]) -> dict[str, Array]:
    return {s: np.array([v[s].max() if len(v[s]) else np.nan for v in scores], dtype=float) for s in signals}
