"""What a queue job runs: the one task that was reserved for it, ``python -m aldriver.workflow.rocket ... singleshot``.

FireWorks' queue launcher appends ``--fw_id N``. How jobs come to be is ``cluster.py``'s business; other workers are
``worker.py``'s.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
from pathlib import Path

from aldriver.workflow.campaign import open_campaign
from aldriver.workflow.control import work_loop
from aldriver.workflow.launchpad import session


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 also when the task is not there any more (done elsewhere, or the campaign was rebuilt)."""
    parser = argparse.ArgumentParser(prog="python -m aldriver.workflow.rocket", description=(__doc__ or "")[:100])
    parser.add_argument("root", type=Path, help="campaign directory")
    parser.add_argument("mode", choices=["singleshot"], help="the word that FireWorks' queue launcher looks for")
    parser.add_argument("--launchpad", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--fw_id", type=int, required=True, help="the reserved task")
    args = parser.parse_args(argv)
    faulthandler.enable()
    with session(args.launchpad) as launchpad:
        work_loop(launchpad, open_campaign(args.root), category=args.category, task=args.fw_id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
