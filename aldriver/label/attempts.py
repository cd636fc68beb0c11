"""Attempts at a label: run an engine, and again while the ending deserves it, with the same input or another way there.

What an ending means is the engine's business; its processes are ``process.py``'s.
"""

from __future__ import annotations

import errno
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aldriver.label.base import Label, Status
from aldriver.label.process import RunResult

ABSENT = "engine_absent"
"""Mark in the provenance of a label that failed because its engine is not here: nothing is known of its frame."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an attempt ended.

    Attributes
    ----------
    retry
        Whether the same input deserves another attempt.
    correct
        Whether another way to the same result (``corrections``) may get there.
    values
        Fields of the label when it is ok (``energy``, ``forces``, ...).
    provenance
        What the output says of the calculation, whatever its status.
    """

    status: Status
    reason: str = ""
    retry: bool = False
    correct: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def label_by_attempts(
    prepare: Callable[[Mapping[str, Any]], object],
    attempt: Callable[[], tuple[RunResult, Ending]],
    workdir: Path,
    *,
    retries: int,
    cancel: threading.Event,
    keep: Sequence[str] = (),
    corrections: Sequence[Mapping[str, Any]] = (),
) -> Label:
    """The label of the last attempt; the provenance lists all.

    Parameters
    ----------
    prepare
        Writes the input into `workdir`, with the changes of a correction; called before each attempt.
    attempt
        Runs the engine once.
    retries
        Attempts with the same input after the first.
    keep
        Files of an attempt that get names of their own when there is another.
    corrections
        Changes of the way to the result, in the order in which they are tried.
    """
    start, cpu = time.monotonic(), time.process_time()
    tried: list[dict[str, Any]] = []
    ways, changes, repeats = iter(corrections), dict[str, Any](), 0
    while True:
        prepare(changes)
        run, ending = attempt()
        tried.append({"ending": ending.status, "reason": ending.reason, "changes": changes, "seconds": run.seconds,
                      "cpu_s": run.cpu_s})  # fmt: skip
        way = next(ways, None) if ending.correct else None
        if way is None and not (ending.retry and repeats < retries):
            break
        for name in keep:
            if (workdir / name).exists():
                (workdir / name).replace(workdir / f"{name}.attempt-{len(tried)}")
        if way is None:
            repeats += 1
            cancel.wait(min(0.1 * 2**repeats, 5.0))  # what made it crash may need a moment to pass
        else:
            changes = dict(way)
    costs = _costs(run, tried)
    return Label(
        status=ending.status,
        reason=ending.reason + _efforts(ending, tried),
        **(ending.values if ending.status == "ok" else {}),
        provenance={"corrections": _corrections(tried)} | ending.provenance | costs,
        seconds=time.monotonic() - start,
        cpu_s=costs["engine_cpu_s"] + time.process_time() - cpu,
    )


def _costs(run: RunResult, tried: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "returncode": run.returncode,
        "retries": sum(a["changes"] == b["changes"] for a, b in itertools.pairwise(tried)),
        "attempts": tried,
        "wall_s": sum(t["seconds"] for t in tried),
        "engine_cpu_s": sum(t["cpu_s"] for t in tried),
    }


def _corrections(tried: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was changed after which ending."""
    pairs = itertools.pairwise(tried)
    return [{"after": a["reason"], "changes": b["changes"]} for a, b in pairs if b["changes"] != a["changes"]]


def _efforts(ending: Ending, tried: Sequence[Mapping[str, Any]]) -> str:
    """What was tried in vain, as the end of a reason."""
    changes = tried[-1]["changes"]
    same = sum(t["changes"] == changes for t in tried)
    said = f" ({same} attempts with the same input)" if ending.retry and same > 1 else ""
    if ending.correct and changes:
        said += f"; also not with {', '.join(f'{k} {v}' for k, v in changes.items())}"
    return said


def run_problem(run: RunResult, *, code: str, timeout_s: float, install: str) -> Ending | None:
    """The ending of a run that was cancelled, never started, or stopped at its time limit; None for all others."""
    if run.outcome == "cancelled":
        return Ending(status="cancelled", reason="cancelled")
    if run.outcome == "missing":
        return Ending(status="failed", reason=f"{run.message}: {install}", provenance={ABSENT: True})
    if run.outcome == "timeout":
        return Ending(status="timeout", reason=f"{code} was {run.message} (label.timeout_s {timeout_s:g})")
    return None


def words_of(path: Path) -> str:
    """What a program said; empty where there is no such file."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def last_words(path: Path) -> str:
    """The last line a program said, as the end of a sentence; empty when it said nothing."""
    lines = [line.strip() for line in words_of(path).splitlines() if line.strip(" -\t")]
    return f": {lines[-1][:200]}" if lines else ""


def refuse_full_disk(*outputs: Path, code: str) -> None:
    """A run that met a full disk says nothing of its frame.

    Raises
    ------
    OSError
        ``ENOSPC``, when one of the outputs says so.
    """
    if any("No space left on device" in words_of(path) for path in outputs):
        raise OSError(errno.ENOSPC, f"{code} found no space left on the disk")
