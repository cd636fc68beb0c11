"""Phonon dispersions and densities of states as curves, for figures: what ``phonon.py`` takes its values from.

Forces that are kept are not computed again. How curves are drawn is the report's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aldriver.benchmark import phonon
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.harmonic import harmonic
from aldriver.benchmark.store import Store
from aldriver.core.recipe_benchmark import Benchmark, Case
from aldriver.core.records import PropertyRecord
from aldriver.potentials.base import Potential

BINS = 100


@dataclass(frozen=True, kw_only=True)
class Dispersion:
    """Curves of a crystal.

    Attributes
    ----------
    labels, ticks
        Special points, and where on the path they lie, from 0 to 1: so crystals of other lattice constants compare.
    distance
        (n,), on the path.
    frequencies
        (modes, n), THz, imaginary ones negative.
    levels, states
        Density of states: frequency, THz, and states per THz and atom.
    """

    labels: list[str]
    ticks: list[float]
    distance: list[float]
    frequencies: list[list[float]]
    levels: list[float]
    states: list[float]


def dispersions(
    potential: Potential, settings: Benchmark, records: Sequence[PropertyRecord], cache_dir: Path | None
) -> dict[str, Dispersion]:
    """Curves by case, of a suite that has the property ``phonon``; cases without frequencies have none.

    Parameters
    ----------
    records
        Of the suite: they say of which cases there are frequencies.
    cache_dir
        As in :func:`~aldriver.benchmark.suite.run_suite`: with it nothing is computed again.
    """
    from aldriver.benchmark.suite import run_suite

    measured = {r.case for r in records if r.property == "phonon_max_frequency" and r.value is not None}
    bench = Bench(potential, store=None if cache_dir is None else Store(cache_dir))
    found = {}
    for case in settings.cases:
        if case.name in measured and "phonon" in settings.properties:
            alone = settings.model_copy(update={"properties": ["lattice"], "cases": [case]})
            a, *shape = (r.value or 0.0 for r in run_suite(potential, alone, cache_dir=cache_dir))
            at = case.model_copy(update={"c_over_a": shape[0]}) if shape else case
            found[case.name] = _curves(bench, at, a, settings)
    return found


def _curves(bench: Bench, case: Case, a: float, settings: Benchmark) -> Dispersion:
    (crystal,) = harmonic(bench, case, [(a, settings.phonon)])
    bands = phonon.bands(crystal, case)
    low, high = min(float(bands.frequencies.min()), 0.0), float(bands.frequencies.max())
    edges = np.linspace(low * 1.05, high * 1.05, BINS + 1)
    states = phonon.density_of_states(crystal, settings.phonon.mesh, edges.tolist())
    length = bands.distance[-1]
    return Dispersion(
        labels=bands.labels,
        ticks=_short(np.array(bands.ticks) / length),
        distance=_short(bands.distance / length),
        frequencies=[_short(mode) for mode in bands.frequencies.T],
        levels=_short((edges[1:] + edges[:-1]) / 2),
        states=_short(3 * states / bands.frequencies.shape[1]),
    )


def _short(numbers: NDArray[np.float64]) -> list[float]:
    return [float(f"{x:.5g}") for x in numbers]
