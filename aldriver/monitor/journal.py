"""What a monitor leaves behind: ``looks.jsonl``, ``flagged.extxyz``, ``state.json``; exactly once, whenever it dies.

Lines and frames are appended first, then the state that counts them is replaced in one step; what is beyond the state
when a monitor starts again was not counted, and is cut off before the same frames are judged again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.frames import bare, frame_text
from aldriver.core.records import dumps, read_json
from aldriver.core.store import atomic_write, disk_errors
from aldriver.monitor.judge import Look

LOOKS, FLAGGED, STATE = "looks.jsonl", "flagged.extxyz", "state.json"


class Journal:
    """The folder of one monitored run.

    Parameters
    ----------
    out
        The folder; made if missing.
    about
        What is monitored, by what; a folder that holds something else is refused.
    resume
        Go on where a monitor of the same left off; otherwise the folder must not hold one.

    Attributes
    ----------
    state
        As last committed, empty in the beginning.

    Raises
    ------
    InputError
        When the folder holds the monitoring of something else.
    """

    def __init__(self, out: Path, *, about: dict[str, Any], resume: bool) -> None:
        self.out, self.about = out, about
        self._lines: list[str] = []
        self._frames: list[str] = []
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        self.state: dict[str, Any] = {}
        if (out / STATE).exists():
            saved = read_json(out / STATE)
            if not resume or saved["about"] != about:
                raise InputError(
                    f"{out}: holds the monitoring of {saved['about'].get('source')} by "
                    f"{saved['about'].get('fingerprint')}; name another --out"
                )
            self.state = saved
        for name in (LOOKS, FLAGGED):
            self._cut(name, int(self.state.get("sizes", {}).get(name, 0)))

    def _cut(self, name: str, size: int) -> None:
        """Drop what was appended and never counted."""
        path = self.out / name
        with disk_errors(path):
            with path.open("ab"):
                pass
            if path.stat().st_size > size:
                os.truncate(path, size)

    def look(self, look: Look, **more: Any) -> None:
        """Note a look."""
        self._add(
            "look",
            step=look.step,
            verdict=look.verdict,
            ratio=look.ratio,
            score=look.score,
            limit=look.limit,
            n_atoms=look.n_atoms,
            frame_id=look.frame_id,
            reason=look.reason,
            atoms=look.suspects,
            **more,
        )

    def note(self, text: str, **more: Any) -> None:
        """Note something else that happened."""
        self._add("note", text=text, **more)

    def alarm(self, look: Look, **more: Any) -> None:
        """Note that an alarm begins."""
        self._add("alarm", step=look.step, ratio=look.ratio, reason=look.reason, atoms=look.suspects, **more)

    def _add(self, event: str, **fields: Any) -> None:
        self._lines.append(dumps({"event": event, "time": time.time(), **fields}, indent=None) + "\n")

    def queue(self, look: Look, atoms: Atoms, group: str) -> Atoms | None:
        """Put a frame into the queue, with the reason; the frame as it is queued, None when it cannot be written."""
        if not (np.isfinite(atoms.positions).all() and np.isfinite(np.asarray(atoms.cell)).all()):
            self.note("a frame whose positions are not finite cannot be kept", step=look.step)
            return None
        frame = bare(atoms)
        frame.info = {"frame_id": look.frame_id, "group": group, "step": look.step, "origin": "monitor"}
        frame.info |= {"verdict": look.verdict, "ratio": look.ratio, "reason": look.reason, "atoms": look.named}
        self._frames.append(frame_text(frame))
        return frame

    def commit(self, *, lasting: bool = True, **state: Any) -> None:
        """Append what was noted, then replace the state.

        Parameters
        ----------
        lasting
            Force it to the disk; False to leave that to the system where nothing goes on after a power cut anyway.
        """
        self._append(LOOKS, self._lines, lasting)
        self._append(FLAGGED, self._frames, lasting)
        if lasting:
            sizes = {name: (self.out / name).stat().st_size for name in (LOOKS, FLAGGED)}
            self.state = {"about": self.about, "sizes": sizes, **state}
            atomic_write(self.out / STATE, dumps(self.state))

    def _append(self, name: str, texts: list[str], lasting: bool) -> None:
        if not texts:
            return
        path = self.out / name
        with disk_errors(path), path.open("ab") as handle:
            handle.write("".join(texts).encode())
            if lasting:
                handle.flush()
                os.fsync(handle.fileno())
        texts.clear()

    def history(self) -> tuple[list[int], list[float], list[bool]]:
        """Step, score over limit (NaN where there is none) and whether outside, of all looks so far."""
        import json

        steps, ratios, outside = [], [], []
        for line in (self.out / LOOKS).read_text().splitlines():
            entry = json.loads(line)
            if entry["event"] == "look":
                steps.append(int(entry["step"]))
                ratios.append(float("nan") if entry["ratio"] is None else float(entry["ratio"]))
                outside.append(entry["verdict"] != "known")
        return steps, ratios, outside
