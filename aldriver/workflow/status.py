"""Status: where campaigns are, from their files and one projected query. Imports nothing heavy and starts nothing."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.reasons import count_reasons
from aldriver.core.records import read_json
from aldriver.core.store import is_published
from aldriver.workflow.campaign import BASELINE_STAGES, CAMPAIGN_FILE, STAGES, Campaign, open_campaign, promoted
from aldriver.workflow.launchpad import connection, describe
from aldriver.workflow.progress import running

UNREACHABLE_S = 2.0
_DONE = ("COMPLETED", "ARCHIVED")
_PROJECTION = {"_id": 0, "state": 1, "spec.campaign": 1, "spec.dir": 1, "spec.stage": 1, "spec.generation": 1}
_STAGE_OF = {"baseline": "train", "collect": "label", "relax": "benchmark"}


def status(root: str | Path, *, launchpad: Path | None = None) -> dict[str, Any]:
    """Status of one campaign.

    Returns
    -------
    dict
        ``id, name, path, state`` ('finished', 'cancelled', 'running', 'waiting', 'stopped', 'failed'), ``reason``,
        ``generation, generations, stage, labels {done, failed, reasons, pending}, rounds`` (one object per generation:
        stages, errors on the test and validation frames, benchmark records, detection, decision), ``reference``
        (records), ``cost`` (core-hours per stage), ``running, eta_s, promoted, launchpad {reachable, where, states}``.

    Raises
    ------
    InputError
        When there is no campaign in `root`.
    """
    campaign = open_campaign(root)
    tasks, pad = _tasks({"spec.campaign": campaign.id}, launchpad)
    return _describe(campaign, tasks, pad)


def status_all(*, launchpad: Path | None = None) -> list[dict[str, Any]]:
    """Status of each campaign the launchpad knows, or that lies in ``./campaigns``; the newest first."""
    tasks, pad = _tasks({"spec.campaign": {"$exists": True}}, launchpad)
    by_id: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for task in tasks:
        by_id[task["spec"]["campaign"]].append(task)
    folders = {Path(t["spec"]["dir"]) for t in tasks if t["spec"].get("dir")}
    folders |= {p.parent.resolve() for p in Path("campaigns").glob(f"*/{CAMPAIGN_FILE}")}
    found = []
    for folder in folders:
        with suppress(AldriverError):
            campaign = open_campaign(folder)
            found.append((read_json(folder / CAMPAIGN_FILE).get("created") or 0.0, campaign))
    found.sort(key=lambda pair: pair[0], reverse=True)
    return [_describe(campaign, by_id.get(campaign.id, []), pad) for _, campaign in found]


def promoted_potential(root: str | Path) -> Path:
    """Bundle of a campaign's promoted potential.

    Raises
    ------
    InputError
        When there is no campaign, or it has promoted none yet.
    """
    campaign = open_campaign(root)
    found = promoted(campaign)
    if found is None:
        raise InputError(f"{campaign.root}: no potential has been promoted yet; let the campaign run first")
    return found


def promoted_detector(root: str | Path) -> Path:
    """Detector of the promoted potential, in its latest calibration.

    Raises
    ------
    InputError
        As :func:`promoted_potential`.
    """
    potential = promoted_potential(root)
    campaign = open_campaign(root)
    last, finished = campaign.frontier()
    newer = campaign.stage(last if finished else last - 1, "gate") / "detector"
    return newer if newer.is_dir() else potential / "detector"


def _tasks(query: dict[str, Any], launchpad: Path | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Tasks in one projected query, and what is to say about the launchpad."""
    from pymongo.errors import PyMongoError

    where = connection(launchpad, start=False)
    if where is None:
        return [], {"reachable": False, "where": describe(launchpad), "problem": "the database is not running"}
    client = where.client(timeout_s=UNREACHABLE_S)
    try:
        found = list(client[where.name].fireworks.find(query, _PROJECTION))
        return found, {"reachable": True, "where": where.describe(), "problem": ""}
    except PyMongoError as error:
        return [], {"reachable": False, "where": where.describe(), "problem": str(error).split(",")[0]}
    finally:
        client.close()


def _describe(campaign: Campaign, tasks: list[dict[str, Any]], pad: dict[str, Any]) -> dict[str, Any]:
    card = read_json(campaign.root / CAMPAIGN_FILE)
    ledger = campaign.ledger.read()
    generation, finished = campaign.frontier()
    now = running(campaign.root)
    rounds = [_round(campaign, g) for g in range(generation + 1)]
    state, reason = _state(campaign, generation, finished, ledger, now, tasks)
    best = promoted(campaign)
    return {
        "id": campaign.id,
        "name": campaign.name,
        "path": str(campaign.root),
        "created": card.get("created"),
        "state": state,
        "reason": reason,
        "generation": generation,
        "generations": card.get("generations"),
        "stage": "done" if finished else _stage(campaign, generation),
        "potential": card.get("potential"),
        "reference_method": card.get("reference"),
        "labels": _labels(campaign, ledger, generation),
        "rounds": rounds,
        "reference": _json(campaign.stage(0, "reference") / "records.json") or [],
        "cost": _cost(ledger),
        "running": now,
        "eta_s": None if finished else _eta(ledger, generation, card, now),
        "promoted": None if best is None else str(best),
        "launchpad": {**pad, "states": dict(Counter(t["state"] for t in tasks))},
    }


def _stage(campaign: Campaign, generation: int) -> str:
    """First stage of a generation that is not complete."""
    for name in BASELINE_STAGES if generation == 0 else STAGES:
        if name == "explore":
            if not campaign.is_published(generation, "select") and not _explored(campaign, generation):
                return name
        elif not campaign.is_published(generation, name):
            return name
    return "gate"


def _explored(campaign: Campaign, generation: int) -> bool:
    wanted = read_json(campaign.root / CAMPAIGN_FILE).get("walkers", 0)
    return all(is_published(campaign.walker(generation, i)) for i in range(wanted))


def _state(
    campaign: Campaign,
    generation: int,
    finished: bool,
    ledger: list[dict[str, Any]],
    now: list[dict[str, Any]],
    tasks: list[dict[str, Any]],
) -> tuple[str, str]:
    if finished:
        return "finished", str(campaign.decision(generation).get("stop_reason", ""))
    if campaign.cancelled:
        return "cancelled", str((_json(campaign.root / "cancel.json") or {}).get("reason", ""))
    if now:
        return "running", ", ".join(sorted({f"{s['stage']} of generation {s['generation']}" for s in now}))
    states = Counter(t["state"] for t in tasks if t["spec"].get("generation") == generation)
    failed = next((e for e in reversed(ledger) if e.get("event") in ("stage_failed", "published", "label")), None)
    if failed is not None and failed["event"] == "stage_failed" and not (states["READY"] or states["RUNNING"]):
        return "failed", f"{failed['stage']} of generation {failed['generation']}: {failed['reason']}"
    if states["RUNNING"]:
        return "running", "on another machine, or its process has died (then `aldriver resume` goes on)"
    if states["READY"] or states["RESERVED"]:
        return "waiting", "on the launchpad; `aldriver work` or `aldriver resume` works on it"
    return "stopped", "`aldriver resume` goes on from here"


def _round(campaign: Campaign, g: int) -> dict[str, Any]:
    """One generation: stages done, errors, benchmark, decision, labels."""
    evaluation = _json(campaign.stage(g, "benchmark") / "evaluation.json") or {}
    decision = _json(campaign.stage(g, "gate") / "decision.json") or {}
    trained = _json(campaign.stage(g, "train") / "result.json") or {}
    labels = _json(campaign.stage(g, "label") / "labels.json") or []
    records = _json(campaign.stage(g, "benchmark") / "records.json") or []
    keys = ("property", "case", "value", "unit", "converged", "reason")
    return {
        "generation": g,
        "name": "foundation" if g == 0 else f"generation {g}",
        "stages": [
            s for s in (BASELINE_STAGES if g == 0 else STAGES) if s != "explore" and campaign.is_published(g, s)
        ],
        "walkers": sorted({str(r.get("reason")) for r in _walkers(campaign, g)}),
        "labels": dict(Counter(entry["status"] for entry in labels)),
        "test": evaluation.get("test"),
        "valid": evaluation.get("valid"),
        "records": [{k: record.get(k) for k in keys} for record in records],
        "detection": _detection(campaign, g, decision),
        "trained": {k: trained.get(k) for k in ("accepted", "reason", "n_train", "n_valid", "best_epoch")},
        "decision": {k: decision.get(k) for k in ("decision", "reason", "stop", "stop_reason")} if decision else None,
        "fingerprint": decision.get("fingerprint") or trained.get("fingerprint"),
        "promoted": decision.get("promoted"),
    }


def _detection(campaign: Campaign, g: int, decision: dict[str, Any]) -> dict[str, Any] | None:
    """The promise of the detector that guarded a generation, whether it still fits, and what audit labels measured."""
    selection = _json(campaign.stage(g, "select") / "selection.json") or {}
    if "promise" not in selection:
        return None
    return {
        "promise": selection["promise"],
        "drift": selection.get("drift"),
        "candidates": selection.get("n_candidates"),
        "flagged": selection.get("n_flagged"),
        "unphysical": (selection.get("reasons") or {}).get("unphysical", 0),
        "audit": decision.get("audit"),
        "recalibrated": decision.get("recalibrated"),
        "step": decision.get("step"),
    }


def _walkers(campaign: Campaign, g: int) -> list[dict[str, Any]]:
    paths = sorted((campaign.generation(g) / "explore").glob("walker-*/result.json"))
    return [r for r in (_json(p) for p in paths) if isinstance(r, dict)]


def _labels(campaign: Campaign, ledger: list[dict[str, Any]], generation: int) -> dict[str, Any]:
    """Labels of the whole campaign: each key counts once, with its latest status."""
    latest = {e["key"]: e for e in ledger if e.get("event") == "label"}
    failed = [e for e in latest.values() if e["status"] != "ok"]
    reasons = count_reasons(f"{e['status']}: {e['reason']}" for e in failed)
    pending = 0
    selection = campaign.stage(generation, "select") / "selection.json"
    if selection.is_file() and not campaign.is_published(generation, "label"):
        here = sum(e["generation"] == generation for e in latest.values())
        pending = max(0, int((_json(selection) or {}).get("n_selected", 0)) - here)
    return {"done": len(latest) - len(failed), "failed": len(failed), "reasons": reasons, "pending": pending}


def _cost(ledger: list[dict[str, Any]]) -> dict[str, float]:
    """Core-hours by stage: cores × wall time of the stages, CPU time (or cores × wall time) of the labels."""
    cost: dict[str, float] = defaultdict(float)
    for e in ledger:
        if e.get("event") == "published":
            cost[_STAGE_OF.get(e["stage"], e["stage"])] += (e.get("cores") or 1) * (e.get("seconds") or 0.0) / 3600
        elif e.get("event") == "label":
            cost["label"] += max(e.get("cpu_s") or 0.0, (e.get("cores") or 1) * (e.get("seconds") or 0.0)) / 3600
    return {stage: round(hours, 6) for stage, hours in cost.items()} | {"total": round(sum(cost.values()), 6)}


def _eta(
    ledger: list[dict[str, Any]], generation: int, card: dict[str, Any], now: list[dict[str, Any]]
) -> float | None:
    """Seconds until the last generation ends, if each takes as long as the latest complete one (generation 0 apart)."""
    ends = {int(e["generation"]): float(e["time"]) for e in ledger if e.get("event") == "decision"}
    last = generation - 1
    if last < 1 or last not in ends or last - 1 not in ends:
        return max((s["eta_s"] for s in now if s.get("eta_s") is not None), default=None)
    typical = ends[last] - ends[last - 1]
    left = max(0, int(card.get("generations") or generation) - generation)
    return max(0.0, ends[last] + typical - time.time()) + left * typical


def _json(path: Path) -> Any:
    """Content of a file that may not be there yet."""
    try:
        return read_json(path) if path.is_file() else None
    except AldriverError:
        return None
