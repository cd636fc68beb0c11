"""``aldriver run | launch | work | resume | cancel``: campaigns from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aldriver.cli.common import Json, console, emit, log

if TYPE_CHECKING:
    from aldriver.workflow.run import Outcome

RecipeFile = Annotated[Path, typer.Argument(help="Recipe (YAML).")]
Dir = Annotated[Path | None, typer.Option("--dir", help="Campaign directory; default: campaigns/NAME.")]
Accept = Annotated[bool, typer.Option("--accept-changes", help="Go on with a changed recipe (recorded in the ledger).")]
Launchpad = Annotated[Path | None, typer.Option("--launchpad", help="launchpad.yaml to use.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Local worker processes; default: the recipe's.")]
CampaignDir = Annotated[Path, typer.Argument(help="Campaign directory.")]


def _create(recipe: Path, directory: Path | None, accept_changes: bool) -> Path:
    from aldriver.core.recipe import load_recipe
    from aldriver.workflow.campaign import create

    root = directory or Path("campaigns") / load_recipe(recipe).name
    return create(recipe, root, accept_changes=accept_changes).root


def run(
    recipe: RecipeFile,
    directory: Dir = None,
    accept_changes: Accept = False,
    workers: Workers = None,
    launchpad: Launchpad = None,
    json_to: Json = None,
) -> None:
    """Launch the campaign of RECIPE and work on it here until it ends, with live progress.

    Run again (or `aldriver resume DIR`) after an interruption: it goes on where it was.
    """
    _work_here(_create(recipe, directory, accept_changes), workers, launchpad, json_to)


def resume(
    campaign: CampaignDir,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Check it against the campaign's.")] = None,
    accept_changes: Accept = False,
    workers: Workers = None,
    launchpad: Launchpad = None,
    force: Annotated[bool, typer.Option("--force", help="Even if workers elsewhere seem to be alive.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Only rebuild the launchpad.")] = False,
    json_to: Json = None,
) -> None:
    """Go on with an interrupted campaign: nothing published is lost or computed again."""
    from aldriver.workflow.campaign import create, open_campaign

    root = open_campaign(campaign).root
    if recipe is not None:
        create(recipe, root, accept_changes=accept_changes)
    if detach:
        from aldriver.workflow import control

        result = control.resume(root, launchpad=launchpad, force=force)
        if not emit(result, json_to):
            console.print(f"{root}: back on the launchpad; `aldriver work {root}` works on it")
        return
    _work_here(root, workers, launchpad, json_to)


def launch(
    recipe: RecipeFile,
    directory: Dir = None,
    accept_changes: Accept = False,
    launchpad: Launchpad = None,
    json_to: Json = None,
) -> None:
    """Put the campaign of RECIPE on the launchpad without working on it (see `aldriver work`)."""
    root = _create(recipe, directory, accept_changes)
    from aldriver.workflow import control

    result = control.launch(root, launchpad=launchpad)
    if not emit({"campaign": root, **result}, json_to):
        console.print(f"{root}: on the launchpad; `aldriver work {root}` works on it")


def work(
    campaign: Annotated[Path | None, typer.Argument(help="Campaign directory; default: any campaign.")] = None,
    category: Annotated[str | None, typer.Option("--category", help="Only tasks of this FireWorks category.")] = None,
    max_tasks: Annotated[int, typer.Option("--max-tasks", min=0, help="Stop after so many; 0: no limit.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for work instead of ending when there is none.")] = False,
    launchpad: Launchpad = None,
    json_to: Json = None,
) -> None:
    """Take tasks from the launchpad and do them (in a queue job, on another machine)."""
    from aldriver.workflow import control

    done = control.work(campaign, launchpad=launchpad, category=category, max_tasks=max_tasks, wait=wait)
    if not emit({"tasks": done}, json_to):
        console.print(f"{done} task{'s' if done != 1 else ''} done")


def cancel(
    campaign: CampaignDir,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the ledger.")] = "",
    launchpad: Launchpad = None,
    json_to: Json = None,
) -> None:
    """Stop a campaign: its tasks leave the launchpad, its processes end; everything published stays."""
    from aldriver.workflow import control

    result = control.cancel(campaign, launchpad=launchpad, reason=reason)
    if not emit(result, json_to):
        console.print(f"{campaign}: cancelled; `aldriver resume {campaign}` goes on with it")


def _work_here(root: Path, workers: int | None, launchpad: Path | None, json_to: str | None) -> None:
    from aldriver.cli.live import Live
    from aldriver.workflow.run import run as work_until_done

    with Live() as live:
        outcome = work_until_done(root, workers=workers, launchpad=launchpad, on_event=live.event)
    _finish(root, outcome, launchpad, json_to)


def _finish(root: Path, outcome: Outcome, launchpad: Path | None, json_to: str | None) -> None:
    from aldriver.workflow.status import status

    summary: dict[str, Any] = {
        "campaign": root,
        "state": outcome.state,
        "reason": outcome.reason,
        "generation": outcome.generation,
        "promoted": outcome.promoted,
        "seconds": outcome.seconds,
    }
    if outcome.state == "finished":
        from aldriver.report import write_report

        summary["report"] = write_report(root, root / "report.html")
    if not emit(summary, json_to):
        from aldriver.cli.status import show

        show(status(root, launchpad=launchpad))
        console.print(f"{outcome.state}: {outcome.reason}", highlight=False, markup=False)
        if outcome.promoted:
            console.print(f"best potential: {outcome.promoted}", highlight=False, markup=False, soft_wrap=True)
        if "report" in summary:
            console.print(f"report: {summary['report']}", highlight=False, markup=False, soft_wrap=True)
    if outcome.state != "finished":
        log.print(f"`aldriver resume {root}` goes on from here", markup=False, soft_wrap=True)
        raise typer.Exit(1)
