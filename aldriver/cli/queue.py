"""``aldriver queue``: tasks of a campaign as jobs of a cluster's queue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from aldriver.cli.common import Json, console, emit, log

app = typer.Typer(help="Tasks as jobs of a Slurm queue (`resources.queue` of the recipe).", no_args_is_help=True)

CampaignDir = Annotated[Path, typer.Argument(help="Campaign directory.")]
Launchpad = Annotated[Path | None, typer.Option("--launchpad", help="launchpad.yaml to use.")]


@app.command()
def init(campaign: CampaignDir, launchpad: Launchpad = None, json_to: Json = None) -> None:
    """Write the job template and FireWorks' adapter and worker files into CAMPAIGN/queue, to look at and to edit."""
    from aldriver.workflow import cluster
    from aldriver.workflow.campaign import open_campaign

    written = cluster.prepare(open_campaign(campaign), launchpad=launchpad)
    problem = cluster.out_of_reach(launchpad)
    if not emit({"written": written, "problem": problem}, json_to):
        for path in written:
            console.print(str(path), highlight=False, soft_wrap=True)
        if problem:
            log.print(f"note: {problem}", markup=False, soft_wrap=True)


@app.command()
def submit(
    campaign: CampaignDir,
    category: Annotated[str | None, typer.Option("--category", help="Only this category; default: all.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many jobs of yours in the queue.")] = 50,
    watch: Annotated[bool, typer.Option("--watch", help="Go on every minute until the campaign has ended.")] = False,
    launchpad: Launchpad = None,
    json_to: Json = None,
) -> None:
    """Submit a job for each task that waits, and again for tasks whose job died (`aldriver run` does so by itself)."""
    from aldriver.workflow import cluster
    from aldriver.workflow.campaign import open_campaign
    from aldriver.workflow.launchpad import session

    found = open_campaign(campaign)
    jobs: list[str] = []
    recovered: list[str] = []
    with session(launchpad) as lp:
        while True:
            result = cluster.submit(lp, found, category=category, most=most)
            jobs += result["jobs"]
            recovered += result["recovered"]
            if not watch or found.cancelled or found.frontier()[1]:
                break
            time.sleep(60.0)
    if not emit({"jobs": jobs, "recovered": recovered}, json_to):
        console.print(f"{len(jobs)} job{'s' if len(jobs) != 1 else ''} submitted", highlight=False)
        for name in recovered:
            console.print(f"  its job was gone, put back: {name}", highlight=False, markup=False)
