"""Relaxations are made once, kept, shared by workers, and warm-started from the previous potential."""

from __future__ import annotations

import dataclasses
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from ase.constraints import FixedLine

from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.store import Store
from aldriver.core.errors import AldriverError
from aldriver.core.records import PropertyRecord, dumps

WORKER = """
import sys
import aldriver
from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.cases import case_by_name, conventional_cell
from aldriver.benchmark.store import Store
perfect = conventional_cell(case_by_name("bcc-Fe"), 2.8553).repeat(3)
jobs = []
for k in range(12):
    cell = perfect.copy()
    cell.rattle(0.1, seed=k)
    del cell[k]
    jobs.append(Job(atoms=cell, slot=f"vacancy {k}", fmax=1e-3))
bench = Bench(aldriver.load("eam:Fe_mm.eam.fs"), store=Store(sys.argv[1]), worker=int(sys.argv[2]), workers=2)
found = bench.relax_all(jobs)
with bench.potential.measure() as again:
    assert [r.energy for r in bench.relax_all(jobs)] == [r.energy for r in found]
print(again.force_calls, bench.potential.total.force_calls, sum(r.cost.force_calls for r in found), *(r.energy for r in found))
"""


@pytest.fixture
def vacancy(bcc_fe):
    cell = conventional_cell(bcc_fe, 2.8553).repeat(3)
    del cell[0]
    return cell


def test_a_relaxation_is_made_once(fe, vacancy, tmp_path):
    first = Bench(fe, store=Store(tmp_path))
    made = first.relax(vacancy, "vacancy")
    second = Bench(fe, store=Store(tmp_path))
    with second.potential.measure() as spent, second.measure() as told:
        found = second.relax(vacancy, "vacancy")
    assert spent.force_calls == 0
    assert told.force_calls == made.cost.force_calls > 0  # what it had cost when it was made
    assert (found.energy, found.steps, found.converged) == (made.energy, made.steps, made.converged)
    assert np.abs(found.atoms.positions - made.atoms.positions).max() < 1e-12


@pytest.mark.parametrize("change", ["fmax", "cell", "constraint", "steps"])
def test_what_decides_a_relaxation_is_its_key(fe, vacancy, change):
    bench, job = Bench(fe), Job(atoms=vacancy, slot="vacancy")
    other = dataclasses.replace(job, atoms=vacancy.copy())
    if change == "fmax":
        other = dataclasses.replace(job, fmax=1e-3)
    elif change == "steps":
        other = dataclasses.replace(job, max_steps=0)
    elif change == "cell":
        other.atoms.set_cell(other.atoms.cell * 1.001, scale_atoms=True)
    else:
        other.atoms.set_constraint(FixedLine([0], [0, 0, 1]))
    assert bench.key(job) == bench.key(dataclasses.replace(job, atoms=vacancy.copy(), slot="by another name"))
    assert bench.key(job) != bench.key(other)


def test_the_next_potential_starts_where_the_last_one_ended(fe, changed, vacancy, tmp_path):
    cold = Bench(fe, store=Store(tmp_path)).relax(vacancy, "vacancy")
    stiffer = changed(fe, lambda _, p: dataclasses.replace(p, energy=p.energy * 1.05, forces=p.forces * 1.05))
    warm = Bench(stiffer, store=Store(tmp_path)).relax(vacancy, "vacancy")
    assert (cold.warm, warm.warm) == (False, True)
    assert warm.cost.force_calls < cold.cost.force_calls / 2
    assert warm.energy == pytest.approx(1.05 * cold.energy, abs=1e-3)
    elsewhere = Bench(stiffer, store=Store(tmp_path), warm=False)
    assert elsewhere.relax(vacancy, "vacancy").energy == warm.energy  # it is there, and not made again


def test_a_failing_relaxation_names_itself_and_is_tried_again(fe, changed, vacancy, tmp_path):
    broken = changed(fe, lambda _, p: dataclasses.replace(p, forces=p.forces * np.nan))
    with pytest.raises(AldriverError, match="the vacancy: .*not finite"):
        Bench(broken, store=Store(tmp_path)).relax(vacancy, "the vacancy")
    broken.change = lambda _, p: p
    assert Bench(broken, store=Store(tmp_path)).relax(vacancy, "the vacancy").converged


def test_two_workers_share_the_work_and_kill_9_loses_what_was_in_flight(tmp_path):
    def start(worker):
        command = [sys.executable, "-c", WORKER, str(tmp_path), str(worker)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    killed = start(0)
    try:
        end = time.monotonic() + 180
        while not (tmp_path / "claims").exists() or not _kept(tmp_path):
            assert killed.poll() is None and time.monotonic() < end
            time.sleep(0.02)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    before = _kept(tmp_path)
    workers = [start(0), start(1)]
    said = [w.communicate(timeout=300)[0].split() for w in workers]
    assert [w.returncode for w in workers] == [0, 0]
    assert said[0][3:] == said[1][3:] and len(said[0][3:]) == 12
    assert [s[0] for s in said] == ["0", "0"]
    made, total = sum(int(s[1]) for s in said), int(said[0][2])
    assert len(_kept(tmp_path)) == 12
    assert made == total - sum(before.values())  # nothing that was there, and nothing twice


def _kept(folder):
    """Force calls of each finished relaxation."""
    import json

    if not (folder / "benchmark.sqlite").exists():
        return {}
    return {k: json.loads(f)["force_calls"] for k, f in Store(folder)._read("select key, facts from relaxation")}


def test_a_hundred_thousand_records_are_read_within_a_second(tmp_path):
    store = Store(tmp_path)
    record = PropertyRecord(property="binding", case="bcc-Fe", value=0.1, unit="eV", protocol="solute_binding/1")
    text = dumps([dataclasses.replace(record, value=float(i)) for i in range(1000)], indent=None)
    with closing(sqlite3.connect(store.path)) as db, db:
        db.executemany("insert into property values (?, ?, ?)", [(f"key-{k}", "potential", text) for k in range(100)])
    taken = []
    for _ in range(3):
        start = time.process_time()
        found = store.all_records("potential")
        taken.append(time.process_time() - start)
        assert (len(found), found[-1].value) == (100_000, 999.0)
    assert min(taken) < 1.0
