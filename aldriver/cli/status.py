"""``aldriver status``: where campaigns stand, from one projected query and the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from aldriver.cli.common import Json, console, emit, number

Launchpad = Annotated[Path | None, typer.Option("--launchpad", help="launchpad.yaml to use.")]


ERRORS = (("forces", "meV_A", "meV/Å"), ("energy", "meV_atom", "meV/atom"), ("stress", "GPa", "GPa"))


def status(
    campaign: Annotated[Path | None, typer.Argument(help="Campaign directory; default: all on the launchpad.")] = None,
    launchpad: Launchpad = None,
    json_to: Json = None,
) -> None:
    """Generation, stage, labels, errors and benchmark per generation, decisions, cost, what runs now, ETA."""
    from aldriver.workflow import status as reader

    if campaign is not None:
        found = [reader.status(campaign, launchpad=launchpad)]
    else:
        found = reader.status_all(launchpad=launchpad)
    if emit(found[0] if campaign is not None else {"campaigns": found}, json_to):
        return
    for one in found:
        show(one)
    if not found:
        console.print("no campaign on this launchpad; `aldriver run RECIPE` starts one")


def show(state: dict[str, Any]) -> None:
    """Print one campaign's status: a headline, a table over generations, costs and what runs now."""
    colour = {"finished": "green", "running": "cyan", "failed": "red"}.get(state["state"], "yellow")
    console.print(
        f"[bold]{escape(state['name'])}[/]  [{colour}]{state['state']}[/]  {escape(state['reason'])}", highlight=False
    )
    labels = state["labels"]
    console.print(
        f"generation {state['generation']} of {state['generations']}, stage {state['stage']}; "
        f"labels: {labels['done']} done, {labels['failed']} failed, {labels['pending']} pending",
        highlight=False,
    )
    for reason, count in labels["reasons"].items():
        console.print(f"  {count} × {reason}", markup=False, highlight=False)
    console.print(_table(state))
    for one in state["rounds"]:
        if one["decision"] and one["generation"]:
            text = f"{one['name']}: {one['decision']['reason']}"
            console.print(text, markup=False, highlight=False)
    for line in detection(state):
        console.print(line, markup=False, highlight=False)
    cost = ", ".join(f"{stage} {hours:.3g}" for stage, hours in state["cost"].items())
    console.print(f"core-hours: {cost or 'none yet'}", highlight=False)
    for task in state["running"]:
        share = f" {task['done']:g}/{task['total']:g}" if task.get("total") else ""
        index = "" if task["index"] is None else f" {task['index']}"
        console.print(f"running: {task['stage']}{index}{share} {task['note']}", markup=False, highlight=False)
    if state["eta_s"] is not None:
        console.print(f"about {duration(state['eta_s'])} left", highlight=False)
    if state["promoted"]:
        console.print(f"promoted: {state['promoted']}", markup=False, highlight=False, soft_wrap=True)
    if not state["launchpad"]["reachable"]:
        problem = state["launchpad"]["problem"]
        console.print(f"launchpad not reached ({problem}); this is from the files alone", style="dim", markup=False)


def detection(state: dict[str, Any]) -> list[str]:
    """What the detector of the latest generation promises, whether that still fits, and what audits measured."""
    rounds = [one for one in state["rounds"] if one.get("detection")]
    if not rounds:
        return []
    name, latest = rounds[-1]["name"], rounds[-1]["detection"]
    promise, drift = latest["promise"], latest["drift"]
    asked = f"tolerance {promise['tolerance_meV_A']:g} meV/Å, miss rate {promise['miss_rate']:g}"
    lines = [f"detector of {name} ({asked}): {promise['sentences'][0]}"]
    flagged = f"  {latest['flagged']} of {latest['candidates']} candidates flagged"
    flagged += f", {latest['unphysical']} unphysical" if latest["unphysical"] else ""
    lines.append(flagged + (f"; {drift['sentence']}" if drift else ""))
    audits = [one["detection"]["audit"] for one in rounds if one["detection"]["audit"]]
    if audits:
        lines.append(f"  audit so far: {audits[-1]['so_far']['sentence']}")
    if latest["recalibrated"]:
        lines.append(f"  recalibrated on the labels since: {latest['recalibrated']['sentences'][0]}")
    if latest["step"]:
        lines.append(f"  {'settled' if latest['step']['settled'] else 'still moving'}: {latest['step']['sentence']}")
    return lines


def duration(seconds: float) -> str:
    """Seconds in words a person reads at a glance."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(state: dict[str, Any]) -> Any:
    """Errors and properties over generations, beside the foundation and the reference; fits 80 columns."""
    from rich.table import Table

    reference = {(r["case"], r["property"]): r for r in state["reference"]}
    rounds = [r for r in state["rounds"] if r["records"] or r["test"] or r["valid"]]
    keys = list(reference) or list({(r["case"], r["property"]): 0 for one in rounds for r in one["records"]})
    table = Table("", padding=(0, 1, 0, 0))
    for one in rounds:
        table.add_column("found." if one["generation"] == 0 else f"gen {one['generation']}", justify="right")
    table.add_column("ref.", justify="right")
    for name, which in (("test", "test"), ("validation", "valid")):
        for quantity, unit, shown in ERRORS:
            values = [(one[which] or {}).get(f"{quantity}_rmse_{unit}") for one in rounds]
            if any(v is not None for v in values):
                table.add_row(f"{name} {quantity} RMSE ({shown})", *map(number, values), "")
    for case, name in keys:
        found = [{(r["case"], r["property"]): r for r in one["records"]}.get((case, name)) for one in rounds]
        target = reference.get((case, name))
        unit = next((r["unit"] for r in [target, *found] if r and r["unit"]), "")
        label = f"{case} {name.replace('_', ' ').replace('formation', 'form.')}" + (f" ({unit})" if unit else "")
        table.add_row(label, *(_cell(record) for record in found), number(target["value"]) if target else "—")
    if any(r and not r["converged"] for one in rounds for r in one["records"]):
        table.caption = "* not converged"
    return table


def _cell(record: dict[str, Any] | None) -> str:
    return "—" if record is None else number(record["value"]) + ("" if record["converged"] else "*")
