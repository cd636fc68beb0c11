"""From labelled frames to a calibration: which frames fit the score, which set its limit.

A frame never does both: what has been fitted to a frame's error says nothing about new frames. The split is by group
(trajectory), and depends on names, sizes and counts only, never on scores.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aldriver.detect.calibrate import limits_by_set, outcome_of
from aldriver.detect.fuse import FEWEST, Formula, aggregated, balanced, fitted, single
from aldriver.detect.verdict import Calibration

if TYPE_CHECKING:
    from aldriver.core.recipe_detect import Detect

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What calibration knows of n frames.

    Attributes
    ----------
    errors
        (n,) force errors of the frames, eV/Å; infinite where the prediction is no number.
    lengths
        (N,) lengths of the atoms' force errors, eV/Å, of each frame.
    groups, sets
        Trajectory and element set of each.
    """

    errors: Array
    lengths: list[Array]
    groups: list[str]
    sets: list[str]

    @classmethod
    def of(cls, differences: Sequence[Array], groups: Sequence[str], sets: Sequence[str], settings: Detect) -> Labelled:
        """From (N, 3) label − prediction of each frame, eV/Å."""
        lengths = [np.where(np.isfinite(d).all(axis=1), np.linalg.norm(d, axis=1), np.inf) for d in differences]
        errors = np.array([aggregated(x, settings.error) for x in lengths])
        return cls(errors=errors, lengths=lengths, groups=list(groups), sets=list(sets))


def divided(labelled: Labelled, settings: Detect) -> tuple[list[int], list[int]]:
    """Frames to fit on, and frames to set the limit with; the first list is empty when nothing is to be fitted.

    About half of the frames go to each side. Nothing is fitted with fewer than :data:`FEWEST` frames on a side, or
    when all frames together could promise something that half of them cannot.
    """
    everything = list(range(len(labelled.errors)))
    if settings.score not in ("fused", "last_layer"):
        return [], everything
    sizes = Counter(labelled.groups)
    sides: tuple[set[str], set[str]] = (set(), set())
    filled = [0, 0]
    for name in sorted(sizes, key=lambda g: (-sizes[g], hashlib.sha256(g.encode()).digest())):
        side = 1 if filled[1] <= filled[0] else 0
        sides[side].add(name)
        filled[side] += sizes[name]
    if min(filled) < FEWEST:
        return [], everything
    fit, rest = ([i for i in everything if labelled.groups[i] in side] for side in sides)
    bad = labelled.errors > settings.tolerance_meV_A / 1000.0
    half = outcome_of(int(bad[rest].sum()), len(rest), settings.miss_rate)
    whole = outcome_of(int(bad.sum()), len(everything), settings.miss_rate)
    return ([], everything) if half == "uncertified" != whole else (fit, rest)


def by_errors(
    signals: Sequence[Mapping[str, Array]],
    labelled: Labelled,
    fit: Sequence[int],
    rest: Sequence[int],
    settings: Detect,
    typical: Mapping[str, float],
) -> tuple[Calibration, Array]:
    """Calibration, and the score of each frame (all of them).

    Parameters
    ----------
    signals
        Of the atoms of each frame, none of them infinite.
    fit, rest
        As :func:`divided` gives them.
    typical
        Of each signal, a value that known frames have; used where nothing is fitted.
    """
    formula, notes = _formula(signals, labelled, fit, settings, typical)
    scores = np.array([formula.frame(formula.atoms({k: s[k] for k in formula.powers})) for s in signals])
    tolerance = settings.tolerance_meV_A / 1000.0
    pooled, sets, short = limits_by_set(
        scores[list(rest)],
        labelled.errors[list(rest)],
        [labelled.sets[i] for i in rest],
        tolerance=tolerance,
        miss_rate=settings.miss_rate,
    )
    calibration = Calibration(
        formula=formula,
        thresholds={},
        pooled=pooled,
        sets=sets,
        tolerance=tolerance,
        notes=(*notes, *short),
    )
    return calibration, scores


def _formula(
    signals: Sequence[Mapping[str, Array]],
    labelled: Labelled,
    fit: Sequence[int],
    settings: Detect,
    typical: Mapping[str, float],
) -> tuple[Formula, list[str]]:
    if settings.score != "fused":
        return single(settings.score, settings.error), []
    usable = [
        i for i in fit if np.isfinite(labelled.errors[i]) and all(np.isfinite(v).all() for v in signals[i].values())
    ]
    found = fitted([signals[i] for i in usable], [labelled.lengths[i] for i in usable], settings.error)
    if found is not None:
        return found, []
    why = "no signal grows with the force error" if len(usable) >= FEWEST else "too few labelled frames to fit powers"
    return balanced(typical, settings.error), [f"{why}: each signal counts the same, and the score has no unit"]
