"""A benchmark by several processes of this machine: one gives the records, the others make relaxations for its store.

What is measured and how is the benchmark's business; tasks of a campaign are ``tasks.py``'s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.core.section import Section
from aldriver.workflow.parent import die_with
from aldriver.workflow.stages import cores_here

if TYPE_CHECKING:
    from aldriver.benchmark.suite import OnRecord, OnRelaxation
    from aldriver.core.records import PropertyRecord
    from aldriver.potentials import Potential

END_S = 10.0
"""How long a helper has to end."""


class Subject(Section):
    """What is measured: a potential, or with `label` what that block's engine computes (labels go to `labels`)."""

    potential: str = ""
    device: str = "cpu"
    label: LabelBlock | None = None
    labels: Path = Path("labels")

    def load(self, settings: Benchmark, threads: int) -> Potential:
        """As a potential."""
        if self.label is not None:
            from aldriver.workflow.labelled import labelled_potential

            elements = list(dict.fromkeys(case.element for case in settings.cases))
            return labelled_potential(self.label, elements, self.labels, threads=threads)
        from aldriver.potentials import load

        return load(self.potential, device=self.device)


class _Job(Section):
    """What a helper is told."""

    subject: Subject
    settings: Benchmark
    cache: Path
    worker: int
    workers: int
    parent: int


def measure(
    subject: Subject,
    settings: Benchmark,
    *,
    cache: Path | None,
    workers: int = 1,
    on_record: OnRecord | None = None,
    on_relaxation: OnRelaxation | None = None,
) -> tuple[Potential, list[PropertyRecord]]:
    """Benchmark what `subject` is, with `workers` processes, and give it with its records.

    A helper that dies leaves its work to the others; this process alone decides what the result is.

    Parameters
    ----------
    cache
        As in :func:`aldriver.benchmark.suite.run_suite`; several workers without one share a temporary one.
    """
    from aldriver.benchmark.suite import run_suite

    potential = subject.load(settings, _threads(workers))
    folder = nullcontext(cache) if cache is not None or workers == 1 else tempfile.TemporaryDirectory()
    with folder as kept:
        where = None if kept is None else Path(kept)
        with _helpers(subject, settings, where, workers):
            records = run_suite(
                potential,
                settings,
                cache_dir=where,
                on_record=on_record,
                on_relaxation=on_relaxation,
                workers=workers,
            )
    return potential, records


@contextmanager
def _helpers(subject: Subject, settings: Benchmark, cache: Path | None, workers: int) -> Iterator[None]:
    """The other processes, for the length of a block; what they say goes to ``helper-N.log`` of the cache."""
    if workers == 1 or cache is None:
        yield
        return
    cache.mkdir(parents=True, exist_ok=True)
    _use_threads(workers)
    helpers = []
    try:
        for worker in range(1, workers):
            job = _Job(
                subject=subject.model_copy(update={"labels": subject.labels.resolve()}),
                settings=settings.model_copy(update={"suite": None}),
                cache=cache.resolve(),
                worker=worker,
                workers=workers,
                parent=os.getpid(),
            )
            with (cache / f"helper-{worker}.log").open("w") as log:
                helper = subprocess.Popen(
                    [sys.executable, "-m", "aldriver.workflow.measuring"],
                    stdin=subprocess.PIPE,
                    text=True,
                    stdout=log,
                    stderr=log,
                    env=dict(os.environ) | {"OMP_NUM_THREADS": str(_threads(workers))},
                )
            helpers.append(helper)
            assert helper.stdin is not None
            with suppress(BrokenPipeError), helper.stdin:  # one that is dead already has said why in its log
                helper.stdin.write(job.model_dump_json())
        yield
    finally:
        for helper in helpers:
            helper.terminate()
        for helper in helpers:
            try:
                helper.wait(END_S)
            except subprocess.TimeoutExpired:
                helper.kill()
                helper.wait()


def _threads(workers: int) -> int:
    return max(1, cores_here() // workers)


def _use_threads(workers: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(_threads(workers))


def main() -> int:
    """Entry point of a helper."""
    job = _Job.model_validate_json(sys.stdin.read())
    die_with(job.parent, status=1)
    from aldriver.benchmark.suite import run_suite

    potential = job.subject.load(job.settings, _threads(job.workers))
    _use_threads(job.workers)
    run_suite(potential, job.settings, cache_dir=job.cache, worker=job.worker, workers=job.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
