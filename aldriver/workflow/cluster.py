"""Tasks as Slurm jobs: the files FireWorks' queue launcher reads, submission, and tasks whose job is gone.

``CAMPAIGN/queue/`` holds a job template, a launchpad file, and an adapter and a worker file for each category of
``resources.queue``; they are the user's to edit. What a job does is ``rocket.py``'s business.
"""

from __future__ import annotations

import getpass
import json
import shutil
import string
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.store import atomic_write, disk_errors
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.launchpad import connection, prepare_fireworks, write_launchpad_file

if TYPE_CHECKING:
    from fireworks import LaunchPad

FOLDER = "queue"
TEMPLATE, LAUNCHPAD = "slurm_template.txt", "my_launchpad.yaml"
WORDS = "FW_submit.error"
"""What sbatch said, beside the script it refused (``slurm.py``)."""
MOST_WAITING = 50
"""Jobs of a user in the queue above which no more are submitted."""

SLURM = """#!/bin/bash -l

#SBATCH --job-name=$${job_name}
#SBATCH --time=$${walltime}
#SBATCH --nodes=$${nodes}
#SBATCH --ntasks=$${ntasks}
#SBATCH --ntasks-per-node=$${ntasks_per_node}
#SBATCH --cpus-per-task=$${cpus_per_task}
#SBATCH --mem=$${mem}
#SBATCH --gres=$${gres}
#SBATCH --partition=$${queue}
#SBATCH --account=$${account}
#SBATCH --qos=$${qos}
#SBATCH --constraint=$${constraint}
#SBATCH --exclude=$${exclude_nodes}
#SBATCH --licenses=$${license}
#SBATCH --output=$${job_name}-%j.out
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --signal=B:TERM@$${warn_s}

$${pre_rocket}
cd $${launch_dir}
# exec: Slurm's signal must reach aldriver itself, which puts unfinished labels back on the launchpad
exec $${rocket_launch}
"""


def folder(campaign: Campaign) -> Path:
    """Where the files of the queue lie."""
    return campaign.root / FOLDER


def prepare(campaign: Campaign, *, launchpad: Path | None = None) -> list[Path]:
    """Write the files of the queue; those that are there are the user's and stay. Returns what was written.

    The launchpad file is always written anew: the database may have moved.

    Raises
    ------
    InputError
        When the recipe has no ``resources.queue``.
    """
    import yaml

    categories = campaign.recipe.resources.queue
    if not categories:
        raise InputError(
            f"{campaign.root}: the recipe sends nothing to a queue; give for example\n"
            "resources:\n  queue:\n    dft: {nodes: 1, ntasks: 32, walltime: '04:00:00', queue: standard}"
        )
    where = folder(campaign)
    with disk_errors(where):
        (where / "jobs").mkdir(parents=True, exist_ok=True)
    (where / LAUNCHPAD).unlink(missing_ok=True)
    written = [write_launchpad_file(where / LAUNCHPAD, launchpad=launchpad)]
    texts = {TEMPLATE: SLURM}
    for category in categories:
        command = f"{sys.executable} -m aldriver.workflow.rocket {campaign.root} --launchpad {where / LAUNCHPAD} "
        adapter = {
            "_fw_name": "{{aldriver.workflow.slurm.SlurmAdapter}}",
            "_fw_q_type": "SLURM",
            "_fw_template_file": str(where / TEMPLATE),
            "rocket_launch": f"{command}--category {category} singleshot",
            "warn_s": 120,
        }
        worker = {"name": f"queue {category}", "category": category, "query": json.dumps(_query(campaign))}
        texts[f"qadapter-{category}.yaml"] = yaml.safe_dump(adapter, sort_keys=False, width=1000)
        texts[f"fworker-{category}.yaml"] = yaml.safe_dump(worker, sort_keys=False, width=1000)
    for name, text in texts.items():
        if not (where / name).exists():
            atomic_write(where / name, text)
            written.append(where / name)
    return written


def out_of_reach(launchpad: Path | None = None) -> str:
    """Why jobs on other machines could not reach the launchpad; empty when they can."""
    found = connection(launchpad)
    if found is None or not found.embedded:
        return ""
    return (
        "the embedded launchpad answers on this machine only, so jobs on other nodes cannot reach it: name a MongoDB "
        "in launchpad.yaml"
    )


def submit(
    launchpad: LaunchPad, campaign: Campaign, *, category: str | None = None, most: int = MOST_WAITING
) -> dict[str, list[str]]:
    """Submit a job for each task that waits for the queue, in FireWorks' reservation mode.

    Tasks whose job is gone without a word (killed, node lost) are put back first and get a new one.

    Parameters
    ----------
    category
        Only this one; default: all of ``resources.queue``.
    most
        Stop while so many jobs of this user are in the queue.

    Returns
    -------
    dict
        ``jobs`` (ids submitted) and ``recovered`` (names of tasks put back).

    Raises
    ------
    InputError
        When the files are missing (:func:`prepare`), or the recipe asks for what the template has no place for.
    AldriverError
        When there is no Slurm here, or it refused a job.
    """
    prepare_fireworks()
    from fireworks import FWorker
    from fireworks.queue.queue_launcher import launch_rocket_to_queue
    from fireworks.utilities.fw_serializers import load_object_from_file

    if shutil.which("sbatch") is None:
        raise AldriverError("'sbatch' was not found on PATH: submit where Slurm is (a login node)")
    recovered = recover(launchpad, campaign)
    jobs: list[str] = []
    jobs_dir = str(folder(campaign) / "jobs")
    for name in campaign.recipe.resources.queue if category is None else [category]:
        file = folder(campaign) / f"qadapter-{name}.yaml"
        if not file.is_file():
            raise InputError(f"{file}: is missing; `aldriver queue init {campaign.root}` writes it")
        adapter = load_object_from_file(str(file))
        _check_keys(campaign, name, Path(adapter.template_file), set(adapter))
        worker = FWorker(f"queue {name}", category=name, query=_query(campaign))
        waiting = len(living_jobs() or ())
        while waiting < most and launchpad.run_exists(worker):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of what FireWorks itself uses
                job = launch_rocket_to_queue(launchpad, worker, adapter, jobs_dir, True, "CRITICAL", True)
            if job is None:
                break
            if not job:
                raise AldriverError(_refused(campaign))
            jobs.append(str(job))
            waiting += 1
    return {"jobs": jobs, "recovered": recovered}


def keep_queued(
    launchpad: LaunchPad, campaign: Campaign, *, launchpad_file: Path | None = None
) -> dict[str, list[str]]:
    """:func:`submit`, with the files written where there are none; does nothing while no task is for the queue."""
    query = {**_query(campaign), "spec.queued": True, "state": {"$in": ["READY", "RESERVED", "RUNNING"]}}
    if not launchpad.fireworks.count_documents(query, limit=1):
        return {"jobs": [], "recovered": []}
    if not (folder(campaign) / LAUNCHPAD).is_file():
        prepare(campaign, launchpad=launchpad_file)
    return submit(launchpad, campaign)


def recover(launchpad: LaunchPad, campaign: Campaign) -> list[str]:
    """Put back the tasks whose job has left the queue without finishing them; returns their names.

    Nothing is done when the queue does not answer: a job that cannot be seen is not a job that is gone.
    """
    seen = _reserved(launchpad, campaign)
    jobs = living_jobs() if seen else None
    if jobs is None:
        return []
    names = []
    # a job that ended well has told the launchpad before it left the queue: look again at those that seem lost
    still = _reserved(launchpad, campaign)
    for task, (launch, job, state) in seen.items():
        if job in jobs or still.get(task) != (launch, job, state):
            continue
        if state == "RESERVED":
            launchpad.cancel_reservation(launch)
        else:
            launchpad.rerun_fw(task)
        found = launchpad.fireworks.find_one({"fw_id": task}, {"name": 1})
        names.append(f"{(found or {}).get('name', task)} (job {job})")
    return names


def living_jobs() -> set[str] | None:
    """Ids of this user's jobs, waiting or running; None when the queue does not answer."""
    command = ["squeue", "--noheader", "--format=%A", "--user", getpass.getuser()]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(answer.stdout.split())


def _query(campaign: Campaign) -> dict[str, Any]:
    return {"spec.campaign": campaign.id}


def _reserved(launchpad: LaunchPad, campaign: Campaign) -> dict[int, tuple[int, str, str]]:
    """Tasks that a job holds: launch, id of the job, and state (reserved or running)."""
    states = {"$in": ["RESERVED", "RUNNING"]}
    ids = [f["fw_id"] for f in launchpad.fireworks.find({**_query(campaign), "state": states}, {"fw_id": 1})]
    found = {}
    fields = {"fw_id": 1, "launch_id": 1, "state": 1, "state_history": 1}
    for launch in launchpad.launches.find({"fw_id": {"$in": ids}, "state": states}, fields):
        job = next((h["reservation_id"] for h in launch["state_history"] if h.get("reservation_id")), None)
        if job is not None:
            found[int(launch["fw_id"])] = (int(launch["launch_id"]), str(job), str(launch["state"]))
    return found


def _check_keys(campaign: Campaign, category: str, template: Path, given: set[str]) -> None:
    """FireWorks drops what the template has no place for with a warning nobody sees."""
    try:
        known = {field for _, field, _, _ in string.Formatter().parse(template.read_text()) if field}
    except OSError as error:
        raise InputError(f"{template}: cannot be read ({error.strerror})") from error
    wanted = set(campaign.recipe.resources.queue.get(category, {})) | {k for k in given if not k.startswith("_")}
    unknown = sorted(wanted - known)
    if unknown:
        allowed = ", ".join(sorted(known - {"launch_dir", "rocket_launch", "job_name"}))
        raise InputError(
            f"resources.queue.{category}: {', '.join(unknown)} has no place in {template}; it knows {allowed}. "
            "Add a line for it there, or remove it."
        )


def _refused(campaign: Campaign) -> str:
    words = sorted(folder(campaign).glob(f"jobs/*/{WORDS}"), key=lambda p: p.stat().st_mtime)
    said = f" ({words[-1].read_text()}; {words[-1].parent})" if words else ""
    return f"Slurm refused a job{said}. What it asks for: resources.queue and {folder(campaign) / TEMPLATE}"
