from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.lattice import compute, relax_lattice


def energy_minimum(potential, case):
    """Lattice constant from energies alone, without any stress."""
    found = minimize_scalar(
        lambda a: potential.evaluate([conventional_cell(case, a)], stress=False)[0].energy,
        bracket=(case.a * 0.98, case.a, case.a * 1.02),
        tol=1e-9,
    )
    return found.x


def test_zero_stress_is_the_energy_minimum(fe, cu, bcc_fe, fcc_cu):
    assert relax_lattice(fe, bcc_fe).a == pytest.approx(energy_minimum(fe, bcc_fe), abs=2e-5)
    assert relax_lattice(cu, fcc_cu).a == pytest.approx(energy_minimum(cu, fcc_cu), abs=2e-5)


def test_published_lattice_constants(fe, cu, bcc_fe, fcc_cu):
    # Mendelev 2003 (Fe, potential 2); Mishin 2001 (Cu, EAM1)
    assert relax_lattice(fe, bcc_fe).a == pytest.approx(2.8553, abs=5e-5)
    assert relax_lattice(cu, fcc_cu).a == pytest.approx(3.615, abs=5e-4)


@pytest.mark.parametrize("start", [2.60, 2.8553, 3.10])
def test_the_start_does_not_matter(fe, bcc_fe, start):
    found = relax_lattice(fe, bcc_fe.model_copy(update={"a": start}))
    assert found.converged
    assert found.a == pytest.approx(2.85532, abs=2e-5)
    assert found.error < 1e-4
    assert found.steps <= 10


def test_step_limit_is_not_convergence(fe, bcc_fe):
    with_limit = relax_lattice(fe, bcc_fe, max_steps=2)
    assert not with_limit.converged
    assert "2 steps" in with_limit.reason
    value = compute(Bench(fe), bcc_fe, max_steps=2)[0]
    assert (value.converged, value.cost.force_calls) == (False, 2)


def test_a_crystal_that_flies_apart_is_not_converged(fe, bcc_fe, changed):
    """No stress at all (everything beyond the cutoff) must not look like equilibrium, nor a stress that never ends."""
    torn = changed(fe, lambda _, p: dataclasses.replace(p, stress=np.zeros(6)))
    assert not relax_lattice(torn, bcc_fe).converged
    pushed = relax_lattice(changed(fe, lambda _, p: dataclasses.replace(p, stress=np.full(6, -0.1))), bcc_fe)
    assert not pushed.converged
    assert "25%" in pushed.reason


def test_a_maximum_is_not_an_equilibrium(fe, bcc_fe, changed):
    flipped = changed(fe, lambda _, p: dataclasses.replace(p, stress=-p.stress))
    at_the_top = bcc_fe.model_copy(update={"a": 2.85532})
    assert not relax_lattice(flipped, at_the_top).converged
