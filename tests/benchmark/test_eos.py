from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.units import GPa

from aldriver.benchmark import elastic, eos
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.eos import fit_birch_murnaghan
from aldriver.benchmark.lattice import relax_lattice
from aldriver.core.errors import AldriverError


def birch_murnaghan(v, e0, v0, b0, b1):
    """F. Birch, Phys. Rev. 71, 809 (1947), third order."""
    x = (v0 / v) ** (2 / 3)
    return e0 + 9 * v0 * b0 / 16 * ((x - 1) ** 3 * b1 + (x - 1) ** 2 * (6 - 4 * x))


def test_the_fit_returns_what_made_the_curve():
    v = 11.7 * np.linspace(0.94, 1.06, 11)
    fit = fit_birch_murnaghan(v, birch_murnaghan(v, -8.4, 11.63, 178 * GPa, 4.6))
    assert fit.volume == pytest.approx(11.63, abs=1e-7)
    assert fit.energy == pytest.approx(-8.4, abs=1e-9)
    assert fit.bulk_modulus / GPa == pytest.approx(178, abs=1e-4)
    assert fit.derivative == pytest.approx(4.6, abs=1e-4)
    assert fit.residual < 1e-10
    assert fit.bulk_modulus_error / GPa < 1e-4


def test_the_error_covers_noise():
    rng = np.random.default_rng(3)
    v = 11.7 * np.linspace(0.94, 1.06, 11)
    clean = birch_murnaghan(v, -8.4, 11.63, 178 * GPa, 4.6)
    fits = [fit_birch_murnaghan(v, clean + rng.normal(0, 1e-4, len(v))) for _ in range(60)]
    scatter = np.std([f.bulk_modulus for f in fits])
    claimed = np.mean([f.bulk_modulus_error for f in fits])
    assert 0.5 * scatter < claimed < 2.5 * scatter


def test_a_curve_without_a_minimum_is_refused():
    v = np.linspace(10, 12, 11)
    with pytest.raises(AldriverError, match="no minimum"):
        fit_birch_murnaghan(v, -v)
    with pytest.raises(AldriverError, match="at least 5"):
        fit_birch_murnaghan(v[:4], (v[:4] - 11) ** 2)


@pytest.mark.parametrize("metal", ["fe", "cu"])
def test_bulk_modulus_agrees_with_finite_differences_and_elastic_constants(request, metal):
    bench = Bench(request.getfixturevalue(metal))
    potential = bench.potential
    case = request.getfixturevalue({"fe": "bcc_fe", "cu": "fcc_cu"}[metal])
    a = relax_lattice(potential, case).a
    modulus, volume = eos.compute(bench, case, a)
    assert (modulus.property, volume.property) == ("bulk_modulus_eos", "eos_volume")

    # B = −dp/d ln V = (1/3) dσ/d ln a, from stresses a hair apart
    def stress(strain):
        return potential.evaluate([conventional_cell(case, a * np.exp(strain))])[0].stress[:3].mean()

    exact = (stress(1e-4) - stress(-1e-4)) / (6e-4) / GPa
    assert modulus.value == pytest.approx(exact, rel=0.02)
    assert volume.value == pytest.approx(a**3 / len(conventional_cell(case)), rel=1e-3)
    from_constants = {v.property: v.value for v in elastic.compute(bench, case, a)}["bulk_modulus"]
    assert modulus.value == pytest.approx(from_constants, rel=0.02)
    assert modulus.cost.force_calls == 11


def test_a_rough_curve_is_not_trusted(fe, bcc_fe, changed):
    rng = np.random.default_rng(0)
    noisy = changed(fe, lambda _, p: dataclasses.replace(p, energy=p.energy + rng.normal(0, 0.02)))
    modulus, _ = eos.compute(Bench(noisy), bcc_fe, 2.8553)
    assert not modulus.converged
    assert "rough" in modulus.reason
