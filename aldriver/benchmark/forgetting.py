"""What a refined potential has forgotten: the drift of its energies from the foundation's on a fixed general probe.

Protocol: 24 elements and 6 compounds near their experimental structure (``potentials/probe.py``), without those that
hold the element of the case, whose energies are meant to change. No labels are needed, and nothing is relaxed: a drift
is not an error, since the foundation may have been wrong. There is no numerical error. Limits that refuse a training
are ``train/guard.py``'s.
"""

from __future__ import annotations

import math

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.measure import Value
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_extended import Forgetting
from aldriver.potentials import load
from aldriver.potentials.probe import Probe, energies_per_atom

VERSION = 1
UNIT = "meV/atom"


def units(case: Case, options: Forgetting) -> dict[str, str]:
    """Drift over all cells, and of the substance where it is largest."""
    return {"forgetting_drift": UNIT, "forgetting_drift(worst)": UNIT}


def content(case: Case, options: Forgetting) -> str:
    """Fingerprint of the foundation: a folder may hold another one than before."""
    if options.foundation is None:
        return ""
    try:
        return load(options.foundation).fingerprint
    except AldriverError:
        return ""  # `compute` says what is wrong with it


def compute(bench: Bench, case: Case, a: float, options: Forgetting) -> list[Value]:
    """Root mean square of the change of energy over the probe's cells, and that of the substance that changed most.

    Raises
    ------
    InputError
        When no foundation is named, or there is none of that name.
    AldriverError
        When no cell of the probe can be compared.
    """
    if options.foundation is None:
        raise InputError("name the potential it was refined from in benchmark.forgetting.foundation")
    probe = Probe(load(options.foundation), exclude={case.element, *options.exclude})
    with bench.measure() as cost:
        drift = probe.drift(lambda cells: list(energies_per_atom(bench.potential, cells)), bench.potential.elements)
    if not drift:
        raise AldriverError(f"{bench.potential.name} and {options.foundation} have no cell of the probe in common")
    if not math.isfinite(drift["drift_meV_atom"]):
        raise AldriverError(f"the energy of {drift['worst']} is not finite")
    return [
        Value(property=name, value=drift[key], unit=UNIT, error=0.0, cost=cost)
        for name, key in (("forgetting_drift", "drift_meV_atom"), ("forgetting_drift(worst)", "worst_meV_atom"))
    ]
