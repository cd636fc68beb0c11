"""Launch, resume, cancel and work: what connects a campaign's files with the launchpad.

Files are the truth and the launchpad is intent, so resuming means: drop what is unfinished there, and put back what
the files lack. The loop that works until a campaign ends is ``run.py``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import AldriverError, CampaignBusyError
from aldriver.core.leftovers import remove_leftovers
from aldriver.core.records import dumps
from aldriver.core.store import MANIFEST, atomic_write, is_published
from aldriver.workflow import interrupt
from aldriver.workflow.campaign import CANCEL_FILE, Campaign, lock, open_campaign
from aldriver.workflow.environments import elsewhere
from aldriver.workflow.launchpad import PING_SECONDS, prepare_fireworks, session

if TYPE_CHECKING:
    from fireworks import LaunchPad

WORKER = "aldriver"
"""Workers are called ``aldriver HOST PID``: a dead one is recognised on its own host at once."""
FOREIGN_PING_SECONDS = 3600
"""How often plain ``rlaunch`` pings."""


def launch(root: str | Path, *, launchpad: Path | None = None) -> dict[str, Any]:
    """Put the campaign's current generation on the launchpad, if it is not there.

    Raises
    ------
    CampaignBusyError
        When a process works on the campaign.
    """
    from aldriver.workflow.generation import ensure_generation

    campaign = open_campaign(root)
    with lock(campaign):
        (campaign.root / CANCEL_FILE).unlink(missing_ok=True)
        generation, finished = campaign.frontier()
        added = False
        if not finished:
            with session(launchpad) as lp:
                added = ensure_generation(lp, campaign, generation)
        return {"id": campaign.id, "generation": generation, "added": added, "finished": finished}


def resume(root: str | Path, *, launchpad: Path | None = None, force: bool = False) -> dict[str, Any]:
    """Rebuild the launchpad's intent from the files.

    Parameters
    ----------
    force
        Also when workers elsewhere seem to be alive.

    Raises
    ------
    CampaignBusyError
        When a process works on the campaign here, or one elsewhere has been heard of recently.
    """
    campaign = open_campaign(root)
    with lock(campaign), session(launchpad) as lp:
        alive = live_workers(lp, campaign)
        if alive and not force:
            raise CampaignBusyError(
                f"{campaign.root}: work is going on elsewhere ({'; '.join(alive)}). Wait for it or cancel it; "
                "--force rebuilds all the same."
            )
        return rebuild(lp, campaign)


def rebuild(launchpad: LaunchPad, campaign: Campaign) -> dict[str, Any]:
    """Drop the campaign's unfinished workflows and add the current generation with what its files lack.

    To be called only by who holds the campaign's lock, with nobody else at work.
    """
    from aldriver.workflow.generation import ensure_generation

    (campaign.root / CANCEL_FILE).unlink(missing_ok=True)
    tidy(campaign)
    drop_unfinished(launchpad, campaign)
    generation, finished = campaign.frontier()
    if not finished:
        # a workflow that is complete though its files are not (they were removed): in the way of a new one
        _delete(launchpad, {"metadata.campaign": campaign.id, "metadata.generation": {"$gte": generation}})
        ensure_generation(launchpad, campaign, generation)
    return {"id": campaign.id, "generation": generation, "finished": finished}


def join(launchpad: LaunchPad, campaign: Campaign) -> None:
    """Make sure that the current generation is on the launchpad, leaving alone what others do."""
    from aldriver.workflow.generation import ensure_generation

    generation, finished = campaign.frontier()
    if not finished:
        ensure_generation(launchpad, campaign, generation)


def tidy(campaign: Campaign) -> None:
    """Clear what dead processes left, and note what was published but not noted."""
    from aldriver.label.cache import tidy as tidy_labels

    tidy_labels(campaign.labels)
    remove_leftovers(campaign.root)
    shutil.rmtree(campaign.root / "progress", ignore_errors=True)
    note_published(campaign)


def note_published(campaign: Campaign) -> None:
    """Complete the ledger: a process may die between publishing a stage and noting it."""
    from aldriver.workflow.generation import finish

    noted = {e["path"] for e in campaign.ledger.find("published")}
    for manifest in sorted(campaign.root.glob(f"generation-*/**/{MANIFEST}")):
        folder = manifest.parent
        path = folder.relative_to(campaign.root).as_posix()
        if path in noted or not is_published(folder):
            continue
        parts = folder.relative_to(campaign.root).parts
        index = int(parts[2].rpartition("-")[2]) if len(parts) > 2 else None
        stage = "collect" if parts[1] == "label" else parts[1]
        generation = int(parts[0].removeprefix("generation-"))
        campaign.ledger.append("published", stage=stage, generation=generation, index=index, path=path, recovered=True)
        if stage == "gate" and not campaign.ledger.find("decision", generation=generation):
            campaign.ledger.append("decision", **campaign.decision(generation))
    finish(campaign)


def drop_unfinished(launchpad: LaunchPad, campaign: Campaign) -> int:
    """Remove the campaign's workflows that are not complete, and tasks left without one; returns how many tasks."""
    count = _delete(launchpad, {"metadata.campaign": campaign.id, "state": {"$nin": ["COMPLETED", "ARCHIVED"]}})
    # an insertion that was cut short leaves tasks that belong to no workflow
    orphans = {"spec.campaign": campaign.id, "state": {"$nin": ["COMPLETED", "ARCHIVED"]}}
    ids = [fw["fw_id"] for fw in launchpad.fireworks.find(orphans, {"fw_id": 1})]
    return count + _delete_tasks(launchpad, ids)


def _delete(launchpad: LaunchPad, query: dict[str, Any]) -> int:
    nodes = [n for wf in launchpad.workflows.find(query, {"nodes": 1}) for n in wf["nodes"]]
    launchpad.workflows.delete_many(query)
    return _delete_tasks(launchpad, nodes)


def _delete_tasks(launchpad: LaunchPad, ids: list[int]) -> int:
    if ids:
        launchpad.fireworks.delete_many({"fw_id": {"$in": ids}})
        launchpad.launches.delete_many({"fw_id": {"$in": ids}})
    return len(ids)


def cancel(root: str | Path, *, launchpad: Path | None = None, reason: str = "") -> dict[str, Any]:
    """Stop a campaign: tasks leave the queue, workers end (running labels too), everything published stays."""
    campaign = open_campaign(root)
    atomic_write(campaign.root / CANCEL_FILE, dumps({"time": time.time(), "reason": reason}))
    campaign.ledger.append("cancelled", reason=reason)
    problem, count = "", 0
    try:
        with session(launchpad) as lp:
            unfinished = {"metadata.campaign": campaign.id, "state": {"$nin": ["COMPLETED", "ARCHIVED", "DEFUSED"]}}
            for workflow in list(lp.workflows.find(unfinished, {"nodes": 1})):
                with suppress(ValueError, RuntimeError):
                    lp.defuse_wf(workflow["nodes"][0])
                    count += 1
    except AldriverError as error:
        problem = str(error)
    stopped = _wait_idle(campaign, 20.0)
    return {"id": campaign.id, "workflows": count, "stopped": stopped, "problem": problem}


def _wait_idle(campaign: Campaign, timeout_s: float) -> bool:
    """Whether nobody on this host works on the campaign any more."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(CampaignBusyError), lock(campaign, wait_s=0.0):
            return True
        time.sleep(0.2)
    return False


def live_workers(launchpad: LaunchPad, campaign: Campaign) -> list[str]:
    """Workers that seem to be at work on the campaign's tasks, in words."""
    return _workers(launchpad, campaign)[0]


def lost_tasks(launchpad: LaunchPad, campaign: Campaign) -> list[str]:
    """Tasks whose worker is gone while nobody else is at work, in words; empty while somebody is."""
    alive, lost = _workers(launchpad, campaign)
    return [] if alive else lost


def _workers(launchpad: LaunchPad, campaign: Campaign) -> tuple[list[str], list[str]]:
    """Tasks that run by workers that seem alive, and by workers that do not."""
    query = {"spec.campaign": campaign.id, "state": "RUNNING"}
    ids = {fw["fw_id"]: fw["name"] for fw in launchpad.fireworks.find(query, {"fw_id": 1, "name": 1})}
    launches = launchpad.launches.find(
        {"fw_id": {"$in": list(ids)}, "state": "RUNNING"}, {"fw_id": 1, "fworker.name": 1, "state_history": 1}
    )
    alive: list[str] = []
    lost: list[str] = []
    for one in launches:
        worker = str(one.get("fworker", {}).get("name", "?"))
        last = max((str(h.get("updated_on") or h.get("created_on") or "") for h in one["state_history"]), default="")
        side = alive if _maybe_alive(worker, _age(last)) else lost
        side.append(f"{ids[one['fw_id']]} by {worker}, heard of {_age(last):.0f} s ago")
    return alive, lost


def _maybe_alive(worker: str, age_s: float) -> bool:
    words = worker.split()
    if len(words) == 3 and words[0] == WORKER:
        if words[1] == socket.gethostname():
            return _works_here(int(words[2]))
        return age_s < 4 * PING_SECONDS
    return age_s < 2 * FOREIGN_PING_SECONDS


def _works_here(pid: int) -> bool:
    """Whether a process of this host is one of aldriver's and alive (not a zombie, nor another with its number)."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any("aldriver" in word for word in process.cmdline())
    return False


def _age(stamp: str) -> float:
    from datetime import UTC, datetime

    with suppress(ValueError):
        then = datetime.fromisoformat(stamp)
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        return (datetime.now(UTC) - then).total_seconds()
    return 0.0


def work(
    root: str | Path | None = None,
    *,
    launchpad: Path | None = None,
    category: str | None = None,
    max_tasks: int = 0,
    wait: bool = False,
) -> int:
    """Take tasks from the launchpad and do them, until none is left; returns how many were done.

    Parameters
    ----------
    root
        Only this campaign's tasks; default: any campaign's.
    category
        Only tasks of this FireWorks category; default: all this Python has the packages for, except what goes to a
        queue (``resources.queue``).
    max_tasks
        Stop after so many; 0: no limit.
    wait
        Wait for tasks instead of ending when there is none (until the campaign ends or is cancelled).
    """
    campaign = None if root is None else open_campaign(root)
    from pymongo.errors import PyMongoError

    with session(launchpad) as lp:
        try:
            return work_loop(lp, campaign, category=category, max_tasks=max_tasks, wait=wait)
        except PyMongoError as error:
            raise AldriverError(f"the launchpad was lost while working ({str(error)[:200]})") from error


def work_loop(
    launchpad: LaunchPad,
    campaign: Campaign | None,
    *,
    category: str | None = None,
    max_tasks: int = 0,
    wait: bool = False,
    task: int | None = None,
) -> int:
    """See :func:`work`. SIGUSR1 ends it after the task in progress; `task` is the only one to do."""
    prepare_fireworks()
    from fireworks import FWorker
    from fireworks.core.rocket_launcher import launch_rocket

    draining: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda signum, _: draining.append(signum))
    query: dict[str, Any] = {"spec.campaign": campaign.id if campaign else {"$exists": True}}
    mine = query if category else query | {"spec._category": {"$nin": elsewhere()}, "spec.queued": {"$ne": True}}
    worker = FWorker(f"{WORKER} {socket.gethostname()} {os.getpid()}", category=category or "", query=mine)
    done, idle = 0, 0.0
    try:
        if task is not None:
            return int(launch_rocket(launchpad, worker, fw_id=task, strm_lvl="CRITICAL"))
        while (
            not (draining or interrupt.pending())
            and not (campaign and campaign.cancelled)
            and not (max_tasks and done >= max_tasks)
        ):
            if launchpad.run_exists(worker) and launch_rocket(launchpad, worker, strm_lvl="CRITICAL"):
                done, idle = done + 1, 0.0
                continue
            if campaign and campaign.frontier()[1]:
                break
            if not wait and not _in_flight(launchpad, query):
                break
            idle = min(1.0, idle + 0.1)
            time.sleep(idle)
    finally:
        signal.signal(signal.SIGUSR1, previous)
        for thread in threading.enumerate():  # FireWorks' heartbeats ping once more after their task has ended
            if "ping_launch" in thread.name:
                thread.join(5.0)
        interrupt.obey()
    return done


def _in_flight(launchpad: LaunchPad, query: dict[str, Any]) -> bool:
    """Whether a task is being done somewhere, so that others may follow."""
    states = {"$in": ["RUNNING", "RESERVED"]}
    return launchpad.fireworks.count_documents({**query, "state": states}, limit=1) > 0
