"""Magnetic moment per atom of the perfect crystal, from potentials that predict moments.

Protocol: the mean over the conventional cell at the potential's own lattice constant, as μ of N. K. Mohandas et al.,
doi:10.1007/s11669-025-01225-z, Table 1. CHGNet predicts absolute values (B. Deng et al., Nat. Mach. Intell. 5, 1031
(2023)), so this says nothing of their order. The error is half the spread between atoms, which symmetry makes equal.
"""

from __future__ import annotations

import numpy as np

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.measure import Value
from aldriver.core.recipe_benchmark import Case

VERSION = 1
PROPERTIES = {"magnetic_moment": "µB"}


def compute(bench: Bench, case: Case, a: float) -> list[Value]:
    """``magnetic_moment`` (µB per atom); without a value where the potential has no moments."""
    with bench.measure() as cost:
        moments = bench.potential.evaluate([conventional_cell(case, a)], stress=False)[0].magmoms
    if moments is None:
        reason = f"{bench.potential.name} predicts no magnetic moments"
        return [Value.missing("magnetic_moment", "µB", reason, cost)]
    return [
        Value(
            property="magnetic_moment",
            value=float(np.mean(moments)),
            unit="µB",
            error=float(np.ptp(moments)) / 2,
            cost=cost,
        )
    ]
