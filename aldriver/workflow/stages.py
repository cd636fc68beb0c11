"""Stages as the workflow sees them: by name, each published once, with its cost in the ledger.

Owns what all stage functions share. What they compute is the rooms' business, their glue is ``stage_*.py``.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.store import publish
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.interrupt import Interrupted
from aldriver.workflow.progress import Progress

if TYPE_CHECKING:
    from aldriver.potentials import Potential

FUNCTIONS = {
    "reference": "aldriver.workflow.stage_baseline:reference_stage",
    "baseline": "aldriver.workflow.stage_baseline:baseline_stage",
    "explore": "aldriver.workflow.stage_explore:explore_stage",
    "select": "aldriver.workflow.stage_select:select_stage",
    "label": "aldriver.workflow.stage_label:label_stage",
    "collect": "aldriver.workflow.stage_label:collect_stage",
    "train": "aldriver.workflow.stage_train:train_stage",
    "relax": "aldriver.workflow.stage_benchmark:relax_stage",
    "benchmark": "aldriver.workflow.stage_benchmark:benchmark_stage",
    "gate": "aldriver.workflow.stage_gate:gate_stage",
}
"""Stage: the function that does it, called with (campaign, generation, index); it returns at once when done already."""
ALONE = frozenset({"train", "benchmark"})
"""Stages beside which nothing else of a campaign runs: they take all cores."""


def run_stage(name: str, campaign: Campaign, generation: int, index: int = 0) -> None:
    """Do a stage; a failure is noted in the ledger in words before it is raised."""
    module, _, function = FUNCTIONS[name].partition(":")
    try:
        getattr(importlib.import_module(module), function)(campaign, generation, index)
    except Interrupted:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        with suppress(Exception):  # a full disk, for one, cannot be noted on that disk
            campaign.ledger.append(
                "stage_failed",
                stage=name,
                generation=generation,
                index=index,
                kind=type(error).__name__,
                reason=reason[:2000],
            )
        raise


@contextmanager
def publishing(
    campaign: Campaign, stage: str, generation: int, final: Path, *, index: int | None = None, cores: int | None = None
) -> Iterator[tuple[Path, Progress]]:
    """Publish a stage's directory and note it with its cost; yields the temporary directory and the progress."""
    started, cpu = time.time(), cpu_seconds()
    with Progress(campaign.root, stage, generation, index) as progress, publish(final) as tmp:
        yield tmp, progress
    campaign.ledger.append(
        "published",
        stage=stage,
        generation=generation,
        index=index,
        path=final.relative_to(campaign.root).as_posix(),
        seconds=time.time() - started,
        cpu_s=cpu_seconds() - cpu,
        cores=cores or threads(campaign, stage),
    )


def cpu_seconds() -> float:
    """CPU time of this process and its finished children."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def cores_here() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(campaign: Campaign, stage: str) -> int:
    """CPU threads of a stage: the recipe's, else all cores for one that runs alone and a worker's share otherwise."""
    resources = campaign.recipe.resources
    if resources.threads is not None:
        return resources.threads
    return cores_here() if stage in ALONE else max(1, cores_here() // resources.workers)


def load_potential(campaign: Campaign, ref: str | Path, stage: str) -> Potential:
    """A potential on the recipe's device, kept for the next stage in this process; sets the threads of the stage."""
    potential = _load(str(ref), campaign.recipe.resources.device)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads(campaign, stage))
    return potential


@lru_cache(maxsize=3)
def _load(ref: str, device: str) -> Potential:
    from aldriver.potentials import load

    return load(ref, device=device)


def seed_for(*parts: Any) -> int:
    """Reproducible seed (31 bits) from whatever names a random choice."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
