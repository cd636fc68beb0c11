"""The detector: fitted on what a potential has seen, calibrated on held-out frames, saved beside the potential.

Measuring is ``signals.py``'s, judging ``verdict.py``'s, what a calibration promises ``promise.py``'s; choosing which
flagged frames to label is ``select.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from aldriver.detect.promise import Labelled, by_errors, divided
from aldriver.detect.signals import Signals, features_of, fit_layer, others, thinned
from aldriver.detect.verdict import Calibration, FrameScore, by_quantile, element_set, verdict

if TYPE_CHECKING:
    from aldriver.core.recipe_detect import Detect
    from aldriver.potentials.base import Potential, Prediction

Array = NDArray[np.float64]

__all__ = ["Detector", "FrameScore"]


@dataclass(kw_only=True)
class Detector:
    """Signals, the score made of them and its limit, tied to one potential; made by :meth:`fit` or :meth:`load`.

    Attributes
    ----------
    settings
        The recipe's ``detect`` section.
    signals
        What is measured.
    potential, fingerprint
        Name and fingerprint of the potential it belongs to (empty when fitted without one, on SOAP alone).
    vector_scale
        What frame vectors are divided by.
    calibration
        None until calibrated.
    train_scores, heldout_scores
        By signal: frame values (largest over the atoms) of the fitted and of the calibration frames, for reports.
    calibration_scores
        ``score`` of the frames that set the limit, and ``error`` (eV/Å) where force errors were known.
    """

    settings: Detect
    signals: Signals
    potential: str = ""
    fingerprint: str = ""
    vector_scale: float = 1.0
    calibration: Calibration | None = None
    train_scores: dict[str, Array] = field(default_factory=dict)
    heldout_scores: dict[str, Array] = field(default_factory=dict)
    calibration_scores: dict[str, Array] = field(default_factory=dict)
    _known_forces: list[Array] = field(default_factory=list, repr=False)

    @property
    def novelty(self) -> Novelty:
        """Models of SOAP and features."""
        return self.signals.novelty

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """By signal, while no force errors are known; see :attr:`calibration`."""
        return self.calibration.thresholds if self.calibration else {}

    @classmethod
    def fit(
        cls,
        frames: Sequence[Atoms],
        potential: Potential | None,
        settings: Detect,
        *,
        heldout: Sequence[Atoms] | None = None,
        features: Sequence[Array | None] | None = None,
        members: Sequence[Potential] = (),
    ) -> Detector:
        """Fit on the frames a potential was trained on, and calibrate on `heldout` when it is given.

        Held-out frames should be of other trajectories (groups) than `frames`: neighbouring snapshots are so alike that
        the threshold would come out too low.

        Parameters
        ----------
        members
            Committee for the signal ``committee``; the potential itself is one of them in any case.

        Raises
        ------
        InputError
            When a frame is not usable, features are asked for but the potential has none, the committee has fewer than
            two members, or `heldout` does not do.
        """
        frames = list(frames)
        wanted = settings.wants("feature") or not settings.wants("soap")
        _need_features(potential, settings, wanted=wanted)
        features = features_of(frames, potential, features, wanted=wanted)
        signals = Signals(
            names=tuple(dict.fromkeys(settings.signals)),
            novelty=Novelty.fit(frames, features, settings),
            members=others(potential, members) if "committee" in settings.signals else (),
        )
        detector = cls(
            settings=settings,
            signals=signals,
            potential=potential.name if potential else "",
            fingerprint=potential.fingerprint if potential else "",
        )
        if "last_layer" in settings.signals:
            signals.layer, detector._known_forces = fit_layer(frames, potential, settings)
        detector._score_known(frames, potential, features)
        if heldout is not None:
            detector.calibrate(heldout, potential)
        return detector

    def _score_known(self, frames: list[Atoms], potential: Potential | None, features: list[Array | None]) -> None:
        """Scores of the fitted frames, and the scale of frame vectors."""
        novelty = self.novelty
        scores, vectors = [], []
        for atoms, feats in zip(frames, features, strict=True):
            rows = novelty.rows(atoms, feats, fitting=True)
            scores.append(novelty.atom_scores(rows, known=True))
            vectors.append(novelty.frame_vector(rows))
        if "committee" in self.signals.names and potential is not None:
            for atoms, one in zip(frames, scores, strict=True):
                one["committee"] = self.signals.committee_spread(atoms, potential)
        self.train_scores = _frame_values(scores, [s for s in self.signals.names if s != "last_layer"])
        self._score_known_layer()
        scatter = float(np.sqrt(np.var(vectors, axis=0).sum()))
        self.vector_scale = scatter if scatter > 1e-6 else 1.0

    def _score_known_layer(self) -> None:
        layer = self.signals.layer
        if layer is not None and self._known_forces:
            ways = layer.directions
            known = [g if ways is None else g @ ways for g in self._known_forces]
            self.train_scores["last_layer"] = np.array([layer.deviations(g).max() for g in known])

    def calibrate(
        self,
        frames: Sequence[Atoms],
        potential: Potential | None = None,
        *,
        features: Sequence[Array | None] | None = None,
    ) -> Calibration:
        """Make the score and its limit from frames that were neither trained nor fitted on.

        With force labels and the potential, the limit promises something about force errors (label − prediction): see
        :func:`~aldriver.detect.calibrate.limit`. Without, each signal's threshold is the recipe's quantile, and a frame
        counts as flagged when any signal exceeds its own, so the joint rate of false alarms lies between 1 − q and the
        number of signals times that.

        Parameters
        ----------
        frames
            ``info["group"]`` tells trajectories apart; without, each frame is one of its own.

        Raises
        ------
        InputError
            When some frames have force labels and others have none; without labels, when no frame can be scored, or
            one holds an element the fitted frames lack.
        """
        from aldriver.core.frames import label_of

        frames = list(frames)
        self._check_potential(potential)
        has_label = [label_of(a, "forces") is not None for a in frames]
        if potential is not None and any(has_label):
            if not all(has_label):
                raise InputError(f"calibration frame {has_label.index(False)} has no force label, others have")
            return self._calibrate_errors(frames, potential, features)
        scores = [s for s, _ in self.signals.of_atoms(frames, potential, features)]
        self.heldout_scores = _frame_values(scores, self.signals.names)
        thresholds = {k: threshold(v, self.settings.quantile) for k, v in self.heldout_scores.items()}
        ratios = np.max([self.heldout_scores[k] / t.value for k, t in thresholds.items()], axis=0)
        self.calibration = by_quantile(thresholds, list(ratios))
        self.calibration_scores = {"score": ratios}
        return self.calibration

    def _calibrate_errors(
        self, frames: list[Atoms], potential: Potential, features: Sequence[Array | None] | None
    ) -> Calibration:
        from aldriver.core.frames import label_of

        usable = [i for i, a in enumerate(frames) if not unusable(a) and set(a.symbols) <= set(self.novelty.elements)]
        left_out = len(frames) - len(usable)
        features = None if features is None else [features[i] for i in usable]
        frames = [frames[i] for i in usable]
        predictions = potential.evaluate(frames, stress=False) if frames else []
        differences = [
            np.asarray(label_of(a, "forces"), dtype=float) - p.forces for a, p in zip(frames, predictions, strict=True)
        ]
        labelled = Labelled.of(
            differences,
            [str(a.info.get("group", f"frame {i}")) for i, a in enumerate(frames)],
            [element_set(a) for a in frames],
            self.settings,
        )
        fit, rest = divided(labelled, self.settings)
        self._calibrate_layer([frames[i] for i in fit], [differences[i] for i in fit], potential)
        signals = [s for s, _ in self.signals.of_atoms(frames, potential, features)]
        typical = {k: float(np.median(self.train_scores[k])) for k in self.signals.names}
        calibration, scores = by_errors(signals, labelled, fit, rest, self.settings, typical)
        notes = []
        if left_out:
            notes.append(
                f"{left_out} labelled frames of elements that the fitted frames lack, or broken, were left out"
            )
        if self.signals.layer is not None and not fit:
            notes.append("last_layer has no unit: too few labelled frames to find its noise scale")
        calibration = replace(calibration, notes=(*calibration.notes, *notes))
        self.heldout_scores = _frame_values(signals, self.signals.names)
        self.calibration_scores = {"score": scores[rest], "error": labelled.errors[rest]}
        self.calibration = calibration
        return calibration

    def _calibrate_layer(self, frames: list[Atoms], differences: list[Array], potential: Potential) -> None:
        """Noise scale of the last layer, from the frames that fit the score."""
        if self.signals.layer is None or not any(d.any() for d in differences):
            return
        most = self.settings.last_layer.frames
        forces = potential.last_layer_forces(thinned(frames, most))
        self.signals.layer = self.signals.layer.calibrated(forces, thinned(differences, most))
        self._score_known_layer()

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
        calibration = self._calibrated()
        self._check_potential(potential)
        frames, upper, known = list(frames), self.settings.upper, self.novelty.elements
        measured = self.signals.of_atoms(frames, potential, features)
        return [
            verdict(a, s, problem, calibration, upper=upper, known=known)
            for a, (s, problem) in zip(frames, measured, strict=True)
        ]

    def scorer(self, potential: Potential | None = None) -> Callable[[Atoms, Prediction], dict[str, float]]:
        """Callable for a running MD: (frame, prediction) → signals (largest over atoms) and verdict.

        The verdict: ``score``, ``ratio`` (above 1: flagged) and ``unphysical`` (0 or 1).

        Uses the features of the prediction; without them it asks `potential`.
        """
        self._calibrated()
        self._check_potential(potential)

        def score(atoms: Atoms, prediction: Prediction) -> dict[str, float]:
            known = None if prediction.features is None else [prediction.features]
            one = self.score([atoms], potential, known)[0]
            found = {"score": one.score, "ratio": one.ratio, "unphysical": float(one.unphysical)}
            return {**one.values, **found}

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
        self._check_potential(potential)
        given = features_of(frames, potential, features, wanted=novelty.soap is None)
        vectors = np.full((len(frames), novelty.vector_size), np.nan)
        for i, (atoms, feats) in enumerate(zip(frames, given, strict=True)):
            if not unusable(atoms):
                symbols = np.asarray(atoms.get_chemical_symbols())
                soap = Rows(symbols=symbols, soap=novelty.soap.rows(atoms), features=None) if novelty.soap else None
                vectors[i] = novelty.frame_vector(soap or novelty.rows(atoms, feats)) / self.vector_scale
        return vectors

    def save(self, folder: str | Path) -> None:
        """Write ``config.json``, arrays by what they are (no pickle), and the committee's members."""
        folder = Path(folder)
        calibration = self.calibration
        models, numbers = storage.pack(self.signals)
        config = {
            "potential": {"name": self.potential, "fingerprint": self.fingerprint},
            "settings": self.settings.model_dump(mode="json"),
            **numbers,
            "vector_scale": self.vector_scale,
            "thresholds": {k: asdict(t) for k, t in self.thresholds.items()},
            "calibration": None if calibration is None else calibration.as_dict(),
            "promise": [] if calibration is None else calibration.sentences(),
            "members": storage.write_members(folder, self.signals.members),
        }
        files = {
            "models": models,
            "train_scores": self.train_scores,
            "heldout_scores": self.heldout_scores,
            "calibration": self.calibration_scores,
        }
        storage.write(folder, config, files)

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
        signals = storage.unpack(files["models"], config, settings)
        thresholds = {k: Threshold(**t) for k, t in config["thresholds"].items()}
        saved = config["calibration"]
        detector = cls(
            settings=settings,
            signals=signals,
            potential=config["potential"]["name"],
            fingerprint=config["potential"]["fingerprint"],
            vector_scale=config["vector_scale"],
            calibration=None if saved is None else Calibration.from_dict(saved, thresholds),
            train_scores=files["train_scores"],
            heldout_scores=files["heldout_scores"],
            calibration_scores=files["calibration"],
        )
        detector._check_potential(potential)
        signals.members = storage.read_members(Path(folder), config["members"], potential)
        return detector

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise InputError("the detector is not calibrated: calibrate it on held-out frames first")
        return self.calibration

    def _check_potential(self, potential: Potential | None) -> None:
        if potential is not None and self.fingerprint and potential.fingerprint != self.fingerprint:
            raise InputError(
                f"the detector belongs to the potential {self.potential} ({self.fingerprint}), not to {potential.name} "
                f"({potential.fingerprint}): fit a detector for this potential"
            )


def _need_features(potential: Potential | None, settings: Detect, *, wanted: bool) -> None:
    if wanted and potential is not None and not potential.has_features:
        asked = [s for s in settings.signals if s.startswith("feature")]
        remedy = f"remove {', '.join(asked)} from" if asked else "add soap_q to"
        raise InputError(
            f"{potential.name} has no per-atom features: {remedy} detect.signals, or use a potential that has them"
        )


def _frame_values(scores: Sequence[dict[str, Array]], signals: Sequence[str]) -> dict[str, Array]:
    return {s: np.array([v[s].max() if len(v[s]) else np.nan for v in scores], dtype=float) for s in signals}
