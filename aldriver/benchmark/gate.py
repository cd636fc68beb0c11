"""The gate: decides whether a generation is promoted, held or rolled back, and whether the campaign stops.

It compares numbers that others measured (``suite.py``, ``evaluate.py``) and says why in one line. Acting on the
decision is the workflow's business.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aldriver.benchmark.score import base_name, deviation
from aldriver.core.errors import InputError
from aldriver.core.recipe import Gate, Stop
from aldriver.core.records import PropertyRecord

Reference = Sequence[PropertyRecord] | Mapping[str, Mapping[str, float]]
Key = tuple[str, str]
"""Case and property."""

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
    """A property against the reference, before (promoted) and after (new).

    The deviations are absolute values of :func:`aldriver.benchmark.score.deviation`, None where missing.
    """

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
        return f"{shown(self.name)} of {self.case}"

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
    one's, it has all properties of `must_have`, and no property (converged in both) has moved away from the reference
    by more than its tolerance, or else `max_property_worsening`.

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
                new_deviation=_off(name, value, target),
                promoted_deviation=_off(name, old, target),
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
    lacking = _lacking(new.records, settings.must_have)
    if lacking:
        return "hold", f"held: gate.must_have: no trusted {lacking}; {errors}"
    lost = [d for d in deviations if d.new is None and d.promoted is not None]
    if lost:
        return "hold", f"held: no trusted {lost[0].label} any more ({lost[0].reason or 'no value'}); {errors}"
    worst = max(deviations, key=lambda d: d.growth - _tolerance(settings, d.name), default=None)
    if worst is not None and worst.growth > _tolerance(settings, worst.name):
        allowed = f"more than {_percent(_tolerance(settings, worst.name))} further off than with {promoted.name}"
        return "hold", f"held: {_change(worst)}, {allowed}; {errors}"
    known = [d for d in deviations if d.new_deviation is not None]
    farthest = max(known, key=lambda d: d.new_deviation or 0.0, default=None)
    tail = "" if farthest is None else f"; farthest property: {_change(farthest)}"
    return "promote", f"promoted: {errors}{tail}"


def check_rules(settings: Gate, names: Collection[str]) -> None:
    """Refuse gate rules on properties that the suite does not give.

    Parameters
    ----------
    names
        Those it gives, variants included.

    Raises
    ------
    InputError
        Naming the key: such a rule would hold every generation, or none.
    """
    known = {*names, *map(base_name, names)}
    for key, wanted in (("must_have", settings.must_have), ("tolerances", list(settings.tolerances))):
        unknown = [name for name in wanted if name not in known]
        if unknown:
            given = sorted({base_name(name) for name in names})
            raise InputError(f"gate.{key}: the suite gives no '{unknown[0]}'; it gives {', '.join(given)}")


def shown(name: str) -> str:
    """A property in words, with its variant: ``binding energy (Cu-Ni,2)``."""
    base = base_name(name)
    variant = name[len(base) :]
    return SHOWN.get(name) or SHOWN.get(base, base.replace("_", " ")) + (f" {variant}" if variant else "")


def _tolerance(settings: Gate, name: str) -> float:
    """Growth of the deviation a property is allowed; a rule on the variant wins over one on the property."""
    base = settings.tolerances.get(base_name(name), settings.max_property_worsening)
    return settings.tolerances.get(name, base)


def _lacking(records: Sequence[PropertyRecord], wanted: Sequence[str]) -> str:
    """The first property that must be there and is not, with the reason; empty when all are."""
    for name in wanted:
        found = [r for r in records if name in (r.property, base_name(r.property))]
        bad = next((r for r in found if _trusted(r) is None), None)
        if bad is not None:
            return f"{shown(bad.property)} of {bad.case} ({bad.reason or 'no value'})"
        if not found:
            return f"{shown(name)} (it was not computed)"
    return ""


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g}%"


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


def _off(name: str, value: float | None, target: float) -> float | None:
    off = deviation(name, value, target)
    return None if off is None else abs(off)
