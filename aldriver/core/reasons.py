"""Counts reasons: those that differ only in their numbers and file names are of one kind."""

from __future__ import annotations

import re
from collections.abc import Iterable

_VARYING = re.compile(r"(?<![A-Za-z])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|(?:/[\w.+@-]+){2,}\S*")


def kind(reason: str) -> str:
    """A reason without its numbers and file names."""
    return _VARYING.sub("…", reason)


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Count by kind, the most frequent first; a kind of several wordings shows ``…`` where they differ."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(kind(reason), []).append(reason)
    counts = {(r[0] if len(set(r)) == 1 else name): len(r) for name, r in kinds.items()}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
