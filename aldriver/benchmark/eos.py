"""Energy–volume curve of a cubic crystal and its Birch–Murnaghan fit. The lattice constant it starts from is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.units import GPa
from numpy.typing import ArrayLike, NDArray

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.measure import Value
from aldriver.core.errors import AldriverError
from aldriver.core.recipe_benchmark import Case

VERSION = 1
PROPERTIES = {"bulk_modulus_eos": "GPa", "eos_volume": "Å^3/atom"}

VOLUMES = np.linspace(0.94, 1.06, 11)
ROUGHEST = 0.05  # fit residual over the span of the energies, above which the curve is no equation of state


@dataclass(frozen=True, kw_only=True)
class EOSFit:
    """Third-order Birch–Murnaghan equation of state.

    Attributes
    ----------
    volume, energy
        Of the minimum, in the units of the input (Å³, eV).
    bulk_modulus, derivative
        eV/Å³, and its pressure derivative.
    residual
        Root mean square of the fit, eV.
    volume_error, bulk_modulus_error
        Jackknife standard errors (one volume left out at a time).
    """

    volume: float
    energy: float
    bulk_modulus: float
    derivative: float
    residual: float
    volume_error: float
    bulk_modulus_error: float


def fit_birch_murnaghan(volumes: ArrayLike, energies: ArrayLike) -> EOSFit:
    """Least-squares fit of E(V).

    The third-order Birch–Murnaghan energy is a cubic polynomial in V^(-2/3) (F. Birch, Phys. Rev. 71, 809 (1947)), so
    the fit is linear and needs no starting guess.

    Raises
    ------
    AldriverError
        When there are fewer than five volumes, or the curve has no minimum inside them.
    """
    v, e = np.asarray(volumes, dtype=float), np.asarray(energies, dtype=float)
    if len(v) < 5:
        raise AldriverError(f"an equation of state needs at least 5 volumes, not {len(v)}")
    volume, energy, modulus, derivative, residual = birch_murnaghan(v, e)
    parts = np.array([birch_murnaghan(np.delete(v, i), np.delete(e, i))[:3] for i in range(len(v))])
    spread = np.sqrt((len(v) - 1) * np.mean((parts - parts.mean(axis=0)) ** 2, axis=0))
    return EOSFit(
        volume=volume,
        energy=energy,
        bulk_modulus=modulus,
        derivative=derivative,
        residual=residual,
        volume_error=float(spread[0]),
        bulk_modulus_error=float(spread[2]),
    )


def birch_murnaghan(v: NDArray[np.float64], e: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    """Volume, energy, bulk modulus, its pressure derivative and the residual of :func:`fit_birch_murnaghan`, alone.

    Raises
    ------
    AldriverError
        When the curve has no minimum inside the volumes.
    """
    middle = float(np.mean(v))
    x = (v / middle) ** (-2 / 3) - 1.0  # centred: the powers stay independent
    polynomial = np.polynomial.Polynomial.fit(x, e, 3).convert()
    first, second, third = (polynomial.deriv(n) for n in (1, 2, 3))
    roots = np.atleast_1d(np.asarray(first.roots(), dtype=complex))
    extrema = [float(r.real) for r in roots if abs(r.imag) < 1e-12 and x.min() <= r.real <= x.max()]
    minima = [r for r in extrema if second(r) > 0]
    if not minima:
        raise AldriverError("the energy has no minimum within the volumes computed")
    at = minima[0]
    # derivatives with respect to V from those with respect to s = V^(-2/3), s = (1 + x) middle^(-2/3)
    scale = middle ** (-2 / 3)
    s, d2, d3 = (1 + at) * scale, float(second(at)) / scale**2, float(third(at)) / scale**3
    d2v = 4 / 9 * s**5 * d2
    d3v = -20 / 9 * s**6.5 * d2 - 8 / 27 * s**7.5 * d3
    volume = s**-1.5
    residual = float(np.sqrt(np.mean((polynomial(x) - e) ** 2)))
    return volume, float(polynomial(at)), volume * d2v, -1 - volume * d3v / d2v, residual


def compute(bench: Bench, case: Case, a: float) -> list[Value]:
    """``bulk_modulus_eos`` (GPa) and ``eos_volume`` (Å³/atom) from 11 volumes within ±6 % of a³, in one batch."""
    cells = [conventional_cell(case, a * ratio ** (1 / 3)) for ratio in VOLUMES]
    with bench.measure() as cost:
        found = bench.potential.evaluate(cells, stress=False)
    energies = np.array([p.energy / len(c) for p, c in zip(found, cells, strict=True)])
    fit = fit_birch_murnaghan([c.get_volume() / len(c) for c in cells], energies)
    rough = fit.residual / np.ptp(energies) > ROUGHEST
    reason = f"the E–V curve is rough: {fit.residual * 1e3:.1f} meV/atom off a Birch–Murnaghan curve" if rough else ""
    return [
        Value(property=name, value=value, unit=PROPERTIES[name], error=error, converged=not rough, reason=reason,
              cost=cost)
        for name, value, error in (
            ("bulk_modulus_eos", fit.bulk_modulus / GPa, fit.bulk_modulus_error / GPa),
            ("eos_volume", fit.volume, fit.volume_error),
        )
    ]  # fmt: skip
