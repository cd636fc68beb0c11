"""A benchmark by several processes: the same records, nothing made twice, nobody left behind."""

import os
import subprocess
import sys

import pytest

from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_label import Label as LabelBlock
from aldriver.workflow import measuring
from aldriver.workflow.measuring import Subject, measure

IRON = Benchmark(
    properties=["lattice", "eos", "elastic", "vacancy"], cases=[case_by_name("bcc-Fe", supercell=(3, 3, 3))]
)
EAM = Subject(potential="eam:Fe_mm.eam.fs")


def values(records):
    return [(r.case, r.property, r.value, r.force_calls) for r in records]


def test_helpers_change_nothing_but_the_time(tmp_path, monkeypatch):
    started = []
    popen = measuring.subprocess.Popen

    def start(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(measuring.subprocess, "Popen", start)
    _, alone = measure(EAM, IRON, cache=None)
    potential, shared = measure(EAM, IRON, cache=tmp_path / "cache", workers=3)
    assert potential.name == "eam:Fe_mm.eam.fs"
    assert [v[:3] for v in values(shared)] == [pytest.approx(v[:3]) for v in values(alone)]
    assert len(started) == 2
    assert all(helper.poll() is not None for helper in started)
    for k in (1, 2):
        assert "Traceback" not in (tmp_path / "cache" / f"helper-{k}.log").read_text()


def test_a_helper_does_the_work_by_itself(tmp_path):
    """What a helper left in the store is all the rest needs."""
    job = measuring._Job(subject=EAM, settings=IRON, cache=tmp_path, worker=1, workers=2, parent=os.getpid())
    done = subprocess.run(
        [sys.executable, "-m", "aldriver.workflow.measuring"],
        input=job.model_dump_json(),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    potential, records = measure(EAM, IRON, cache=tmp_path)
    assert all(r.converged for r in records)

    class Refusing(type(potential)):
        def __init__(self):
            self.__dict__.update(potential.__dict__)

        def evaluate(self, *args, **kwargs):
            raise AssertionError("it was to be in the store")

        stepper = evaluate

    again = run_suite(Refusing(), IRON, cache_dir=tmp_path)
    assert values(again) == values(records)


def test_helpers_that_die_cost_nothing_but_their_help(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring.sys, "executable", "/bin/false")
    _, records = measure(EAM, IRON, cache=tmp_path, workers=2)
    assert all(r.converged for r in records)


def test_without_a_cache_workers_share_a_temporary_one():
    _, records = measure(EAM, IRON.model_copy(update={"properties": ["lattice"]}), cache=None, workers=2)
    assert records[0].value == pytest.approx(2.8553, abs=2e-4)


def test_a_labeler_is_a_subject_too(tmp_path):
    block = LabelBlock.model_validate({"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 4})
    subject = Subject(label=block, labels=tmp_path / "labels")
    potential, records = measure(subject, IRON, cache=tmp_path / "cache", workers=2)
    assert potential.family == "label"
    assert all(r.converged for r in records)
