"""Events of a running campaign for whoever watches: new ledger entries, progress, warnings. Reads files only."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aldriver.workflow.campaign import Campaign
from aldriver.workflow.progress import running


class EventPump:
    """Turns what appears in a campaign's files into calls of `on_event`."""

    def __init__(self, campaign: Campaign, on_event: Callable[[dict[str, Any]], None] | None) -> None:
        self.campaign, self.on_event = campaign, on_event
        self._said: set[str] = set()
        path = campaign.ledger.path
        self._offset = path.stat().st_size if path.exists() else 0

    def pump(self, *, final: bool = False) -> None:
        """Hand on what is new."""
        for entry in self._new_entries():
            self._emit(entry)
        self._emit({"event": "progress", "running": [] if final else running(self.campaign.root)})

    def warn(self, message: str, *, once: bool = False) -> None:
        """Tell the watcher of something that went wrong and is being dealt with; `once`: not again in these words."""
        if once and message in self._said:
            return
        self._said.add(message)
        self._emit({"event": "warning", "message": message})

    def _emit(self, event: dict[str, Any]) -> None:
        if self.on_event is not None:
            self.on_event(event)

    def _new_entries(self) -> list[dict[str, Any]]:
        path = self.campaign.ledger.path
        if not path.exists():
            return []
        with path.open("rb") as handle:
            handle.seek(self._offset)
            data = handle.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        entries = []
        for line in complete.splitlines():
            with suppress(ValueError):
                entries.append(json.loads(line))
        return [e for e in entries if isinstance(e, dict)]
