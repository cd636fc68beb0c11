"""Workers that share a suite: what one is making the others leave alone, and a kill loses what was in flight only."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from aldriver.benchmark.bench import Bench, InFlight, Job
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.migration import compute
from aldriver.benchmark.store import Store
from aldriver.benchmark.suite import relaxations, run_suite
from aldriver.core.errors import AldriverError
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_binding import GrainBoundary
from aldriver.core.recipe_hopping import Migration
from aldriver.core.recipe_thermal import Melting

KILLED_IN_A_BAND = """
import sys
import aldriver
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.migration import compute
from aldriver.benchmark.store import Store
from aldriver.core.recipe_hopping import Migration
potential = aldriver.load("eam:Cu_mishin1.eam.alloy")
bench = Bench(potential, store=Store(sys.argv[1]))
evaluate, bands = potential.evaluate, []
def watched(frames, **how):
    bands.extend([len(frames)] * (len(frames) > 1))
    if len(bands) > 5:
        print("in the band", flush=True)
        sys.stdin.read()
    return evaluate(frames, **how)
potential.evaluate = watched
compute(bench, case_by_name("fcc-Cu", supercell=(2, 2, 2)), 3.615, Migration())
"""


@pytest.mark.parametrize("name", ["migration", "melting"])
def test_what_another_worker_is_making_comes_last(cu, fcc_cu, tmp_path, monkeypatch, name):
    """A band and an MD run: the worker goes on with surfaces, and waits when nothing else is left."""
    settings = Benchmark(
        properties=[name, "surface"],
        cases=[fcc_cu.model_copy(update={"supercell": (2, 2, 2)})],
        melting=Melting(start_K=300, end_K=310, rate_K_per_ps=100),
        migration=Migration(fmax_eV_A=0.1),
    )
    keys, claim = [], Store.claim

    def noted(self, key, *, wait):
        keys.append(key)
        return claim(self, key, wait=wait)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "claim", noted)
        run_suite(cu, settings.model_copy(update={"properties": [name]}), cache_dir=tmp_path / "alone")
    order = []
    with ExitStack() as other:
        other.enter_context(Store(tmp_path / "shared").claim(keys[-1], wait=False))
        too_late = threading.Timer(100, other.close)
        too_late.start()

        def seen(record):
            order.append(record.property)
            if record.property.startswith("surface"):
                other.close()  # only now is it done

        records = run_suite(cu, settings, cache_dir=tmp_path / "shared", on_record=seen)
        too_late.cancel()
    assert order[0].startswith("surface") and not order[-1].startswith("surface")
    assert not records[0].property.startswith("surface")  # in the order of the suite


def test_items_in_flight_are_tried_again_and_then_waited_for(cu, tmp_path):
    bench = Bench(cu, store=Store(tmp_path), worker=1, workers=3)
    order, busy = [], {"b": 2, "c": 1}

    def make(item):
        order.append(item)
        if busy.get(item, 0):
            busy[item] -= 1
            raise InFlight
        return item.upper()

    assert bench.each(["a", "b", "c"], make) == ["A", "B", "C"]
    assert order == ["b", "c", "a", "b", "c", "b"]


def test_a_relaxation_that_fails_does_not_end_the_others(cu, changed, fcc_cu, tmp_path):
    """Nor are the others made one after the other because of it: each worker goes through the whole list once."""

    def change(atoms, prediction):
        if len(atoms) == 30:
            raise AldriverError("too few atoms")
        return prediction

    perfect = conventional_cell(fcc_cu, 3.615).repeat(2)
    jobs = [Job(atoms=perfect[k:], slot=f"without {k}", max_steps=0) for k in range(4)]
    broken = changed(cu, change)
    bench = Bench(broken, store=Store(tmp_path))
    found = bench.attempt_all(jobs)
    assert [isinstance(each, str) for each in found] == [False, False, True, False]
    assert "without 2: too few atoms" in found[2]
    assert broken.calls == 4
    with pytest.raises(AldriverError, match="without 2"):
        bench.relax_all(jobs)


def test_kill_9_loses_the_band_in_flight_and_nothing_else(cu, fcc_cu, tmp_path):
    case = fcc_cu.model_copy(update={"supercell": (2, 2, 2)})
    command = [sys.executable, "-c", KILLED_IN_A_BAND, str(tmp_path)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout.readline().strip() == "in the band"
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    bench = Bench(cu, store=Store(tmp_path))
    with bench.potential.measure() as made:
        (value,) = compute(bench, case, 3.615, Migration())
    (alone,) = compute(Bench(cu), case, 3.615, Migration())
    assert value.value == pytest.approx(alone.value, abs=1e-9)
    assert value.cost.force_calls == alone.cost.force_calls
    before = Store(tmp_path)._read("select facts from relaxation where slot not like '%images'")  # all but the band
    assert len(before) == 2
    assert made.force_calls == alone.cost.force_calls - sum(json.loads(f)["force_calls"] for (f,) in before)
    assert not list((tmp_path / "claims").iterdir())


def test_all_relaxations_of_a_boundary_are_foreseen(cu, fcc_cu):
    settings = Benchmark(
        properties=["grain_boundary"], cases=[fcc_cu], grain_boundary=GrainBoundary(boundaries=["S3 tilt (111)[1-10]"])
    )
    seen = []
    run_suite(cu, settings, cache_dir=None, on_relaxation=lambda *what: seen.append(what[:2]))
    assert seen[-1][0] <= relaxations(settings) == seen[0][1]
    assert seen[-1] == (seen[0][1], seen[0][1])
