"""Frames with their force errors and every signal of their atoms: how well signals rank, and whether promises hold.

Numbers in, numbers out. Where they come from is ``detect_bench.py``'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aldriver.core.recipe_detect import Detect
from aldriver.core.records import jsonable
from aldriver.detect.fuse import fitted
from aldriver.detect.llpr import LastLayer
from aldriver.detect.promise import Labelled, by_errors, divided
from aldriver.detect.roc import Frame, auroc_interval, frame_value, spearman, worst

Array = NDArray[np.float64]

HEADS, FOLDS = 8, 5
EXACT, SAMPLED, SIZE = "last_layer", f"last_layer, {HEADS} samples", "|F|"
BASELINES = ("soap_q", "committee", SIZE)
"""Of these, ``soap_q`` as the mean over the atoms is the plain Q-residual of Wong & Yang: for one element both rank
alike."""
FRAMES: tuple[Frame, ...] = ("mean", "rms", "max")
FEATURES = ("feature_distance", "feature_neighbour")
FUSED: dict[str, tuple[str, ...]] = {
    "fused: default": tuple(Detect().signals),
    "fused: soap": ("soap_q", "soap_t2"),
    "fused: feature_distance, soap": ("feature_distance", "soap_q", "soap_t2"),
    "fused: features": FEATURES,
    "fused: features, last layer": (*FEATURES, EXACT),
    "fused: features, samples": (*FEATURES, SAMPLED),
    "fused: features, committee": (*FEATURES, "committee"),
}
"""Scores fitted to several signals, as the detector does."""
MISS_RATES = (0.05, 0.1, 0.2)
TOLERANCES_MEV_A = (100.0, 300.0)
SPLITS = 200
BAND = 0.95


@dataclass(frozen=True, kw_only=True)
class Scored:
    """n frames of N atoms together.

    Attributes
    ----------
    sizes, kinds
        (n,) atoms of each frame, and what it is.
    differences
        (N, 3) label − prediction, eV/Å.
    signals
        By name: (N,).
    layer, known_layer
        (N, 3, D) forces of the last layer's inputs, of these frames and of those trained on.
    typical
        Of each signal, the median of its largest value in the frames trained on.
    """

    sizes: NDArray[np.int64]
    kinds: NDArray[np.str_]
    differences: Array
    signals: dict[str, Array]
    layer: NDArray[np.float32]
    known_layer: NDArray[np.float32]
    typical: dict[str, float]

    def save(self, path: Path) -> None:
        """Write one ``.npz`` file."""
        arrays: dict[str, Any] = {f"signal {name}": values for name, values in self.signals.items()}
        arrays |= {f"typical {name}": value for name, value in self.typical.items()}
        plain = {name: getattr(self, name) for name in ("sizes", "kinds", "differences", "layer", "known_layer")}
        np.savez_compressed(path, **plain, **arrays)

    @classmethod
    def load(cls, path: Path) -> Scored:
        """Read what :meth:`save` wrote."""
        with np.load(path) as found:
            plain = {name: found[name] for name in ("sizes", "kinds", "differences", "layer", "known_layer")}
            return cls(
                **plain,
                signals={name[7:]: found[name] for name in found.files if name.startswith("signal ")},
                typical={name[8:]: float(found[name]) for name in found.files if name.startswith("typical ")},
            )

    def by_frame(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """(N, ...) as one array for each frame."""
        return np.split(values, np.cumsum(self.sizes)[:-1])

    @property
    def lengths(self) -> list[Array]:
        """Lengths of the atoms' force errors, of each frame, eV/Å."""
        return self.by_frame(np.linalg.norm(self.differences, axis=1))

    @property
    def errors(self) -> Array:
        """(n,) force errors of the frames: root mean square over the atoms, eV/Å."""
        return np.array([frame_value(x, "rms") for x in self.lengths])


def complete(scored: Scored, *, seed: int) -> dict[str, list[Array]]:
    """All signals of the atoms of each frame, with the last layer's and the fused ones.

    What is fitted to errors (scale and regulariser of the last layer, powers of a fused score) is fitted on the other
    frames: each of :data:`FOLDS` parts gets its values from a fit to the rest.
    """
    rng = np.random.default_rng(seed)
    fold = rng.permutation(len(scored.sizes)) % FOLDS
    signals = {name: scored.by_frame(values) for name, values in scored.signals.items()}
    for name, heads in ((EXACT, 0), (SAMPLED, HEADS)):
        signals[name] = _last_layer(scored, fold, heads)
    lengths = scored.lengths
    for name, parts in FUSED.items():
        signals[name] = _fused({part: signals[part] for part in parts}, lengths, fold)
    return signals


def _last_layer(scored: Scored, fold: NDArray[np.int64], heads: int) -> list[Array]:
    forces, differences = scored.by_frame(scored.layer), scored.by_frame(scored.differences)
    plain = LastLayer.fit([np.asarray(scored.known_layer, dtype=float)], heads=heads)
    found: list[Array] = [np.zeros(0)] * len(forces)
    for k in range(FOLDS):
        others = np.flatnonzero(fold != k)
        layer = plain.calibrated([forces[i] for i in others], [differences[i] for i in others])
        ways = layer.directions
        for i in np.flatnonzero(fold == k):
            found[i] = layer.deviations(forces[i] if ways is None else forces[i] @ ways)
    return found


def _fused(parts: Mapping[str, list[Array]], lengths: list[Array], fold: NDArray[np.int64]) -> list[Array]:
    rows = [{name: values[i] for name, values in parts.items()} for i in range(len(lengths))]
    found: list[Array] = [np.zeros(0)] * len(lengths)
    for k in range(FOLDS):
        others = np.flatnonzero(fold != k)
        formula = fitted([rows[i] for i in others], [lengths[i] for i in others], "rms")
        for i in np.flatnonzero(fold == k):
            found[i] = np.full(len(lengths[i]), np.nan) if formula is None else formula.atoms(rows[i])
    return found


def ranking(scored: Scored, *, seed: int, resamples: int = 1000) -> dict[str, Any]:
    """By signal: AUROC for the worst tenth of the atoms, and of the frames by each way of making a frame's value.

    Intervals come from drawing frames with replacement; ``rank_atoms``, ``rank_frames`` (of the rms) and ``within`` are
    Spearman's correlations with the error.
    """
    signals, lengths, errors = complete(scored, seed=seed), scored.lengths, scored.errors
    of_atoms, owner = np.concatenate(lengths), list(np.repeat(np.arange(len(errors)), scored.sizes))
    bad_atoms, bad_frames = worst(of_atoms), worst(errors)
    found: dict[str, Any] = {}
    for name, values in signals.items():
        atoms = np.concatenate(values)
        frames = {how: np.array([frame_value(v, how) for v in values]) for how in FRAMES}
        within = [spearman(e, v) for e, v in zip(lengths, values, strict=True)]
        found[name] = {
            "atoms": jsonable(auroc_interval(bad_atoms, atoms, owner, resamples=resamples, seed=seed)),
            "frames": {
                how: jsonable(auroc_interval(bad_frames, v, resamples=resamples, seed=seed))
                for how, v in frames.items()
            },
            "rank_atoms": spearman(of_atoms, atoms),
            "rank_frames": spearman(errors, frames["rms"]),
            "within": float(np.nanmean(within)) if np.isfinite(within).any() else math.nan,
        }
    return found


def coverage(scored: Scored, *, seed: int, splits: int = SPLITS) -> list[dict[str, Any]]:
    """What calibration promised and what happened, over random halves of the frames, by tolerance and miss rate.

    One half calibrates a detector of the default signals (fitting the fused score and setting its limit, as always),
    the other is judged.

    Returns
    -------
    list of dict
        ``outcomes`` (splits by outcome), and of the certified ones ``miss_rate`` (missed of all frames above the
        tolerance), ``promised`` (mean k/(b + 1) over those), ``within_band`` (share of splits with no more misses than
        the upper end of the 95 % band of a binomial with the miss rate asked for), ``band`` (that end as a rate, mean),
        and ``false_alarms`` (flagged of all frames within the tolerance).
    """
    signals = complete(scored, seed=seed)
    rows = [{str(name): signals[name][i] for name in Detect().signals} for i in range(len(scored.sizes))]
    return [
        _covered(scored, rows, tolerance=tolerance, miss_rate=miss_rate, seed=seed, splits=splits)
        for tolerance in TOLERANCES_MEV_A
        for miss_rate in MISS_RATES
    ]


def _covered(
    scored: Scored, rows: list[dict[str, Array]], *, tolerance: float, miss_rate: float, seed: int, splits: int
) -> dict[str, Any]:
    from scipy.stats import binom

    settings = Detect(tolerance_meV_A=tolerance, miss_rate=miss_rate)
    differences, errors = scored.by_frame(scored.differences), scored.errors
    typical = {str(name): scored.typical.get(name, 1.0) for name in settings.signals}
    rng = np.random.default_rng(seed)
    counts = np.zeros(4, dtype=int)
    outcomes: dict[str, int] = {}
    promised, ends, inside = [], [], []
    for _ in range(splits):
        order = rng.permutation(len(errors))
        known, new = order[: len(order) // 2], order[len(order) // 2 :]
        labelled = Labelled.of(
            [differences[i] for i in known], [str(k) for k in range(len(known))], ["X"] * len(known), settings
        )
        calibration, _ = by_errors([rows[i] for i in known], labelled, *divided(labelled, settings), settings, typical)
        limit = calibration.pooled
        outcomes[limit.outcome] = outcomes.get(limit.outcome, 0) + 1
        if limit.outcome != "certified":
            continue
        flagged = np.array([limit.ratio(calibration.score(calibration.atom_scores(rows[i]))) > 1.0 for i in new])
        bad = errors[new] > tolerance / 1000.0
        missed, above = int((bad & ~flagged).sum()), int(bad.sum())
        end = int(binom.ppf(0.5 + 0.5 * BAND, above, miss_rate))
        counts += [missed, above, int((~bad & flagged).sum()), int((~bad).sum())]
        promised += [limit.promise] * above  # a rate of frames, as that of the misses is
        ends.append(end / max(1, above))
        inside.append(missed <= end)
    return {
        "tolerance_meV_A": tolerance,
        "asked": miss_rate,
        "splits": splits,
        "outcomes": outcomes,
        "above": int((errors > tolerance / 1000.0).sum()),
        "frames": len(errors),
        "miss_rate": _share(counts[0], counts[1]),
        "false_alarms": _share(counts[2], counts[3]),
        "promised": _mean(promised),
        "band": _mean(ends),
        "within_band": _mean(inside),
    }


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: Sequence[float | bool | None]) -> float | None:
    return float(np.mean([float(v) for v in values if v is not None])) if values else None
