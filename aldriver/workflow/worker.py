"""A worker process of ``run.py``: takes tasks of one campaign until it ends.

What a task does is ``tasks.py``'s business, what happens when a worker dies ``run.py``'s.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from aldriver.workflow.campaign import open_campaign
from aldriver.workflow.control import work_loop
from aldriver.workflow.launchpad import session
from aldriver.workflow.parent import die_with

TROUBLE = 75
"""Exit status (EX_TEMPFAIL) when the launchpad failed it: what it did is published, the launchpad may not know."""


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status is 0 when there is nothing left to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--launchpad", type=Path)
    parser.add_argument("--category", help="only tasks of this FireWorks category")
    args = parser.parse_args(argv)
    faulthandler.enable()
    sys.stdout = sys.stderr = _Log(sys.stderr)
    die_with(args.parent, status=TROUBLE)
    try:
        with session(args.launchpad) as launchpad:
            work_loop(launchpad, open_campaign(args.root), category=args.category, wait=True)
    except Exception:
        traceback.print_exc()
        return TROUBLE
    return 0


class _Log(io.TextIOBase):
    """The log, on a disk that may be full: what cannot be written is dropped instead of ending the worker."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
            self.stream.flush()
        return len(text)

    def fileno(self) -> int:
        return self.stream.fileno()


if __name__ == "__main__":
    sys.exit(main())
