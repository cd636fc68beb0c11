"""The graph: one FireWorks workflow per generation, holding what its files lack.

explore × n → select → [label × m → collect] → train → [relax × k] → benchmark → gate; generation 0: reference →
baseline → [relax × k] → benchmark → gate. What a stage does is ``stage_*.py``'s business, when to rebuild
``control.py``'s.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aldriver.core.store import is_published
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.environments import category_of
from aldriver.workflow.packs import packs, unlabelled

if TYPE_CHECKING:
    from fireworks import Firework, LaunchPad, Workflow

PRIORITY = {"gate": 9, "benchmark": 8, "relax": 8, "train": 7, "collect": 6, "label": 5, "select": 4, "explore": 3}
"""What frees other work goes first: with several campaigns on one launchpad, one ends before the next begins."""
CLASSES = {
    "reference": "ReferenceTask",
    "baseline": "BaselineTask",
    "explore": "ExploreTask",
    "select": "SelectTask",
    "label": "LabelTask",
    "collect": "CollectTask",
    "train": "TrainTask",
    "relax": "RelaxTask",
    "benchmark": "BenchmarkTask",
    "gate": "GateTask",
}


def generation_workflow(campaign: Campaign, generation: int) -> Workflow:
    """The workflow of a generation; stages that are published are left out (the gate never is)."""
    from fireworks import Workflow

    fireworks, parents = [], list[Any]()
    for names in _levels(campaign, generation):
        level = [_firework(campaign, name, generation, index, parents) for name, index in names]
        fireworks += level
        parents = level or parents
    metadata = {"campaign": campaign.id, "name": campaign.name, "generation": generation, "dir": str(campaign.root)}
    return Workflow(fireworks, name=f"{campaign.name} generation {generation}", metadata=metadata)


def labels_workflow(campaign: Campaign, generation: int, *, attempt: int = 1) -> Workflow | None:
    """The detour of a selection: tasks for the frames without a label, then the join; None once they are collected.

    A task labels ``label.pack`` frames.
    """
    from fireworks import Workflow

    if campaign.is_published(generation, "label"):
        return None
    from aldriver.workflow.stage_select import selected_frames

    missing = unlabelled(campaign, generation, range(len(selected_frames(campaign, generation))))
    labels = [_labels(campaign, generation, some) for some in packs(missing, campaign.recipe.label.pack)]
    collect = _firework(campaign, "collect", generation, None, labels)
    collect.spec["attempt"] = attempt
    return Workflow([*labels, collect], name=f"{campaign.name} generation {generation} labels")


def pack_workflow(campaign: Campaign, generation: int, indices: Sequence[int], *, interruptions: int = 0) -> Workflow:
    """The detour of an interrupted task: another one for the frames it left."""
    from fireworks import Workflow

    again = _labels(campaign, generation, indices)
    again.spec["interruptions"] = interruptions
    return Workflow([again], name=f"{campaign.name} generation {generation} labels")


def ensure_generation(launchpad: LaunchPad, campaign: Campaign, generation: int) -> bool:
    """Put a generation on the launchpad unless it is there already; True when it was added.

    Safe to call again and from several processes: this is what makes the end of a generation idempotent.
    """
    with _generation_lock(campaign):
        query = {"metadata.campaign": campaign.id, "metadata.generation": generation}
        if launchpad.workflows.count_documents(query, limit=1):
            return False
        launchpad.add_wf(generation_workflow(campaign, generation))
        return True


def finish(campaign: Campaign) -> None:
    """Note the end of the campaign in the ledger, once."""
    g, finished = campaign.frontier()
    if not finished:
        return
    with _generation_lock(campaign):
        if not campaign.ledger.find("finished", generation=g):
            decision = campaign.decision(g)
            campaign.ledger.append(
                "finished", generation=g, reason=decision["stop_reason"], promoted=decision["promoted"]
            )


def _levels(campaign: Campaign, generation: int) -> Iterator[list[tuple[str, int | None]]]:
    """Missing stages, in the order in which they depend on each other."""

    def missing(stage: str, published: str) -> list[tuple[str, int | None]]:
        return [] if campaign.is_published(generation, published) else [(stage, None)]

    if generation == 0:
        yield missing("reference", "reference")
        yield missing("baseline", "train")
    else:
        if not campaign.is_published(generation, "select"):
            count = len(_walkers(campaign))
            yield [("explore", i) for i in range(count) if not is_published(campaign.walker(generation, i))]
        # its task makes the detour for the labels, also when the selection itself is there
        yield missing("select", "label")
        yield missing("train", "train")
    if not campaign.is_published(generation, "benchmark"):
        helpers = range(campaign.recipe.benchmark.helpers)
        yield [("relax", i) for i in helpers if not is_published(campaign.helper(generation, i))]
    yield missing("benchmark", "benchmark")
    yield [("gate", None)]


def _walkers(campaign: Campaign) -> Sequence[Any]:
    from aldriver.workflow.stage_explore import walkers

    return walkers(campaign.recipe)


def _firework(campaign: Campaign, stage: str, generation: int, index: int | None, parents: Sequence[Any]) -> Firework:
    from fireworks import Firework

    from aldriver.workflow import tasks

    spec: dict[str, Any] = {"campaign": campaign.id, "dir": str(campaign.root), "generation": generation}
    spec |= {"index": index, "stage": stage, "_priority": PRIORITY.get(stage, 2)}
    if stage == "gate":
        spec["_add_launchpad_and_fw_id"] = True
    if stage == "collect" or (stage == "benchmark" and campaign.recipe.benchmark.helpers):
        spec["_allow_fizzled_parents"] = True  # what a broken task left undone is done, or said, here
    spec |= _placement(campaign, stage)
    name = f"{stage} {index:03d}" if index is not None else stage
    task = getattr(tasks, CLASSES[stage])()
    return Firework([task], spec=spec, name=f"g{generation:03d} {name}", parents=list(parents) or None)


def _labels(campaign: Campaign, generation: int, indices: Sequence[int]) -> Firework:
    """A task that labels the selected frames at `indices`."""
    firework = _firework(campaign, "label", generation, indices[0], [])
    if len(indices) > 1:
        firework.spec["indices"] = list(indices)
        firework.name += f" to {indices[-1]:03d}"
    return firework


def _placement(campaign: Campaign, stage: str) -> dict[str, Any]:
    """``_category`` and ``_queueadapter`` of a stage, as the recipe asks for or the potential's packages need.

    ``queued`` marks what goes to a queue: workers beside it leave these tasks alone.
    """
    resources = campaign.recipe.resources
    category = category_of(campaign.recipe, stage)
    if category is None:
        return {}
    minutes = int(resources.walltime_s // 60)
    queue = {"walltime": f"{minutes // 60:02d}:{minutes % 60:02d}:00", "job_name": f"{campaign.name}-{stage}"[:20]}
    placed: dict[str, Any] = {"_category": category, "_queueadapter": queue | resources.queue.get(category, {})}
    return placed | {"queued": True} if category in resources.queue else placed


@contextmanager
def _generation_lock(campaign: Campaign) -> Iterator[None]:
    with (campaign.root / ".generation.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
