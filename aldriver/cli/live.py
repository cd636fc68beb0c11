"""Live view of a running campaign: one bar per running stage, one line per commit point."""

from __future__ import annotations

import time
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aldriver.cli.common import log


class Live:
    """Turns a run's events into bars and lines on stderr (plain lines when it is not a terminal)."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=log,
            transient=True,
        )
        self._tasks: dict[Any, Any] = {}
        self._labels = 0

    def __enter__(self) -> Live:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def event(self, event: dict[str, Any]) -> None:
        """Show one event of :func:`aldriver.workflow.run.run`."""
        kind = event.get("event")
        if kind == "progress":
            self._progress(event["running"])
        elif (text := _line(event)) is not None:
            clock = time.strftime("%H:%M:%S")
            log.print(f"[dim]{clock}[/] {text}", highlight=False)

    def _progress(self, running: list[dict[str, Any]]) -> None:
        alive = set()
        for state in running:
            key = (state["pid"], state["stage"], state["generation"], state["index"])
            alive.add(key)
            index = "" if state["index"] is None else f" {state['index']}"
            if key not in self._tasks:
                name = f"generation {state['generation']}: {state['stage']}{index}"
                self._tasks[key] = self._bars.add_task(name, total=state["total"], note="")
            note = escape(str(state["note"] or ""))
            self._bars.update(self._tasks[key], completed=state["done"], total=state["total"], note=note)
        for key in set(self._tasks) - alive:
            self._bars.remove_task(self._tasks.pop(key))


def _line(event: dict[str, Any]) -> str | None:
    kind = event.get("event")
    if kind == "published":
        return escape(f"generation {event['generation']}: {event['stage']} done in {event.get('seconds', 0):.0f} s")
    if kind == "label" and event.get("status") != "ok":
        return "[yellow]" + escape(f"label {event['key']}: {event['status']}: {event['reason']}")
    if kind == "decision":
        return "[bold]" + escape(f"generation {event['generation']}: {event['reason']}")
    if kind == "recipe_changed":
        return "recipe changed (recorded)"
    if kind == "warning":
        return "[yellow]" + escape(event["message"])
    return None
