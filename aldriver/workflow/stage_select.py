"""Select: from all frames of a generation's walkers to the few that get a label."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.records import dumps, jsonable
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.detection import drift_of, promise_of, promoted_pair
from aldriver.workflow.inbox import from_inbox
from aldriver.workflow.stage_explore import check_walkers, walkers
from aldriver.workflow.stages import publishing, seed_for
from aldriver.workflow.storing import labelled_frames

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from aldriver.detect import Selection, Selector

ORIGINS = {"chosen": "flagged", "forced": "silence", "audit": "audit", "filled": "fill"}
"""What picked a frame, as its label will say."""


def select_stage(campaign: Campaign, generation: int, index: int = 0) -> None:
    """``select/``: ``selected.extxyz`` (seeds in generation 1, frames of the inbox, then flagged, forced, audit, fill),
    ``selection.json``.

    One walker's frames are in memory at a time.
    """
    if campaign.is_published(generation, "select"):
        return
    from aldriver.core.frames import write_frames
    from aldriver.detect import Selector

    label = campaign.recipe.label
    check_walkers(campaign, generation)
    with publishing(campaign, "select", generation, campaign.stage(generation, "select")) as (tmp, progress):
        progress.update(note="reading the walkers")
        rounds = labelled_frames(campaign, generation - 1)
        known = [frame for one in rounds for frame in one]
        potential, detector = promoted_pair(campaign, generation - 1)
        budget = _budget(campaign, len(known))
        seeds = start_cells(campaign)[:budget] if label.seeds and generation == 1 else []
        n_known, known, budget = len(known), known + seeds, budget - len(seeds)
        cost = _cost_of(campaign, rounds)
        seed = seed_for(campaign.recipe.seed, "select", generation)
        core_hours = label.core_hours if cost else None
        limits: dict[str, Any] = {"budget": budget, "core_hours": core_hours, "cost": cost, "seed": seed}
        monitored, hours = from_inbox(
            campaign, generation, potential=potential, detector=detector, known=known, **limits
        )
        known, budget = known + monitored, budget - len(monitored)
        selector = Selector(seed=seed, audit=min(label.audit, budget))
        starts, scores = _read_walkers(campaign, generation, selector, cost)
        quotas = {"walker": label.most_per_walker, "elements": label.most_per_elements}
        selection = selector.select(
            budget=budget,
            core_hours=None if core_hours is None else max(core_hours - hours, 0.0),
            known=detector.frame_vectors(known, potential=potential) if known else None,
            quotas={kind: most for kind, most in quotas.items() if most is not None},
            heard=_heard(rounds, label.silence),
            fill=label.fill,
        )
        chosen = seeds + monitored + _chosen(campaign, generation, selection, starts)
        write_frames(tmp / "selected.extxyz", chosen)
        facts: dict[str, Any] = {
            "n_candidates": sum(selection.reasons.values()),
            "n_selected": len(chosen),
            "n_seeds": len(seeds),
            "n_monitored": len(monitored),
            "n_known": n_known,
            "n_flagged": selection.flagged,
            "budget": budget + len(seeds) + len(monitored),
            "thresholds": jsonable(detector.thresholds),
            "promise": promise_of(detector),
            "drift": drift_of(detector, scores),
            "potential": potential.fingerprint,
        }
        (tmp / "selection.json").write_text(dumps({**jsonable(selection), **facts}))


def start_cells(campaign: Campaign) -> list[Atoms]:
    """Undisturbed start cells, each system at each strain: they tie down E(V) and the energy scale near equilibrium."""
    from aldriver.core.frames import frame_hash
    from aldriver.core.systems import build_systems
    from aldriver.explore.perturb import strain

    cells: dict[str, Atoms] = {}
    for system in build_systems(campaign.recipe):
        for amount in campaign.recipe.explore.strains:
            cell = strain(system, amount)
            name = system.info["system"]
            cell.info = {"frame_id": frame_hash(cell), "group": f"seed-{name}-{amount:+g}", "system": name}
            cell.info |= {"origin": "seed", "ratio": 0.0, "generation": 1}
            cells.setdefault(cell.info["frame_id"], cell)
    return list(cells.values())


def selected_frames(campaign: Campaign, generation: int) -> list[Atoms]:
    """Frames of a generation that are to be labelled."""
    from aldriver.core.frames import read_frames

    return read_frames(campaign.stage(generation, "select") / "selected.extxyz")


def _budget(campaign: Campaign, labelled: int) -> int:
    """The recipe's budget, or what is left of the campaign's."""
    budget, most = campaign.recipe.label.budget, campaign.recipe.stop.max_labels
    return budget if most is None else max(0, min(budget, most - labelled))


def _read_walkers(
    campaign: Campaign, generation: int, selector: Selector, cost: Callable[[list[Atoms]], NDArray[np.float64]] | None
) -> tuple[list[int], NDArray[np.float64]]:
    """Show the selector all candidates; the position of each walker's first one, and the scores of all."""
    from aldriver.core.frames import read_frames

    starts, seen = [0], [np.zeros(0)]
    for walker in walkers(campaign.recipe):
        folder = campaign.walker(generation, walker.index)
        frames = read_frames(folder / "frames.extxyz")
        starts.append(starts[-1] + len(frames))
        if frames:
            scores = np.load(folder / "scores.npz")
            seen.append(scores["score"] if "score" in scores else scores["ratio"])
            far = scores["unphysical"] if "unphysical" in scores else np.zeros(len(frames))
            selector.add(
                [str(frame.info["frame_id"]) for frame in frames],
                scores["ratio"],
                np.load(folder / "vectors.npz")["vectors"],
                groups={
                    "walker": [str(walker.index)] * len(frames),
                    "elements": [_elements(frame) for frame in frames],
                },
                costs=cost(frames) if cost else None,
                refused=["unphysical" if one else "" for one in far],
            )
    return starts, np.concatenate(seen)


def _cost_of(campaign: Campaign, rounds: list[list[Atoms]]) -> Callable[[list[Atoms]], NDArray[np.float64]] | None:
    """Expected core-hours of labels from those of the labels so far; None while none has a cost."""
    from aldriver.label.cost import expected_cost

    spent = {
        entry["key"]: max(entry["cpu_s"] or 0.0, (entry["cores"] or 1) * (entry["seconds"] or 0.0)) / 3600
        for entry in campaign.ledger.find("label", cached=False)
    }
    paid = [(len(a), spent[key]) for one in rounds for a in one if (key := a.info.get("label_key")) in spent]
    sizes, hours = [size for size, _ in paid], [cost for _, cost in paid]
    if expected_cost([], sizes, hours) is None:
        return None
    return lambda frames: np.asarray(expected_cost([len(a) for a in frames], sizes, hours))


def _elements(frame: Atoms) -> str:
    return "-".join(sorted(set(frame.get_chemical_symbols())))


def _heard(rounds: list[list[Atoms]], silence: int | None) -> dict[str, set[str]] | None:
    """Walkers and sets of elements with a label in the last `silence` generations; None before there were so many."""
    if silence is None or len(rounds) < silence:
        return None
    late = [frame for one in rounds[-silence:] for frame in one]
    walked = {str(frame.info["walker"]) for frame in late if "walker" in frame.info}
    return {"walker": walked, "elements": {_elements(frame) for frame in late}}


def _chosen(campaign: Campaign, generation: int, selection: Selection, starts: list[int]) -> list[Atoms]:
    """The picked frames, read again walker by walker, in the order in which they were picked."""
    from aldriver.core.frames import PROVENANCE_KEYS, bare, read_frames

    origin = {p: name for kind, name in ORIGINS.items() for p in getattr(selection, kind)}
    found: dict[int, Atoms] = {}
    for walker, (first, end) in zip(walkers(campaign.recipe), pairwise(starts), strict=True):
        wanted = [p for p in origin if first <= p < end]
        if not wanted:
            continue
        folder = campaign.walker(generation, walker.index)
        frames, ratios = read_frames(folder / "frames.extxyz"), np.load(folder / "scores.npz")["ratio"]
        for position in wanted:
            source = frames[position - first]
            frame = bare(source)
            frame.info = {k: v for k, v in source.info.items() if k in PROVENANCE_KEYS}
            frame.info |= {"origin": origin[position], "ratio": float(ratios[position - first])}
            frame.info["generation"] = generation
            found[position] = frame
    return [found[position] for position in selection.indices]
