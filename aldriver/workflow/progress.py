"""What each process is doing right now: a small file per process in the campaign, replaced in place.

Owns liveness only: nothing here is a commit point, and losing it loses nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

MIN_INTERVAL_S = 0.3


class Progress:
    """Progress of one stage in this process; the file goes when the block ends.

    ``progress/<pid>.json`` holds ``stage, generation, index, done, total, note, started, updated, pid, host, eta_s``.
    """

    def __init__(self, root: Path, stage: str, generation: int, index: int | None = None) -> None:
        self.path = root / "progress" / f"{os.getpid()}.json"
        self.state: dict[str, Any] = {
            "stage": stage,
            "generation": generation,
            "index": index,
            "done": 0,
            "total": None,
        }
        self.state |= {"note": "", "started": time.time(), "pid": os.getpid(), "host": socket.gethostname()}
        self._written = 0.0

    def __enter__(self) -> Progress:
        self.update()
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)

    def update(self, done: float | None = None, total: float | None = None, note: str | None = None) -> None:
        """Say how far it is; calls in quick succession are dropped."""
        for key, value in (("done", done), ("total", total), ("note", note)):
            if value is not None:
                self.state[key] = value
        now = time.time()
        if now - self._written < MIN_INTERVAL_S:
            return
        self._written = now
        fraction = self.state["done"] / self.state["total"] if self.state["total"] else 0.0
        elapsed = now - self.state["started"]
        eta = elapsed * (1 - fraction) / fraction if fraction > 0 else None
        tmp = self.path.with_suffix(".tmp")
        with suppress(OSError):  # a full disk must not end the stage here: it will say so where it matters
            self.path.parent.mkdir(exist_ok=True)
            tmp.write_text(json.dumps({**self.state, "updated": now, "eta_s": eta}))
            tmp.replace(self.path)


def running(root: Path) -> list[dict[str, Any]]:
    """What processes are doing now, oldest stage first; files of dead processes of this host are removed."""
    found = []
    for path in (root / "progress").glob("*.json"):
        with suppress(OSError, ValueError):
            state = json.loads(path.read_text())
            if state["host"] == socket.gethostname() and not Path(f"/proc/{state['pid']}").exists():
                path.unlink(missing_ok=True)
                continue
            found.append(state)
    return sorted(found, key=lambda s: (s["started"], s["pid"]))


def of_process(root: Path, pid: int) -> dict[str, Any] | None:
    """What a process of this host was last doing, if it did not finish it; forgets it."""
    path = root / "progress" / f"{pid}.json"
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    path.unlink(missing_ok=True)
    return state if isinstance(state, dict) else None
