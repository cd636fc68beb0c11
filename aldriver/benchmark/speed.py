"""How many steps of molecular dynamics a second a potential takes in the supercell of a case.

Protocol: leapfrog steps of 1 fs from random velocities of 300 K, with what walkers evaluate their steps with
(``Potential.md_stepper``, single precision where it is good enough). The first step, which builds it, does not count.
The value is the median of the blocks of steps, the error half the distance of their quartiles: other work on the
machine shows there. It belongs to this machine and its number of threads. LAMMPS runs of an exported potential are
``export/``'s.
"""

from __future__ import annotations

import os
import platform
import time

import numpy as np
from ase import units as ase_units

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import supercell
from aldriver.benchmark.measure import Value
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_extended import Speed

VERSION = 2
BLOCKS = 8
TEMPERATURE_K = 300.0
STEP = 1.0 * ase_units.fs


def units(case: Case, options: Speed) -> dict[str, str]:
    """Name and unit of the value."""
    return {"md_speed": "steps/s"}


def content(case: Case, options: Speed) -> str:
    """The machine: what another one measured is another value."""
    return f"{platform.node()} {os.cpu_count()} {os.environ.get('OMP_NUM_THREADS', '')}"


def compute(bench: Bench, case: Case, a: float, options: Speed) -> list[Value]:
    """``md_speed``, steps a second."""
    atoms = supercell(case, a)
    positions, cell = atoms.positions.copy(), np.asarray(atoms.cell)
    masses = atoms.get_masses()[:, None]
    velocities = np.random.default_rng(0).normal(0.0, np.sqrt(ase_units.kB * TEMPERATURE_K / masses), positions.shape)
    with bench.measure() as cost:
        stepper = bench.potential.md_stepper(atoms, "float32")
        forces = stepper(positions, cell, stress=False).forces
        rates = []
        for _ in range(BLOCKS):
            start, steps = time.perf_counter(), 0
            while steps == 0 or time.perf_counter() - start < options.duration_s / BLOCKS:
                velocities += forces / masses * STEP
                positions = positions + velocities * STEP
                forces = stepper(positions, cell, stress=False).forces
                steps += 1
            rates.append(steps / (time.perf_counter() - start))
    low, middle, high = np.percentile(rates, [25, 50, 75])
    return [Value(property="md_speed", value=float(middle), unit="steps/s", error=float(high - low) / 2, cost=cost)]
