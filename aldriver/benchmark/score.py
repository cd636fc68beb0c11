"""Scores: how good one value is on a fixed scale, how good a potential is, and the figure of merit of a group of them.

The fixed scale knows nothing of other potentials, so adding a generation moves no other score; the figure of merit
ranks those that are compared, and moves with them. Which values are compared is ``comparison.py``'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Key = tuple[str, str]
"""Case and property."""

VERSION = 1
"""Of the scales: scores of another version are not comparable."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """When a property is good and when it is bad.

    Deviations are relative to the reference, or to `floor` (in the property's unit) where the reference is smaller:
    an energy difference may be zero, and nothing is judged relative to zero.

    Attributes
    ----------
    good, bad
        Relative deviations that score 1 and 0; straight in between.
    """

    good: float = 0.05
    bad: float = 0.5
    floor: float = 0.0


DEFAULT = Scale()
SCALES = {
    # a lattice constant of PBE lies within 1 % of experiment: at 2 % the potential describes another crystal
    "lattice_constant": Scale(good=0.002, bad=0.02),
    "c_over_a": Scale(good=0.002, bad=0.02),
    "eos_volume": Scale(good=0.006, bad=0.06),
    # elastic constants of DFT codes differ by some 5 %; soft ones, C' of Li, are measured against 20 GPa
    "c_prime": Scale(floor=20.0),
    "c44": Scale(floor=20.0),
    # differences of energies, in eV: those below 0.5 eV are judged in absolute terms (25 meV is good, 0.25 eV bad)
    "vacancy_formation_energy": Scale(floor=0.5),
    "vacancy_migration_energy": Scale(floor=0.5),
    "binding_energy": Scale(floor=0.5),
    "oct_minus_tet": Scale(floor=0.5),
    "interstitial_migration_energy": Scale(floor=0.5),
    # soft modes are judged against 2 THz, free energies against 50 meV/atom, of which they pass through zero
    "phonon": Scale(floor=2.0),
    "phonon_min_frequency": Scale(floor=2.0),
    "qha_lattice_constant": Scale(good=0.002, bad=0.02),
    "qha_free_energy": Scale(floor=0.05),
    "rdf_first_peak": Scale(good=0.01, bad=0.1),
    "liquid_density": Scale(good=0.01, bad=0.1),
    "magnetic_moment": Scale(good=0.02, bad=0.2, floor=0.5),
    # points of curves that go through zero
    "fault_energy": Scale(floor=0.5),
    "stacking_fault_energy": Scale(floor=0.1),
    "traction": Scale(floor=10.0),
    "dissociation_barrier": Scale(floor=0.5),
    "adsorption_energy": Scale(floor=0.5),
    "peierls_barrier": Scale(floor=0.05),
    # meV/atom, where nothing forgotten is 0: CHGNet 0.2.0 itself is 60 off DFT (N. K. Mohandas et al. 2026)
    "forgetting_drift": Scale(floor=100.0),
}
"""By property, without what stands in parentheses; others have :data:`DEFAULT`."""

OF_THE_MACHINE = {"md_speed"}
"""Properties that differ from one measurement to the next, and never settle."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of one potential.

    Attributes
    ----------
    value
        From 0 to 1: mean over the groups; None when nothing could be judged.
    groups
        Mean score of each property of each case (``bcc-Fe/binding_energy``), all its variants together: 390 binding
        energies count as much as one lattice constant.
    judged, missing
        How many values there are a reference for, and how many of them are missing or not to be trusted: those score 0.
    """

    value: float | None
    groups: dict[str, float]
    judged: int
    missing: int


def base_name(name: str) -> str:
    """A property without its variant: ``binding_energy`` of ``binding_energy(Cu-Ni,2)``."""
    return name.partition("(")[0]


def scale_of(name: str) -> Scale:
    """Scale of a property."""
    return SCALES.get(base_name(name), DEFAULT)


def deviation(name: str, value: float | None, reference: float) -> float | None:
    """Signed deviation of `value` in units of the reference or the scale's floor; None where there is neither."""
    yardstick = max(abs(reference), scale_of(name).floor)
    return None if value is None or yardstick == 0 else (value - reference) / yardstick


def score(name: str, off: float | None) -> float:
    """Score of a deviation from 0 (bad, or missing) to 1 (good)."""
    if off is None:
        return 0.0
    scale = scale_of(name)
    return float(np.clip((scale.bad - abs(off)) / (scale.bad - scale.good), 0.0, 1.0))


def total(deviations: Mapping[Key, float | None]) -> Score:
    """Score of a potential from the deviation of each value that has a reference; None: missing or not trusted."""
    groups: dict[str, list[float]] = {}
    for (case, name), off in deviations.items():
        groups.setdefault(f"{case}/{base_name(name)}", []).append(score(name, off))
    means = {group: float(np.mean(scores)) for group, scores in groups.items()}
    return Score(
        value=float(np.mean(list(means.values()))) if means else None,
        groups=means,
        judged=len(deviations),
        missing=sum(off is None for off in deviations.values()),
    )


def figures_of_merit(deviations: Mapping[str, Mapping[Key, float | None]]) -> dict[str, float | None]:
    """Figure of merit of each potential of a group, from 0 (worst in everything) to 1 (best in everything).

    For each property p and potential m, (Δ_pm - Δ_worst)/(Δ_best - Δ_worst) with Δ the absolute error, and the mean of
    that over the properties (M. Radova et al., npj Comput. Mater. (2025), doi:10.1038/s41524-025-01727-x, section on
    Ti-6Al-4V). It depends on who is compared, as they note. A value that is missing counts as the worst; where all are
    equally good all have 1; a property that a potential does not list at all is left out of its mean.

    Parameters
    ----------
    deviations
        Of each potential, by case and property.
    """
    errors: dict[Key, list[float]] = {}
    for mine in deviations.values():
        for key, off in mine.items():
            if off is not None:
                errors.setdefault(key, []).append(abs(off))
    found: dict[str, float | None] = {}
    for name, mine in deviations.items():
        parts = [_merit(off, errors[key]) for key, off in mine.items() if key in errors]
        found[name] = float(np.mean(parts)) if parts and len(deviations) > 1 else None
    return found


def _merit(off: float | None, errors: list[float]) -> float:
    if off is None:
        return 0.0
    best, worst = min(errors), max(errors)
    return 1.0 if worst == best else (abs(off) - worst) / (best - worst)
