"""Select: from all frames of a generation's walkers to the few that get a label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.records import dumps, read_json
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.stage_explore import check_walkers, promoted_pair, walkers
from aldriver.workflow.stages import publishing, seed_for
from aldriver.workflow.storing import labelled_frames

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.detect import Selection


def select_stage(campaign: Campaign, generation: int, index: int = 0) -> None:
    """``select/``: ``selected.extxyz`` (seeds in generation 1, then worst first, audit, fill), ``selection.json``."""
    if campaign.is_published(generation, "select"):
        return
    from aldriver.core.frames import write_frames
    from aldriver.detect import select

    recipe = campaign.recipe
    check_walkers(campaign, generation)
    with publishing(campaign, "select", generation, campaign.stage(generation, "select")) as (tmp, progress):
        progress.update(note="reading the walkers")
        frames, ratios, vectors = _candidates(campaign, generation)
        known = [frame for one in labelled_frames(campaign, generation - 1) for frame in one]
        potential, detector = promoted_pair(campaign, generation - 1)
        budget = _budget(campaign, len(known))
        seeds = start_cells(campaign)[:budget] if recipe.label.seeds and generation == 1 else []
        known, budget = known + seeds, budget - len(seeds)
        selection = select(
            vectors,
            ratios,
            budget=budget,
            audit=min(recipe.label.audit, budget),
            fill=recipe.label.fill,
            known=detector.frame_vectors(known, potential=potential) if known else None,
            seed=seed_for(recipe.seed, "select", generation),
            ids=[str(f.info["frame_id"]) for f in frames],
        )
        chosen = seeds + _chosen(frames, ratios, selection, generation)
        write_frames(tmp / "selected.extxyz", chosen)
        thresholds = read_json(campaign.potential(potential.fingerprint) / "detector" / "config.json")["thresholds"]
        facts: dict[str, Any] = {
            "n_candidates": len(frames),
            "n_selected": len(chosen),
            "n_seeds": len(seeds),
            "n_known": len(known) - len(seeds),
            "budget": budget + len(seeds),
        }
        flagged = int(np.sum(np.asarray(ratios) > 1.0))
        facts |= {"n_flagged": flagged, "thresholds": thresholds, "potential": potential.fingerprint}
        (tmp / "selection.json").write_text(dumps({**_as_dict(selection), **facts}))


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


def _candidates(campaign: Campaign, generation: int) -> tuple[list[Atoms], list[float], Any]:
    from aldriver.core.frames import read_frames

    frames: list[Atoms] = []
    ratios: list[float] = []
    vectors = []
    for walker in walkers(campaign.recipe):
        folder = campaign.walker(generation, walker.index)
        found = read_frames(folder / "frames.extxyz")
        if found:
            frames += found
            ratios += np.load(folder / "scores.npz")["ratio"].tolist()
            vectors.append(np.load(folder / "vectors.npz")["vectors"])
    return frames, ratios, np.concatenate(vectors) if vectors else np.zeros((0, 0))


def _chosen(frames: list[Atoms], ratios: list[float], selection: Selection, generation: int) -> list[Atoms]:
    from aldriver.core.frames import PROVENANCE_KEYS, bare

    chosen = []
    for origin, positions in (
        ("flagged", selection.chosen),
        ("audit", selection.audit),
        ("fill", selection.filled),
    ):
        for i in positions:
            frame = bare(frames[i])
            frame.info = {k: v for k, v in frames[i].info.items() if k in PROVENANCE_KEYS}
            frame.info |= {"origin": origin, "ratio": float(ratios[i]), "generation": generation}
            chosen.append(frame)
    return chosen


def _as_dict(selection: Selection) -> dict[str, Any]:
    from aldriver.core.records import jsonable

    return dict(jsonable(selection))
