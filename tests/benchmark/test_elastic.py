from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.units import GPa

from aldriver.benchmark import elastic
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name, conventional_cell
from aldriver.benchmark.lattice import relax_lattice
from aldriver.benchmark.strain import STRAINS, fit_slope, strained


def by_name(values):
    return {v.property: v.value for v in values}


def energy_curvature(potential, cell, voigt, h=2e-4):
    """(1/V) d²E/dδ² of a strain δ·voigt at zero stress, GPa: an elastic constant without any stress."""
    voigt = np.asarray(voigt, dtype=float)
    cells = [strained(cell, x * h * voigt) for x in (-2, -1, 0, 1, 2)]
    e = [p.energy for p in potential.evaluate(cells, stress=False)]
    return (-e[0] + 16 * e[1] - 30 * e[2] + 16 * e[3] - e[4]) / (12 * h * h) / cell.get_volume() / GPa


@pytest.mark.parametrize("metal", ["fe", "cu"])
def test_constants_are_second_derivatives_of_the_energy(request, metal):
    potential = request.getfixturevalue(metal)
    case = request.getfixturevalue({"fe": "bcc_fe", "cu": "fcc_cu"}[metal])
    a = relax_lattice(potential, case).a
    found = by_name(elastic.compute(Bench(potential), case, a))
    cell = conventional_cell(case, a)
    c11 = energy_curvature(potential, cell, [1, 0, 0, 0, 0, 0])
    c12 = energy_curvature(potential, cell, [1, 1, 0, 0, 0, 0]) / 2 - c11
    c44 = energy_curvature(potential, cell, [0, 0, 0, 1, 0, 0])
    # ±1 % strains against infinitesimal ones: third-order terms stay below 1 %
    assert found["c11"] == pytest.approx(c11, rel=0.01)
    assert found["c12"] == pytest.approx(c12, rel=0.01)
    assert found["c44"] == pytest.approx(c44, rel=0.01)
    assert found["c_prime"] == pytest.approx((found["c11"] - found["c12"]) / 2)
    assert found["bulk_modulus"] == pytest.approx((found["c11"] + 2 * found["c12"]) / 3)


def test_published_constants(fe, cu, bcc_fe, fcc_cu):
    iron = by_name(elastic.compute(Bench(fe), bcc_fe, relax_lattice(fe, bcc_fe).a))
    # Mendelev 2003, potential 2
    assert [iron[k] for k in ("c11", "c12", "c44")] == pytest.approx([243.4, 145.0, 116.0], abs=0.5)
    copper = by_name(elastic.compute(Bench(cu), fcc_cu, relax_lattice(cu, fcc_cu).a))
    # Mishin 2001, EAM1
    assert [copper[k] for k in ("c11", "c12", "c44")] == pytest.approx([169.9, 122.6, 76.2], abs=0.7)
    assert copper["bulk_modulus"] == pytest.approx(138.3, abs=0.7)


def test_one_direction_shows_what_all_do(fe, bcc_fe):
    """Cubic symmetry: the distortions that are left out give the same constants."""
    cell = conventional_cell(bcc_fe, relax_lattice(fe, bcc_fe).a)
    normal, shear = [], []
    for k in range(3):
        for j, rows in ((k, normal), (k + 3, shear)):
            strain = np.zeros((4, 6))
            strain[:, j] = STRAINS
            s = np.array([p.stress for p in fe.evaluate([strained(cell, e) for e in strain])]) / GPa
            rows.append(fit_slope(STRAINS, s[:, j]).value)
    assert normal == pytest.approx([normal[0]] * 3, rel=1e-5)
    assert shear == pytest.approx([shear[0]] * 3, rel=1e-5)


def test_eight_force_calls_are_enough_for_a_metal(fe, bcc_fe):
    bench = Bench(fe)
    with bench.measure() as spent:
        values = elastic.compute(bench, bcc_fe, 2.8553)
    assert spent.force_calls == 8
    assert {v.property: v.cost.force_calls for v in values} == dict.fromkeys(elastic.PROPERTIES, 4)


def test_strained_is_homogeneous(bcc_fe):
    cell = conventional_cell(bcc_fe)
    bent = strained(cell, [0.01, -0.02, 0, 0.03, 0, 0])
    assert np.asarray(bent.cell) == pytest.approx(
        cell.cell.lengths()[0] * np.array([[1.01, 0, 0], [0, 0.98, 0.015], [0, 0.015, 1]])
    )
    assert bent.get_scaled_positions() == pytest.approx(cell.get_scaled_positions())


def test_fit_slope_error():
    assert fit_slope([0, 1, 2], [1, 3, 5]).error == pytest.approx(0, abs=1e-12)
    rng = np.random.default_rng(1)
    x = np.linspace(-1, 1, 50)
    fits = [fit_slope(x, 2 * x + rng.normal(0, 0.1, 50)) for _ in range(100)]
    assert np.mean([f.error for f in fits]) == pytest.approx(np.std([f.value for f in fits]), rel=0.3)


def test_diamond_relaxes_its_sublattices(chgnet030):
    """Without internal relaxation C44 of Si comes out too stiff; under the normal strain no force acts."""
    bench = Bench(chgnet030)
    potential = bench.potential
    case = case_by_name("diamond-Si")
    a = relax_lattice(potential, case).a
    cell = conventional_cell(case, a)
    values = {v.property: v for v in elastic.compute(bench, case, a)}
    clamped = [
        p.stress[3] / GPa for p in potential.evaluate([strained(cell, [0, 0, 0, e, 0, 0]) for e in (-0.01, 0.01)])
    ]
    assert values["c44"].converged
    assert 0 < values["c44"].value < 0.9 * (clamped[1] - clamped[0]) / 0.02
    assert values["c44"].cost.force_calls > 4
    assert values["c11"].cost.force_calls == 4


def test_an_unstable_crystal_is_named(fe, bcc_fe, changed):
    def soften(atoms, p):
        strain = atoms.cell.lengths() / 2.8553 - 1
        s = p.stress.copy()
        s[:3] -= 80 * GPa * 2 * (strain - strain.mean())
        return dataclasses.replace(p, stress=s)

    values = {v.property: v for v in elastic.compute(Bench(changed(fe, soften)), bcc_fe, 2.8553)}
    assert values["c_prime"].value < 0
    assert "mechanically unstable" in values["c_prime"].reason
    assert values["c_prime"].converged
    assert values["c44"].reason == ""
