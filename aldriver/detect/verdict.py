"""Verdicts on frames, and the calibration behind them: the formula of the score, its limits, the promise in words.

Measuring the signals is ``signals.py``'s, the statistics are ``calibrate.py``'s.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.detect.calibrate import Limit, Threshold
from aldriver.detect.fuse import Formula

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FrameScore:
    """Verdict on one frame of N atoms.

    Attributes
    ----------
    values
        By signal: the largest value over the atoms.
    means
        By signal: mean over the atoms.
    atoms
        By signal: (N,).
    atom_score
        (N,) what `score` is made of: the expected force error of each atom (eV/Å) when the score is fused.
    score
        What is compared with the limit.
    ratio
        Score over limit: above 1 the frame is flagged. Infinite for an element the detector never saw; NaN for a frame
        that cannot be scored.
    flagged
        ``ratio > 1``. A frame that cannot be scored is never flagged and never called known: look at `finite`.
    unphysical
        The score lies so far beyond what was seen in calibration that a label would be wasted.
    finite
        False when a score is NaN (broken positions or features): quarantine the frame.
    reason
        One sentence on what decided.
    """

    values: dict[str, float]
    means: dict[str, float]
    atoms: dict[str, Array]
    atom_score: Array
    score: float
    ratio: float
    flagged: bool
    unphysical: bool
    finite: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How frames are judged.

    Attributes
    ----------
    formula
        Of the score; None while no force error is known. Then the score is the largest signal over its threshold.
    thresholds
        By signal; empty when there is a formula.
    pooled, sets
        Limit of the score: for all frames, and for element sets that can stand alone (``Cu-Fe``).
    tolerance
        eV/Å.
    notes
        What the promise is short of, in words.
    """

    formula: Formula | None
    thresholds: dict[str, Threshold]
    pooled: Limit
    sets: dict[str, Limit] = field(default_factory=dict)
    tolerance: float = math.nan
    notes: tuple[str, ...] = ()

    def limit_of(self, atoms: Atoms) -> Limit:
        """The limit for the elements of a frame."""
        return self.sets.get(element_set(atoms), self.pooled)

    def atom_scores(self, signals: Mapping[str, Array]) -> Array:
        """Score of each atom, (N,)."""
        if self.formula is not None:
            return self.formula.atoms({name: signals[name] for name in self.formula.powers})
        return np.max([signals[name] / t.value for name, t in self.thresholds.items()], axis=0)

    def score(self, atoms: Array) -> float:
        """Score of a frame from those of its atoms."""
        if self.formula is not None:
            return self.formula.frame(atoms)
        return float(atoms.max()) if len(atoms) else math.nan

    def sentences(self) -> list[str]:
        """The promise, what the score is, and what is missing."""
        if self.formula is None:
            return [self.pooled.sentence, *self.notes]
        own = [f"{name}: {one.sentence}" for name, one in self.sets.items() if one != self.pooled]
        return [self.pooled.sentence, f"score = {self.formula.text}", *own, *self.notes]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; :meth:`from_dict` reads it."""
        return {
            "formula": None if self.formula is None else asdict(self.formula),
            "pooled": asdict(self.pooled),
            "sets": {name: asdict(one) for name, one in self.sets.items()},
            "tolerance": None if math.isnan(self.tolerance) else self.tolerance,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any], thresholds: dict[str, Threshold]) -> Calibration:
        """From what :meth:`as_dict` gave, and the thresholds saved beside it."""
        return cls(
            formula=None if saved["formula"] is None else Formula(**saved["formula"]),
            thresholds=thresholds,
            pooled=Limit(**saved["pooled"]),
            sets={name: Limit(**one) for name, one in saved["sets"].items()},
            tolerance=math.nan if saved["tolerance"] is None else saved["tolerance"],
            notes=tuple(saved["notes"]),
        )


def element_set(atoms: Atoms) -> str:
    """The elements of a frame, in alphabetical order: ``Cu-Fe``."""
    return "-".join(sorted(set(atoms.get_chemical_symbols())))


def by_quantile(thresholds: dict[str, Threshold], scores: Sequence[float]) -> Calibration:
    """Calibration without force errors: each signal below its quantile.

    Parameters
    ----------
    scores
        Largest signal over threshold of the held-out frames.
    """
    finite = np.asarray([s for s in scores if math.isfinite(s)])
    first = next(iter(thresholds.values()))
    sentence = (
        f"no labels to calibrate with: thresholds are the {first.quantile:g} quantile of the scores of {first.frames} "
        "held-out frames, which promises few false alarms and nothing about force errors"
    )
    limit = Limit(
        value=1.0,
        outcome="quantile",
        frames=len(finite),
        above=0,
        rank=0,
        promise=None,
        share_upper=1.0,
        false_alarms=int((finite > 1.0).sum()),
        largest=float(finite.max()) if len(finite) else 0.0,
        sentence=sentence,
    )
    notes = tuple(f"{name}: {t.note}" for name, t in thresholds.items() if t.note)
    return Calibration(formula=None, thresholds=thresholds, pooled=limit, notes=notes)


def verdict(
    atoms: Atoms,
    signals: Mapping[str, Array],
    problem: str,
    calibration: Calibration,
    *,
    upper: float,
    known: Collection[str],
) -> FrameScore:
    """Judge one frame by its atoms' signals.

    Parameters
    ----------
    problem
        Why there are no signals; empty when there are.
    upper
        In units of the largest calibrated score: beyond it a frame is unphysical, where force errors were calibrated.
    known
        Elements of the fitted frames.
    """
    values = {k: float(v.max()) if len(v) else math.nan for k, v in signals.items()}
    means = {k: float(v.mean()) if len(v) else math.nan for k, v in signals.items()}
    finite = not any(math.isnan(v) for v in values.values())
    by_atom = calibration.atom_scores(signals)
    score = calibration.score(by_atom) if finite else math.nan
    limit = calibration.limit_of(atoms)
    ratio = limit.ratio(score) if finite else math.nan
    unphysical = (
        calibration.formula is not None
        and math.isfinite(score)
        and calibration.pooled.largest > 0
        and score > upper * calibration.pooled.largest
    )
    if not finite:
        reason = problem or "a signal is not a finite number: are the features of the potential broken?"
    elif math.isinf(ratio):
        new = sorted(set(atoms.get_chemical_symbols()) - set(known))
        reason = f"{', '.join(new)} is new to the detector" if new else "a signal is infinite"
    else:
        reason = _reason(atoms, signals, by_atom, score, ratio, limit, calibration)
    if unphysical:
        reason = f"unphysical: the score is {score / calibration.pooled.largest:.3g} × the largest in calibration"
    return FrameScore(
        values=values,
        means=means,
        atoms=dict(signals),
        atom_score=by_atom,
        score=score,
        ratio=ratio,
        flagged=finite and ratio > 1.0,
        unphysical=unphysical,
        finite=finite,
        reason=reason,
    )


def _reason(
    atoms: Atoms,
    signals: Mapping[str, Array],
    by_atom: Array,
    score: float,
    ratio: float,
    limit: Limit,
    calibration: Calibration,
) -> str:
    site = int(np.argmax(by_atom))
    where = f"at atom {site} ({atoms.symbols[site]})"
    if calibration.formula is None:
        name = max(calibration.thresholds, key=lambda k: signals[k].max() / calibration.thresholds[k].value)
        return f"{name} is {ratio:.3g} × its threshold {where}"
    unit = " eV/Å" if calibration.formula.kind == "fused" else ""
    what = "expected force error" if unit else "score"
    if limit.value > 0:
        return f"{what} {score:.3g}{unit} is {ratio:.3g} × the threshold, largest {where}"
    return f"{what} {score:.3g}{unit}, largest {where}; every frame is flagged: {limit.sentence}"
