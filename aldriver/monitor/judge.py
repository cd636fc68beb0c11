"""A frame's verdict as a monitor shows it: score against limit, a reason, and the atoms that are least known.

Scores and limits are the detector's; counting alarms is ``watch.py``'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import frame_hash

if TYPE_CHECKING:
    from aldriver.detect import Detector, FrameScore
    from aldriver.potentials.base import Potential

Verdict = Literal["known", "flagged", "unphysical", "quarantined"]
NAMED = 5
"""Atoms that a look names."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An atom the potential knows little of: its index in the frame (from 0), element, and score over limit."""

    index: int
    element: str
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the detector says of one frame.

    Attributes
    ----------
    step
        MD step.
    score, limit, ratio
        The frame's score, the limit for its elements, and score over limit.
    verdict
        ``known``; else ``flagged`` (above the limit), ``unphysical`` (far beyond all that was calibrated), or
        ``quarantined`` (has no finite score).
    reason
        One sentence.
    suspects
        The least known atoms, worst first.
    """

    step: int
    score: float
    limit: float
    ratio: float
    verdict: Verdict
    reason: str
    suspects: tuple[Suspect, ...]
    n_atoms: int
    frame_id: str

    @property
    def outside(self) -> bool:
        """Whether the frame is anything but known."""
        return self.verdict != "known"

    @property
    def named(self) -> str:
        """The suspects in words: ``Fe3 1.84, Fe0 1.21`` (element and index, score over limit)."""
        return ", ".join(f"{s.element}{s.index} {s.ratio:.2f}" for s in self.suspects)


class Judge:
    """Judges frames with a calibrated detector and the potential it belongs to.

    Attributes
    ----------
    features
        Whether a prediction that carries features saves work.

    Raises
    ------
    InputError
        When the detector is not calibrated, or belongs to another potential.
    """

    def __init__(self, detector: Detector, potential: Potential) -> None:
        detector.scorer(potential)  # refuses what cannot judge
        assert detector.calibration is not None
        self._detector, self._potential, self.calibration = detector, potential, detector.calibration
        self.features = potential.has_features and detector.novelty.needs_features

    def __call__(self, step: int, atoms: Atoms, features: NDArray[np.float64] | None = None) -> Look:
        """Verdict on a frame; one that the potential cannot be asked about is quarantined, with the reason.

        Parameters
        ----------
        features
            (N, D) of the potential, where they are known already.
        """
        try:
            one = self._detector.score([atoms], self._potential, None if features is None else [features])[0]
        except InputError:
            raise
        except (AldriverError, ArithmeticError, ValueError, RuntimeError) as error:
            return self._unjudged(step, atoms, str(error))
        limit = self.calibration.limit_of(atoms)
        ratios = np.array([limit.ratio(float(value)) for value in one.atom_score])
        worst = np.argsort(-np.where(np.isnan(ratios), np.inf, ratios), kind="stable")[:NAMED]
        return Look(
            step=step,
            score=one.score,
            limit=limit.value,
            ratio=one.ratio,
            verdict=_verdict(one),
            reason=one.reason,
            suspects=tuple(Suspect(index=int(i), element=atoms.symbols[i], ratio=float(ratios[i])) for i in worst),
            n_atoms=len(atoms),
            frame_id=frame_hash(atoms),
        )

    def _unjudged(self, step: int, atoms: Atoms, why: str) -> Look:
        return Look(
            step=step,
            score=math.nan,
            limit=self.calibration.limit_of(atoms).value,
            ratio=math.nan,
            verdict="quarantined",
            reason=f"cannot be judged: {why}",
            suspects=(),
            n_atoms=len(atoms),
            frame_id=frame_hash(atoms),
        )

    def describe(self) -> dict[str, Any]:
        """Who judges, and what it promises; JSON."""
        return {
            "potential": self._potential.name,
            "fingerprint": self._potential.fingerprint,
            "signals": list(self._detector.signals.names),
            "outcome": self.calibration.pooled.outcome,
            "promise": self.calibration.sentences(),
        }


def _verdict(one: FrameScore) -> Verdict:
    if not one.finite:
        return "quarantined"
    if one.unphysical:
        return "unphysical"
    return "flagged" if one.flagged else "known"
