"""Phonons: frequencies at the special points of the Brillouin zone, and the ends and mean of the density of states.

Small displacements in a supercell (A. Togo, I. Tanaka, Scr. Mater. 108, 1 (2015)), as Radova et al.
(doi:10.1038/s41524-025-01727-x, "vibrational") compare them. The error of a frequency is how much it changes when the
displacement is doubled: it holds the anharmonicity and the noise of the forces. The default displacement, 0.03 Å, is
larger than exact forces would ask for, as CHGNet's are not linear below it. What that and the size of the supercell
change is in ``docs/benchmark_thermal.md``. The force constants are ``harmonic.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.harmonic import PRIMITIVE, Harmonic, harmonic
from aldriver.benchmark.measure import Cost, Value
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_thermal import Phonon

VERSION = 1
IMAGINARY = -0.05  # THz: below it a mode is called imaginary, and is not the noise of an acoustic mode near Γ
LOOSEST = 0.05  # change on doubling the displacement, as a part of the highest frequency, above which no value is good

Point = tuple[float, float, float]
_FCC: dict[str, Point] = {"X": (1, 0, 0), "W": (1, 0.5, 0), "K": (0.75, 0.75, 0), "L": (0.5, 0.5, 0.5)}
_HEXAGONAL: dict[str, Point] = {
    "M": (0.5, 0, 0), "K": (1 / 3, 1 / 3, 0), "A": (0, 0, 0.5), "L": (0.5, 0, 0.5), "H": (1 / 3, 1 / 3, 0.5),
}  # fmt: skip
POINTS: dict[str, dict[str, Point]] = {
    "bcc": {"H": (1, 0, 0), "P": (0.5, 0.5, 0.5), "N": (0.5, 0.5, 0)},
    "fcc": _FCC,
    "diamond": {"G": (0, 0, 0)} | _FCC,
    "hcp": {"G": (0, 0, 0)} | _HEXAGONAL,
    "omega": {"G": (0, 0, 0)} | _HEXAGONAL,
}
"""Special points, in units of the reciprocal vectors of the conventional cell; G is Γ, with its optical modes only."""
PATHS = {
    "bcc": ("GHPGN", "PN"),
    "fcc": ("GXWKGL",),
    "diamond": ("GXWKGL",),
    "hcp": ("GMKGALHA",),
    "omega": ("GMKGALHA",),
}
"""Lines through the special points, after W. Setyawan, S. Curtarolo, Comput. Mater. Sci. 49, 299 (2010)."""


@dataclass(frozen=True, kw_only=True)
class Bands:
    """A dispersion: frequencies (n, modes) in THz at `distance` (n,) along the lines, 2π/Å, with `labels` at ticks."""

    distance: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    ticks: list[float]
    labels: list[str]


def units(case: Case, options: object = None) -> dict[str, str]:
    """Names and units of the values of a case."""
    modes = 3 * len(conventional_cell(case)) // {"I": 2, "F": 4}.get(PRIMITIVE.get(case.lattice, "P"), 1)
    names = [
        f"phonon({point},{n})" for point in POINTS[case.lattice] for n in range(4 if point == "G" else 1, modes + 1)
    ]
    return dict.fromkeys([*names, "phonon_max_frequency", "phonon_min_frequency", "phonon_mean_frequency"], "THz")


def compute(bench: Bench, case: Case, a: float, options: Phonon) -> list[Value]:
    """``phonon(N,1)``: lowest mode at N, and so on; highest, lowest and mean frequency of the crystal, THz.

    The lowest frequency is that of the lines and the mesh off Γ; an imaginary mode counts as negative.
    """
    doubled = options.model_copy(update={"displacement_A": 2 * options.displacement_A})
    with bench.measure() as cost:
        crystals = harmonic(bench, case, [(a, options), (a, doubled)])
    found, check = (_numbers(crystal, case, options) for crystal in crystals)
    highest = found["phonon_max_frequency"]
    return [_value(name, found[name], abs(found[name] - check[name]), highest, cost) for name in units(case, options)]


def bands(crystal: Harmonic, case: Case, points: int = 40) -> Bands:
    """Dispersion of a crystal along :data:`PATHS`, with so many points a line."""
    where = {"G": (0.0, 0.0, 0.0)} | POINTS[case.lattice]
    reciprocal = np.linalg.inv(np.asarray(crystal.phonopy.unitcell.cell)).T
    distance: list[NDArray[np.float64]] = []
    rows: list[NDArray[np.float64]] = []
    ticks, labels, at = [0.0], [PATHS[case.lattice][0][0]], 0.0
    for path in PATHS[case.lattice]:
        if rows:
            labels[-1] += f"|{path[0]}"
        for start, end in pairwise(path):
            line = np.linspace(where[start], where[end], points)
            length = float(np.linalg.norm((line[-1] - line[0]) @ reciprocal))
            distance.append(at + np.linspace(0, length, points))
            rows.append(crystal.frequencies(line))
            at += length
            ticks.append(at)
            labels.append(end)
    return Bands(distance=np.concatenate(distance), frequencies=np.concatenate(rows), ticks=ticks, labels=labels)


def density_of_states(crystal: Harmonic, mesh: int, edges: Sequence[float]) -> NDArray[np.float64]:
    """States per THz and primitive cell between the `edges` (THz), from a mesh; they add up to three per atom."""
    frequencies, weights = crystal.mesh(mesh)
    spread = np.repeat(weights, frequencies.shape[1])
    return np.histogram(frequencies.ravel(), bins=edges, weights=spread)[0] / np.diff(edges)


def _numbers(crystal: Harmonic, case: Case, options: Phonon) -> dict[str, float]:
    special = crystal.frequencies(list(POINTS[case.lattice].values()))
    found = {
        f"phonon({point},{n + 1})": float(frequency)
        for point, modes in zip(POINTS[case.lattice], special, strict=True)
        for n, frequency in enumerate(modes)
    }
    mesh, weights = crystal.mesh(options.mesh)
    line = bands(crystal, case).frequencies
    lowest = float(mesh.min())
    return found | {
        "phonon_max_frequency": float(max(mesh.max(), line.max())),
        "phonon_min_frequency": min(lowest, float(line.min())) if line.min() < IMAGINARY else lowest,
        "phonon_mean_frequency": float(weights @ mesh.mean(axis=1)),
    }


def _value(name: str, value: float, error: float, highest: float, cost: Cost) -> Value:
    loose = error > LOOSEST * max(highest, 0.0)
    reason = f"doubling the displacement changes it by {error:.2f} THz: the forces are not linear" if loose else ""
    if not loose and value < IMAGINARY:
        reason = "imaginary: the crystal is unstable against this mode"
    return Value(property=name, value=value, unit="THz", error=error, converged=not loose, reason=reason, cost=cost)
