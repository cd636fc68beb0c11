"""The report's opening: what the campaign achieved, in plain words and a few numbers, and what is still missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aldriver.report.data import Campaign, Generation
from aldriver.report.figures import change, core_hours, decision_word, labels_by_status
from aldriver.report.words import METRICS, count, finite, listed, number

Key = tuple[str, str]
STAGES_OF_ONE = ("explore", "select", "label", "train", "benchmark", "gate")


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number of the overview."""

    title: str
    value: str
    note: str


def by_property(records: list[dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    """Records by (case, property); a later record replaces an earlier one."""
    return {(str(r.get("case", "")), str(r.get("property", ""))): r for r in records if r.get("property")}


def deviation(record: dict[str, Any] | None, reference: dict[str, Any] | None) -> float | None:
    """Relative deviation of a value from the reference's, None where either is missing or the reference is zero."""
    value, wanted = finite((record or {}).get("value")), finite((reference or {}).get("value"))
    return None if value is None or not wanted else (value - wanted) / abs(wanted)


def state(campaign: Campaign) -> tuple[str, str]:
    """A word for the campaign's state and a sentence about it."""
    if campaign.finished is not None:
        return "finished", campaign.finished or "the campaign reached its end"
    if (campaign.path / "cancel.json").exists():
        return "cancelled", "`aldriver resume` goes on from here"
    if not campaign.generations:
        return "not started", "nothing has been published yet"
    last = campaign.generations[-1]
    if last.decision:
        return "under way", f"{last.title} is decided ({decision_word(last)}); what follows is not published yet"
    done = [s for s in ("reference", *STAGES_OF_ONE) if s in last.stages]
    return "under way", f"{last.title} has published {listed(done) if done else 'nothing'} so far"


def _final(campaign: Campaign) -> Generation | None:
    current = campaign.current
    return current if current is not None and current.number > 0 else None


def sentences(campaign: Campaign) -> list[str]:
    """What was achieved, in words."""
    foundation, final = campaign.foundation, _final(campaign)
    tried = [g for g in campaign.generations if g.number > 0 and g.decision]
    start = str(campaign.recipe.get("potential") or "the foundation potential")
    labels = [label for g in campaign.generations for label in g.labels]
    lines = []
    if not tried:
        lines.append(f"No generation has been decided yet; {start} is in use.")
    elif final is None:
        lines.append(
            f"{count(len(tried), 'generation')} tried, none promoted: {start} is still the potential in use. "
            "The decisions below say why."
        )
    else:
        promoted = sum(g.promoted for g in tried)
        lines.append(
            f"{count(len(tried), 'generation')} of refinement, {promoted} promoted, took {start} to the potential of "
            f"{final.title} with {count(len(labels), 'label')} ({labels_by_status(labels)})."
        )
    lines += _error_sentence(campaign, foundation, final) + _property_sentence(campaign, foundation, final)
    return lines


def _error_sentence(campaign: Campaign, foundation: Generation | None, final: Generation | None) -> list[str]:
    before, after = campaign.metrics(foundation), campaign.metrics(final)
    parts = []
    for key, (name, unit) in METRICS.items():
        a, b = finite(before.get(key)), finite(after.get(key))
        if a is not None and b is not None:
            parts.append(f"{name.lower()} {number(a)} → {number(b)} {unit} ({change(a, b)})")
    if not parts:
        return []
    frames = finite(after.get("n_frames"))
    n = f"{int(frames)} " if frames else ""
    where = f"{n}independent test frames" if campaign.metric_set == "test" else f"{n}validation frames"
    return [f"RMSE on {where}: {'; '.join(parts)}."]


def mean_deviation(campaign: Campaign, first: Generation | None, second: Generation | None) -> tuple[float, float, int]:
    """Mean absolute relative deviation of two generations over the properties both have, and how many those are."""
    if first is None or second is None:
        return 0.0, 0.0, 0
    wanted, a, b = by_property(campaign.reference), by_property(first.records), by_property(second.records)
    pairs = []
    for key in wanted:
        x, y = deviation(a.get(key), wanted[key]), deviation(b.get(key), wanted[key])
        trusted = all(r.get(key, {}).get("converged", True) for r in (wanted, a, b))
        if x is not None and y is not None and trusted:
            pairs.append((abs(x), abs(y)))
    n = len(pairs)
    return (sum(x for x, _ in pairs) / n, sum(y for _, y in pairs) / n, n) if n else (0.0, 0.0, 0)


def _property_sentence(campaign: Campaign, foundation: Generation | None, final: Generation | None) -> list[str]:
    before, after, n = mean_deviation(campaign, foundation, final)
    if not n:
        return []
    over = f"Over {count(n, 'benchmark property', 'benchmark properties')} the mean deviation from the reference"
    return [f"{over} went from {100 * before:.1f} % to {100 * after:.1f} %."]


def tiles(campaign: Campaign) -> list[Tile]:
    """The overview's numbers; those that are not known yet say so."""
    foundation, final = campaign.foundation, _final(campaign)
    before, after = campaign.metrics(foundation), campaign.metrics(final)
    result = []
    for key in ("forces_rmse_meV_A", "energy_rmse_meV_atom"):
        name, unit = METRICS[key]
        a, b = finite(before.get(key)), finite(after.get(key))
        value = number(b if b is not None else a)
        note = f"was {number(a)}, {change(a, b)}" if a is not None and b is not None else "foundation potential"
        result.append(Tile(title=f"{name} RMSE, {unit}", value=value, note=note if value != "–" else "not known yet"))
    x, y, n = mean_deviation(campaign, foundation, final or foundation)
    was = f"was {100 * x:.1f} %" if final else "foundation potential"
    note = f"{was}, {count(n, 'property', 'properties')}" if n else "not known yet"
    result.append(Tile(title="Mean deviation from reference", value=f"{100 * y:.1f} %" if n else "–", note=note))
    labels = [label for g in campaign.generations for label in g.labels]
    result.append(Tile(title="Labels", value=str(len(labels)), note=labels_by_status(labels) if labels else "none yet"))
    hours = sum(h for by in core_hours(campaign).values() for h in by.values())
    result.append(Tile(title="Cost, core-hours", value=number(hours, 2) if hours else "–", note=_span(campaign)))
    return result


def _span(campaign: Campaign) -> str:
    from aldriver.report.words import duration

    times = [t for e in campaign.ledger if (t := finite(e.get("time"))) is not None]
    return f"{duration(max(times) - min(times))} from first to last entry" if len(times) > 1 else "not known yet"


def missing(campaign: Campaign) -> list[str]:
    """What a reader may expect but will not find, in words."""
    notes = []
    if not campaign.recipe:
        notes.append("recipe.yaml is missing: settings are not shown")
    if not campaign.ledger:
        notes.append("ledger.jsonl is missing or empty: costs and times are not shown")
    if campaign.foundation is None:
        notes.append("generation 0 (foundation and reference numbers) is not there yet: nothing to compare with")
    elif not campaign.reference:
        notes.append("no reference values for the benchmark: deviations are not shown")
    for g in campaign.generations:
        wanted: dict[str, Any] = {"train": g.training, "benchmark": g.records, "gate": g.decision}
        if g.training.get("accepted") is False:
            del wanted["benchmark"]  # nothing new to benchmark: the decision says why
        if g.number:
            wanted |= {"explore": g.walkers, "label": g.labels}
        absent = [stage for stage in STAGES_OF_ONE if stage in wanted and not wanted[stage]]
        if absent:
            notes.append(f"{g.title} has no results of {listed(absent)} yet")
    return notes + _failures(campaign) + campaign.problems


def _failures(campaign: Campaign) -> list[str]:
    """Stages whose last attempt failed."""
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in campaign.ledger:
        if entry.get("event") in ("published", "stage_failed"):
            last[entry.get("stage"), entry.get("generation"), entry.get("index") or 0] = entry
    failed = [e for e in last.values() if e["event"] == "stage_failed"]
    return [f"{e.get('stage')} of generation {e.get('generation')} failed: {e.get('reason')}" for e in failed]
