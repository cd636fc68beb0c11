"""MD of the benchmark: the ensembles it samples, and that a run that was broken off goes on exactly."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.units import GPa, kB

from aldriver.benchmark import md
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.md import Run, simulate
from aldriver.benchmark.store import Store
from aldriver.core.errors import AldriverError
from aldriver.potentials.base import Potential, Prediction


class IdealGas(Potential):
    """No forces; no stress but that of a pressure, so that P(V) of the gas is known."""

    name, family, fingerprint, elements = "gas", "gas", "gas0", frozenset({"Cu"})

    def evaluate(self, frames, *, stress=True, features=False, batch_atoms=None):
        return [Prediction(energy=0.0, forces=np.zeros((len(f), 3)), stress=np.zeros(6)) for f in frames]


def test_energies_are_canonical(cu, fcc_cu):
    """Means and fluctuations of a crystal of 3N - 3 oscillators."""
    atoms = conventional_cell(fcc_cu, 3.615).repeat(2)
    t, freedom = 300.0, 3 * len(atoms) - 3
    run = Run(atoms=atoms, slot="cu", temperature_K=t, steps=2500, timestep_fs=3.0, sample_every=5)
    (found,) = simulate(Bench(cu), [run])
    energy, temperature = found.energy[100:], found.temperature[100:]
    assert temperature.mean() == pytest.approx(t, rel=0.05)
    assert temperature.std() == pytest.approx(t * np.sqrt(2 / freedom), rel=0.25)
    assert energy.std() == pytest.approx(kB * t * np.sqrt(freedom), rel=0.3)  # C_v = (3N - 3) k
    at_rest = cu.evaluate([atoms], stress=False)[0].energy
    assert energy.mean() - at_rest == pytest.approx(freedom * kB * t, rel=0.05)


def test_volume_of_a_gas_under_pressure(monkeypatch):
    """An ideal gas: the velocities tell N - 1 particles, so <V> = (N - 1 + 1) kT/P up to the order of one particle."""
    monkeypatch.setattr(md, "COMPRESSIBILITY", 1 / (1.0 * GPa))  # a gas is soft
    n, t, p = 64, 1000.0, 1.0
    volume = n * kB * t / (p * GPa)
    atoms = Atoms(f"Cu{n}", positions=np.zeros((n, 3)), cell=[volume ** (1 / 3)] * 3, pbc=True)
    run = Run(atoms=atoms, slot="gas", temperature_K=t, steps=30000, timestep_fs=5.0, pressure_GPa=p, sample_every=20)
    (found,) = simulate(Bench(IdealGas()), [run])
    volumes = found.volume[150:]
    assert volumes.mean() == pytest.approx(volume, rel=0.05)
    assert volumes.std() / volumes.mean() == pytest.approx(1 / np.sqrt(n), rel=0.2)


def test_a_hot_crystal_is_at_its_pressure(cu, fcc_cu):
    atoms = conventional_cell(fcc_cu, 3.615).repeat(2)
    run = Run(atoms=atoms, slot="cu", temperature_K=300, steps=1500, timestep_fs=4.0, pressure_GPa=0.0, sample_every=5)
    (found,) = simulate(Bench(cu), [run])
    late = slice(80, None)
    assert found.temperature[late].mean() == pytest.approx(300, rel=0.08)
    assert abs(found.pressure[late].mean() / GPa) < 1.2  # it fluctuates by 1.2 GPa
    assert found.volume[late].mean() ** (1 / 3) / 2 == pytest.approx(3.615 * (1 + 16e-6 * 300), rel=2e-3)
    assert found.cost.force_calls == run.steps + 1


KILLED = """
import os, sys
import aldriver
from aldriver.benchmark import md
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name, conventional_cell
from aldriver.benchmark.store import Store
md.KEEP_EVERY_S = 0.0
atoms = conventional_cell(case_by_name("fcc-Cu"), 3.615).repeat(2)
run = md.Run(atoms=atoms, slot="cu", temperature_K=300, steps=60, timestep_fs=2.0, sample_every=10)
seen = []
def until(positions):
    seen.append(1)
    if sys.argv[2] == "kill" and len(seen) == 4:
        os.kill(os.getpid(), 9)
    return False
bench = Bench(aldriver.load("eam:Cu_mishin1.eam.alloy"), store=Store(sys.argv[1]))
md.simulate(bench, [run], until)
print(bench.potential.total.force_calls)
"""


def test_a_killed_process_loses_the_step_in_flight(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    killed = subprocess.run([*command, "kill"], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run([*command, "go on"], check=True, capture_output=True, text=True)
    assert int(again.stdout) == 60 - 39 + 1


class Broken(Exception):
    pass


def test_a_run_that_was_broken_off_goes_on_exactly(cu, fcc_cu, tmp_path, monkeypatch):
    monkeypatch.setattr(md, "KEEP_EVERY_S", 0.0)
    atoms = conventional_cell(fcc_cu, 3.615).repeat(2)
    run = Run(atoms=atoms, slot="cu", temperature_K=300, steps=60, timestep_fs=2.0, pressure_GPa=0.0, sample_every=7,
              positions=True)  # fmt: skip
    (whole,) = simulate(Bench(cu), [run])

    bench = Bench(cu, store=Store(tmp_path))
    samples = []

    def breaks(positions):
        samples.append(positions)
        if len(samples) == 3:
            raise Broken
        return False

    with pytest.raises(Broken):
        simulate(bench, [run], until=breaks)
    again = Bench(cu, store=Store(tmp_path))
    with again.potential.measure() as spent, again.measure() as told:
        (found,) = simulate(again, [run])
    assert spent.force_calls == 60 - 20 + 1  # kept at step 20, before the sample that broke it
    assert told.force_calls == found.cost.force_calls == 62  # the forces of step 20 came twice
    assert found.energy == pytest.approx(whole.energy, abs=1e-6)
    assert found.positions == pytest.approx(whole.positions, abs=1e-5)
    with again.potential.measure() as spent:
        (kept,) = simulate(Bench(cu, store=Store(tmp_path)), [run])
    assert spent.force_calls == 0
    assert kept.positions == pytest.approx(found.positions)
    assert kept.atoms.get_velocities() == pytest.approx(found.atoms.get_velocities())


def test_a_run_ends_when_it_has_shown_enough(cu, fcc_cu):
    atoms = conventional_cell(fcc_cu, 3.615).repeat(2)
    run = Run(atoms=atoms, slot="cu", temperature_K=300, steps=1000, timestep_fs=2.0, sample_every=10)
    (found,) = simulate(Bench(cu), [run], until=lambda _: True)
    assert found.stopped
    assert len(found.temperature) == 1


def test_a_run_that_blows_up_is_named(fcc_cu):
    class Hot(IdealGas):
        def evaluate(self, frames, **_):
            return [Prediction(energy=0.0, forces=1e3 * f.positions, stress=np.zeros(6)) for f in frames]

    atoms = conventional_cell(fcc_cu, 3.6).repeat(2)
    run = Run(atoms=atoms, slot="fcc-Cu liquid", temperature_K=300, steps=1000, timestep_fs=2.0, sample_every=1)
    with pytest.raises(AldriverError, match="fcc-Cu liquid: the MD run blew up at step"):
        simulate(Bench(Hot()), [run])
