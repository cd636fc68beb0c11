"""The quasi-harmonic approximation: free energy, thermal expansion and heat capacity from phonons at several volumes.

F(V, T) = E(V) + F_vib(V, T) is fitted to a Birch–Murnaghan curve at each temperature, and its minimum is the Gibbs free
energy at zero pressure (S. Baroni, P. Giannozzi, E. Isaev, Rev. Mineral. Geochem. 71, 39 (2010)). Radova et al.
(doi:10.1038/s41524-025-01727-x, "vibrational") compare the free energies. A hexagonal crystal keeps its c/a. The error
is the jackknife one, a volume left out at a time; what the supercell changes is in ``docs/benchmark_thermal.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.units import J, mol
from numpy.typing import NDArray

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.eos import birch_murnaghan
from aldriver.benchmark.harmonic import free_energy, harmonic
from aldriver.benchmark.measure import Cost, Value
from aldriver.benchmark.phonon import IMAGINARY
from aldriver.core.errors import AldriverError
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_thermal import Qha

VERSION = 2
FEWEST = 6  # volumes for a curve of five after one of them was left out
STEP_K = 10.0  # of the derivatives with respect to temperature


@dataclass(frozen=True, kw_only=True)
class QuasiHarmonic:
    """A crystal at several volumes.

    Attributes
    ----------
    volumes, energies
        Å³/atom and eV/atom, of the crystal at rest.
    frequencies, weights
        Of each volume, of a mesh: (q, modes) in THz, and (q,).
    n_atoms
        Of the primitive cell, which the modes belong to.
    left_out
        Empty, or which volumes are left out, and why.
    """

    volumes: NDArray[np.float64]
    energies: NDArray[np.float64]
    frequencies: list[NDArray[np.float64]]
    weights: list[NDArray[np.float64]]
    n_atoms: int
    left_out: str = ""

    def only(self, kept: Sequence[int], left_out: str = "") -> QuasiHarmonic:
        """The same with some of the volumes."""
        return replace(
            self,
            volumes=self.volumes[kept],
            energies=self.energies[kept],
            frequencies=[self.frequencies[k] for k in kept],
            weights=[self.weights[k] for k in kept],
            left_out=left_out or self.left_out,
        )

    def without(self, k: int) -> QuasiHarmonic:
        """The same without one of the volumes."""
        return self.only([n for n in range(len(self.volumes)) if n != k])

    def at(self, temperature: float) -> tuple[float, float]:
        """Volume (Å³/atom) and Gibbs free energy (eV/atom) at zero pressure.

        Raises
        ------
        AldriverError
            When the free energy has no minimum within the volumes.
        """
        vibrations = [free_energy(f, w, temperature) for f, w in zip(self.frequencies, self.weights, strict=True)]
        try:
            return birch_murnaghan(self.volumes, self.energies + np.array(vibrations) / self.n_atoms)[:2]
        except AldriverError as error:
            raise AldriverError(
                f"at {temperature:g} K the free energy has no minimum within the volumes computed, "
                f"{self.volumes.min():.2f} to {self.volumes.max():.2f} Å³/atom"
                + (f" ({self.left_out})" if self.left_out else "")
            ) from error

    def expansion(self, temperature: float) -> float:
        """Linear thermal expansion, 1/K."""
        (low, _), (high, _) = (self.at(temperature + s * STEP_K) for s in (-1, 1))
        return float(np.log(high / low) / (2 * STEP_K) / 3)

    def heat_capacity(self, temperature: float) -> float:
        """At constant (zero) pressure, −T d²G/dT², eV/K per atom."""
        below, here, above = (self.at(temperature + s * STEP_K)[1] for s in (-1, 0, 1))
        return -temperature * (below - 2 * here + above) / STEP_K**2


def units(case: Case, options: Qha | None = None) -> dict[str, str]:
    """Names and units of the values of a case."""
    energies = (options or Qha()).free_energies_K
    return {
        "qha_lattice_constant": "Å",
        "qha_thermal_expansion": "1e-6/K",
        "qha_heat_capacity": "J/(mol K)",
    } | {f"qha_free_energy({t:g})": "eV/atom" for t in energies}


def compute(bench: Bench, case: Case, a: float, options: Qha) -> list[Value]:
    """Lattice constant, linear thermal expansion and C_p at `temperature_K`, and free energies.

    ``qha_free_energy(300)`` is the Gibbs free energy at 300 K and zero pressure with respect to the crystal at rest.
    """
    with bench.measure() as cost:
        crystal, trouble = _measured(bench, case, a, options)
    if trouble:
        return [Value.missing(name, unit, trouble, cost) for name, unit in units(case, options).items()]
    rest_volume, rest_energy, *_ = birch_murnaghan(crystal.volumes, crystal.energies)
    t = options.temperature_K
    wanted: dict[str, Callable[[QuasiHarmonic], float]] = {
        "qha_lattice_constant": lambda c: a * (c.at(t)[0] / rest_volume) ** (1 / 3),
        "qha_thermal_expansion": lambda c: 1e6 * c.expansion(t),
        "qha_heat_capacity": lambda c: c.heat_capacity(t) * mol / J,
    }
    for temperature in options.free_energies_K:
        wanted[f"qha_free_energy({temperature:g})"] = lambda c, at=temperature: c.at(at)[1] - rest_energy  # type: ignore[misc]
    return [_value(name, unit, crystal, wanted[name], cost) for name, unit in units(case, options).items()]


def _measured(bench: Bench, case: Case, a: float, options: Qha) -> tuple[QuasiHarmonic, str]:
    """The crystal at its volumes, from rest to where modes become imaginary, and why there is no free energy."""
    ratios = np.linspace(options.smallest, options.largest, options.volumes)
    lattice_constants = [float(a * ratio ** (1 / 3)) for ratio in ratios]
    crystals = harmonic(bench, case, [(x, options) for x in lattice_constants])
    cells = [conventional_cell(case, x) for x in lattice_constants]
    energies = [p.energy / len(c) for p, c in zip(bench.potential.evaluate(cells, stress=False), cells, strict=True)]
    meshes = [crystal.mesh(options.mesh) for crystal in crystals]
    stable = np.array([f.min() >= IMAGINARY for f, _ in meshes])
    found = QuasiHarmonic(
        volumes=np.array([c.get_volume() / len(c) for c in cells]),
        energies=np.array(energies),
        frequencies=[np.maximum(f, 1e-3) for f, _ in meshes],
        weights=[w for _, w in meshes],
        n_atoms=len(crystals[0].phonopy.primitive),
    )
    if stable.all():
        return found, ""
    left_out = f"imaginary modes at {', '.join(f'{r:.2f}' for r in ratios[~stable])} of the volume at rest"
    kept = around(int(np.abs(ratios - 1).argmin()), stable)
    return found.only(kept, left_out), "" if len(kept) >= FEWEST else f"{left_out}: no free energy"


def around(k: int, stable: NDArray[np.bool_]) -> list[int]:
    """The stretch of stable volumes that holds volume `k`; none where that one is unstable itself."""
    unstable = np.flatnonzero(~stable)
    first = max((n + 1 for n in unstable if n <= k), default=0)
    last = min((n for n in unstable if n >= k), default=len(stable))
    return list(range(first, last))


def _value(name: str, unit: str, crystal: QuasiHarmonic, what: Callable[[QuasiHarmonic], float], cost: Cost) -> Value:
    try:
        value = what(crystal)
        n = len(crystal.volumes)
        parts = np.array([what(crystal.without(k)) for k in range(n)])
    except AldriverError as reason:
        return Value.missing(name, unit, str(reason), cost)
    error = float(np.sqrt((n - 1) * np.mean((parts - parts.mean()) ** 2)))
    return Value(property=name, value=value, unit=unit, error=error, cost=cost)
