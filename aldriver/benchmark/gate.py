"""The gate: decides whether a generation is promoted, held or rolled back, and whether the campaign stops.

It compares numbers that others measured (``suite.py``, ``evaluate.py``) and says why in one line. Acting on the
decision is the workflow's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aldriver.core.recipe import Gate, Stop
from aldriver.core.records import PropertyRecord

Reference = Sequence[PropertyRecord] | Mapping[str, Mapping[str, float]]
Key = tuple[str, str]

SHOWN = {
    "lattice_constant": "lattice constant",
    "bulk_modulus": "bulk modulus",
    "bulk_modulus_eos": "bulk modulus (E–V)",
    "eos_volume": "volume (E–V)",
    "c11": "C11",
    "c12": "C12",
    "c44": "C44",
    "c_prime": "C'",
    "vacancy_formation_energy": "vacancy formation energy",
}


@dataclass(frozen=True, kw_only=True)
class GenerationScore:
    """What was measured of one generation's potential.

    Attributes
    ----------
    name
        As the reason line calls it: ``foundation``, ``generation 2``.
    evaluation
        Errors on held-out frames (:func:`aldriver.benchmark.evaluate.evaluate`). Both generations of a comparison must
        have been evaluated on the same frames.
    held_out
        What those frames are, in words.
    records
        The benchmark.
    accepted, reason
        Whether training beat the potential it started from, and why not.
    """

    name: str
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    held_out: str = "held-out frames"
    records: Sequence[PropertyRecord] = ()
    accepted: bool = True
    reason: str = ""

    @property
    def force_rmse(self) -> float | None:
        """Force RMSE on the held-out frames, meV/Å; None when it is missing or not finite."""
        value = self.evaluation.get("forces_rmse_meV_A")
        return float(value) if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a generation.

    Attributes
    ----------
    decision
        ``promote``: it is the potential to go on with. ``hold``: the promoted one stays, what was labelled is kept.
        ``rollback``: as hold, and exploration goes back to the promoted one's frames, since this one left them.
    reason
        One line with the numbers.
    stop, stop_reason
        Whether the campaign ends here, and why.
    numbers
        What was compared: force errors, their ratio, each property's deviation before and after.
    """

    decision: Literal["promote", "hold", "rollback"]
    reason: str
    stop: bool = False
    stop_reason: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A property against the reference, before (promoted) and after (new); relative deviations, None where missing."""

    case: str
    name: str
    unit: str
    reference: float
    new: float | None
    promoted: float | None
    new_deviation: float | None
    promoted_deviation: float | None
    reason: str = ""

    @property
    def label(self) -> str:
        """E.g. ``C44 of bcc-Fe``."""
        return f"{SHOWN.get(self.name, self.name)} of {self.case}"

    @property
    def growth(self) -> float:
        """How much the relative deviation grew (0.05 = five percent of the reference)."""
        if self.new_deviation is None or self.promoted_deviation is None:
            return 0.0
        return self.new_deviation - self.promoted_deviation


def decide(
    new: GenerationScore,
    promoted: GenerationScore,
    reference: Reference,
    settings: Gate,
    stop: Stop,
    generation: int,
    labels: int,
    *,
    settled: str = "",
) -> Decision:
    """Compare a new generation with the promoted one.

    It is promoted when training accepted it, its held-out force RMSE is below `max_force_rmse_ratio` of the promoted
    one's, and no property (converged in both) has moved away from the reference by more than `max_property_worsening`.

    Parameters
    ----------
    reference
        Values to come near to: records of the reference potential, or ``{case: {property: value}}``. A property
        without a reference is not judged.
    generation, labels
        Generations done, and good labels so far, this one included.
    settled
        Why nothing changes any more (:func:`aldriver.benchmark.settled.stop_reason`); empty while something does.
    """
    deviations = compare(new.records, promoted.records, reference)
    kind, reason = _judge(new, promoted, deviations, settings)
    now = new if kind == "promote" else promoted
    stop_reason = _stop_reason(now, stop, generation, labels, settled)
    before, after = promoted.force_rmse, new.force_rmse
    numbers = {
        "force_rmse_meV_A": after,
        "promoted_force_rmse_meV_A": before,
        "force_rmse_ratio": after / before if after is not None and before else None,
        "held_out": new.held_out,
        "generation": generation,
        "labels": labels,
        "properties": {f"{d.case}/{d.name}": _numbers(d) for d in deviations},
    }
    return Decision(decision=kind, reason=reason, stop=bool(stop_reason), stop_reason=stop_reason, numbers=numbers)


def compare(new: Sequence[PropertyRecord], promoted: Sequence[PropertyRecord], reference: Reference) -> list[Deviation]:
    """Each property that has a reference value, in the order of the reference."""
    after, before = _by_key(new), _by_key(promoted)
    found = []
    for (case, name), target in _targets(reference).items():
        record = after.get((case, name))
        value, old = _trusted(record), _trusted(before.get((case, name)))
        if record is None and (case, name) not in before:
            continue
        found.append(
            Deviation(
                case=case,
                name=name,
                unit=record.unit if record is not None else before[case, name].unit,
                reference=target,
                new=value,
                promoted=old,
                new_deviation=_relative(value, target),
                promoted_deviation=_relative(old, target),
                reason="it was not computed" if record is None else record.reason,
            )
        )
    return found


def _judge(
    new: GenerationScore, promoted: GenerationScore, deviations: list[Deviation], settings: Gate
) -> tuple[Literal["promote", "hold", "rollback"], str]:
    after, before = new.force_rmse, promoted.force_rmse
    if not new.accepted:
        return "hold", f"held: {new.reason or 'training did not improve on the potential it started from'}"
    if after is None:
        return "hold", f"held: the force error on the {new.held_out} is missing or not a finite number"
    errors = f"force error on the {new.held_out} {_show(before)} → {_show(after)} meV/Å"
    if before:
        ratio = after / before
        errors += f" (×{ratio:.2f})"
        if ratio > settings.rollback_ratio:
            return "rollback", f"rolled back to {promoted.name}: {errors}, above ×{settings.rollback_ratio:g}"
        if ratio >= settings.max_force_rmse_ratio:
            return "hold", f"held: {errors}, needed below ×{settings.max_force_rmse_ratio:g} of {promoted.name}"
    lost = [d for d in deviations if d.new is None and d.promoted is not None]
    if lost:
        return "hold", f"held: no trusted {lost[0].label} any more ({lost[0].reason or 'no value'}); {errors}"
    worst = max(deviations, key=lambda d: d.growth, default=None)
    if worst is not None and worst.growth > settings.max_property_worsening:
        allowed = f"more than {settings.max_property_worsening:.0%} further off than with {promoted.name}"
        return "hold", f"held: {_change(worst)}, {allowed}; {errors}"
    known = [d for d in deviations if d.new_deviation is not None]
    farthest = max(known, key=lambda d: d.new_deviation or 0.0, default=None)
    tail = "" if farthest is None else f"; farthest property: {_change(farthest)}"
    return "promote", f"promoted: {errors}{tail}"


def _stop_reason(now: GenerationScore, stop: Stop, generation: int, labels: int, settled: str) -> str:
    """Why the campaign ends; the best reason first."""
    error = now.force_rmse
    if stop.force_rmse_meV_A is not None and error is not None and error <= stop.force_rmse_meV_A:
        return (
            f"the force error of {now.name} on the {now.held_out}, {_show(error)} meV/Å, "
            f"has reached the target of {stop.force_rmse_meV_A:g} meV/Å"
        )
    if stop.settled and settled:
        return settled
    if stop.max_labels is not None and labels >= stop.max_labels:
        return f"all {stop.max_labels} labels are spent" + (f" ({labels} made)" if labels > stop.max_labels else "")
    if generation >= stop.generations:
        return f"all {stop.generations} generations are done"
    return ""


def _change(d: Deviation) -> str:
    """E.g. ``C44 of bcc-Fe 54.8 → 110.2 GPa (reference 116.0: off by 53 % → 5 %)``."""
    before = "none" if d.promoted_deviation is None else f"{d.promoted_deviation:.1%}"
    after = "none" if d.new_deviation is None else f"{d.new_deviation:.1%}"
    values = f"{_show(d.promoted)} → {_show(d.new)} {d.unit}"
    return f"{d.label} {values} (reference {_show(d.reference)}: off by {before} → {after})"


def _show(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _numbers(d: Deviation) -> dict[str, Any]:
    return {
        "unit": d.unit,
        "reference": d.reference,
        "value": d.new,
        "promoted_value": d.promoted,
        "deviation": d.new_deviation,
        "promoted_deviation": d.promoted_deviation,
    }


def _by_key(records: Sequence[PropertyRecord]) -> dict[Key, PropertyRecord]:
    return {(r.case, r.property): r for r in records}


def _targets(reference: Reference) -> dict[Key, float]:
    if isinstance(reference, Mapping):
        return {(case, name): float(v) for case, values in reference.items() for name, v in values.items()}
    trusted = {key: _trusted(record) for key, record in _by_key(reference).items()}
    return {key: value for key, value in trusted.items() if value is not None}


def _trusted(record: PropertyRecord | None) -> float | None:
    return record.value if record is not None and record.converged else None


def _relative(value: float | None, target: float) -> float | None:
    return None if value is None or target == 0 else abs(value - target) / abs(target)
