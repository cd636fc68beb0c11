"""Attempts at a label: run an engine, and again with the same input while the ending deserves it.

What an ending means is the engine's business; its processes are ``process.py``'s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aldriver.label.base import Label, Status
from aldriver.label.process import RunResult


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an attempt ended.

    Attributes
    ----------
    retry
        Whether the same input deserves another attempt.
    values
        Fields of the label when it is ok (``energy``, ``forces``, ...).
    provenance
        What the output says of the calculation, whatever its status.
    """

    status: Status
    reason: str = ""
    retry: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def label_by_attempts(
    attempt: Callable[[], tuple[RunResult, Ending]],
    workdir: Path,
    *,
    retries: int,
    outputs: Sequence[str],
    cancel: threading.Event,
) -> Label:
    """The label of the last attempt; the provenance lists all.

    Parameters
    ----------
    attempt
        Runs the engine once in `workdir`.
    retries
        Attempts after the first.
    outputs
        Files of an attempt, which are kept under names of their own when there is another.
    """
    start, cpu = time.monotonic(), time.process_time()
    tried: list[dict[str, Any]] = []
    for number in range(1, retries + 2):
        run, ending = attempt()
        tried.append({"ending": ending.status, "reason": ending.reason, "seconds": run.seconds, "cpu_s": run.cpu_s})
        if not ending.retry or number > retries:
            break
        for name in outputs:
            if (workdir / name).exists():
                (workdir / name).replace(workdir / f"{name}.attempt-{number}")
        cancel.wait(min(0.1 * 2**number, 5.0))  # what made it crash may need a moment to pass
    reason = ending.reason
    if ending.retry and len(tried) > 1:
        reason += f" ({len(tried)} attempts with the same input)"
    engine_cpu = sum(t["cpu_s"] for t in tried)
    costs = {
        "returncode": run.returncode,
        "retries": len(tried) - 1,
        "attempts": tried,
        "wall_s": sum(t["seconds"] for t in tried),
        "engine_cpu_s": engine_cpu,
    }
    return Label(
        status=ending.status,
        reason=reason,
        **(ending.values if ending.status == "ok" else {}),
        provenance=ending.provenance | costs,
        seconds=time.monotonic() - start,
        cpu_s=engine_cpu + time.process_time() - cpu,
    )


def run_problem(run: RunResult, *, code: str, timeout_s: float, install: str) -> Ending | None:
    """The ending of a run that was cancelled, never started, or stopped at its time limit; None for all others."""
    if run.outcome == "cancelled":
        return Ending(status="cancelled", reason="cancelled")
    if run.outcome == "missing":
        return Ending(status="failed", reason=f"{run.message}: {install}")
    if run.outcome == "timeout":
        return Ending(status="timeout", reason=f"{code} was {run.message} (label.timeout_s {timeout_s:g})")
    return None


def last_words(path: Path) -> str:
    """The last line a program said, as the end of a sentence; empty when it said nothing."""
    try:
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip(" -\t")]
    except OSError:
        return ""
    return f": {lines[-1][:200]}" if lines else ""
