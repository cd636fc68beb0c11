"""Several labels in one task (one queue job): one after the other or side by side, and what an interruption leaves.

How one label is made is ``stage_label.py``'s business, how a signal is held back ``interrupt.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from aldriver.core.errors import AldriverError
from aldriver.workflow import interrupt
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.stages import run_stage

INTERRUPTIONS = 3
"""Interruptions in a row without a finished label after which the task gives up: its job is too short."""


def packs(indices: Sequence[int], size: int) -> list[list[int]]:
    """Frames of each task."""
    return [list(indices[i : i + size]) for i in range(0, len(indices), size)]


def indices_of(fw_spec: dict[str, Any]) -> list[int]:
    """Frames of a task."""
    return [int(i) for i in fw_spec.get("indices") or [fw_spec.get("index") or 0]]


def unlabelled(campaign: Campaign, generation: int, indices: Sequence[int]) -> list[int]:
    """Those of `indices` whose frame has neither a value nor a reason yet."""
    noted = {e.get("index") for e in campaign.ledger.find("label", generation=generation)}
    return [i for i in indices if i not in noted]


def run_pack(campaign: Campaign, generation: int, indices: Sequence[int]) -> None:
    """Label the frames; a frame whose stage breaks does not stop the others, its error is raised after them.

    Returns early when a signal waits (``interrupt.pending``): what was labelled until then is published.
    """
    errors: list[Exception] = []

    def one(index: int) -> None:
        if interrupt.pending() or campaign.cancelled:
            return
        try:
            with suppress(interrupt.Interrupted):
                run_stage("label", campaign, generation, index)
        except Exception as error:
            errors.append(error)

    at_once = campaign.recipe.label.at_once
    if at_once == 1:
        for index in indices:
            one(index)
    else:
        with ThreadPoolExecutor(at_once, thread_name_prefix="label") as pool:
            list(pool.map(one, indices))
    if errors:
        raise errors[0]
    if campaign.cancelled and unlabelled(campaign, generation, indices):
        raise AldriverError("the campaign was cancelled before all labels of the task were made")


def interruptions(fw_spec: dict[str, Any], left: Sequence[int]) -> int:
    """How often in a row a task was interrupted without finishing a label, this time included.

    Raises
    ------
    AldriverError
        When it was too often.
    """
    if len(left) < len(indices_of(fw_spec)):
        return 0
    count = int(fw_spec.get("interruptions") or 0) + 1
    if count >= INTERRUPTIONS:
        raise AldriverError(
            f"interrupted {count} times in a row before a label was finished: the job of this task is ended sooner "
            "than a label takes; give it more walltime (resources.queue) or each label less time (label.timeout_s)"
        )
    return count
