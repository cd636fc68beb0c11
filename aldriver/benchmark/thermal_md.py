"""Thermal expansion and heat capacity by MD at constant pressure, anharmonic and classical; expensive.

N. K. Mohandas et al. (doi:10.1007/s11669-025-01225-z): mean volume and enthalpy of 432 atoms at 200 to 1000 K, 10^5
steps of 1 fs each, and the derivatives of cubic splines through them at 300 K. Classical atoms: C_p is 3k and more at
any temperature. A hexagonal crystal keeps its c/a. The error comes from those of the means (blocks), which the spline
passes on linearly.
"""

from __future__ import annotations

import numpy as np
from ase.units import J, mol
from numpy.typing import NDArray

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell, times
from aldriver.benchmark.md import Run, block_mean, simulate
from aldriver.benchmark.measure import Value
from aldriver.benchmark.order import CrystalOrder
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_thermal import Repeats, ThermalMd

VERSION = 1
PROPERTIES = {"md_thermal_expansion": "1e-6/K", "md_heat_capacity": "J/(mol K)"}
SUPERCELLS: dict[str, Repeats] = {
    "bcc": (6, 6, 6), "fcc": (5, 5, 5), "diamond": (4, 4, 4), "hcp": (8, 8, 4), "omega": (5, 5, 6),
}  # fmt: skip


def compute(bench: Bench, case: Case, a: float, options: ThermalMd) -> list[Value]:
    """``md_thermal_expansion`` (linear, 1e-6/K) and ``md_heat_capacity`` (J/(mol K)) at `temperature_K`."""
    repeats = options.supercell or SUPERCELLS[case.lattice]
    cell = conventional_cell(case, a)
    atoms = cell.repeat(repeats)
    runs = [
        Run(
            atoms=atoms,
            slot=f"{case.name} {times(repeats)} MD {t:g} K",
            temperature_K=t,
            pressure_GPa=0.0,
            steps=options.steps,
            timestep_fs=options.timestep_fs,
            seed=options.seed + k,
        )
        for k, t in enumerate(options.temperatures_K)
    ]
    with bench.measure() as cost:
        found = simulate(bench, runs)
    order = CrystalOrder(cell, repeats)
    gone = [f"{run.temperature_K:g}" for run, done in zip(runs, found, strict=True)
            if order.lost(done.atoms.get_scaled_positions())]  # fmt: skip
    first = int(options.equilibration * len(found[0].volume))
    volumes = np.array([block_mean(done.volume[first:]) for done in found])
    energies = np.array([block_mean(done.energy[first:]) for done in found])  # enthalpies: there is no pressure
    t = options.temperature_K
    volume, growth, growth_error = spline(options.temperatures_K, volumes, t)
    _, heat, heat_error = spline(options.temperatures_K, energies, t)
    per_atom = mol / J / len(atoms)
    reason = f"the crystal was lost at {', '.join(gone)} K" if gone else ""
    return [
        Value(property=name, value=scale * value, unit=PROPERTIES[name], error=scale * error, converged=not gone,
              reason=reason, cost=cost)
        for name, scale, (value, error) in (
            ("md_thermal_expansion", 1e6 / (3 * volume), (growth, growth_error)),
            ("md_heat_capacity", per_atom, (heat, heat_error)),
        )
    ]  # fmt: skip


def spline(x: list[float], means: NDArray[np.float64], at: float) -> tuple[float, float, float]:
    """Cubic spline through means (n, 2) with their errors: its value, its derivative, and the error of that."""
    from scipy.interpolate import CubicSpline

    units = [CubicSpline(x, unit) for unit in np.eye(len(x))]  # it is linear in the means
    here, weights = (np.array([float(unit(at, order)) for unit in units]) for order in (0, 1))
    return float(here @ means[:, 0]), float(weights @ means[:, 0]), float(np.linalg.norm(weights * means[:, 1]))
