"""Range of stability: the temperature at which a crystal without surfaces falls into disorder when it is heated.

A crystal without surfaces melts above its melting point, by ln(2)/3 of it at high pressure and constant volume
(A. B. Belonoshko et al., Phys. Rev. B 73, 012201 (2006)), and by more when it is heated fast: the value says how far a
potential may be heated, and orders potentials; it is no melting point. How order is measured is ``order.py``'s, the MD
is ``md.py``'s.
"""

from __future__ import annotations

import numpy as np

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell, times
from aldriver.benchmark.md import Run, simulate
from aldriver.benchmark.measure import Value
from aldriver.benchmark.order import CrystalOrder
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_thermal import Melting

VERSION = 1
PROPERTIES = {"crystal_stability_limit": "K"}
FALL_PS = 1.0  # that a crystal takes to fall apart


def compute(bench: Bench, case: Case, a: float, options: Melting) -> list[Value]:
    """``crystal_stability_limit`` (K): the bath's temperature when the Bragg peaks are gone.

    Its error is what the bath heats up in a picosecond, which the crystal takes to fall apart, and the fluctuation of
    the temperature. A change into another crystal counts as disorder.
    """
    repeats = options.supercell or case.supercell
    cell = conventional_cell(case, a)
    steps = round((options.end_K - options.start_K) / options.rate_K_per_ps * 1e3 / options.timestep_fs)
    run = Run(
        atoms=cell.repeat(repeats),
        slot=f"{case.name} {times(repeats)} heated",
        temperature_K=options.start_K,
        end_K=options.end_K,
        pressure_GPa=0.0,
        steps=steps,
        timestep_fs=options.timestep_fs,
        seed=options.seed,
    )
    with bench.measure() as cost:
        (found,) = simulate(bench, [run], CrystalOrder(cell, repeats).lost)
    if not found.stopped:
        reason = f"still {case.lattice} at {options.end_K:.0f} K, where heating ends"
        return [Value.missing("crystal_stability_limit", "K", reason, cost)]
    heating = options.rate_K_per_ps * options.timestep_fs * 1e-3 * run.sample_every
    reached = options.start_K + heating * len(found.temperature)
    spread = reached * float(np.sqrt(2 / (3 * len(run.atoms) - 3)))
    error = float(np.hypot(options.rate_K_per_ps * FALL_PS, spread))
    return [Value(property="crystal_stability_limit", value=reached, unit="K", error=error, cost=cost)]
