"""Independent relaxations of which some may fail: one that does is a reason, and the others go on.

How a relaxation is made and kept is ``bench.py``'s business.
"""

from __future__ import annotations

from collections.abc import Sequence

from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.relax import Relaxation
from aldriver.core.errors import AldriverError, StoreError


def attempt_all(bench: Bench, jobs: Sequence[Job]) -> list[Relaxation | str]:
    """Relaxations in the order of `jobs`, or why there is none.

    Raises
    ------
    StoreError
        When the store cannot be written.
    """
    try:
        return list(bench.relax_all(jobs))
    except StoreError:
        raise
    except AldriverError:  # what is finished is there, so that each can be asked for alone
        return [_attempt(bench, job) for job in jobs]


def _attempt(bench: Bench, job: Job) -> Relaxation | str:
    try:
        return bench.relax_all([job])[0]
    except StoreError:
        raise
    except AldriverError as error:
        return str(error)
