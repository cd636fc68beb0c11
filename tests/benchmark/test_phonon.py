"""Phonons against finite differences made independently, elastic constants, and symmetry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.units import _amu, _e

from aldriver.benchmark import phonon
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.harmonic import THZ_K, free_energy, harmonic, heat_capacity
from aldriver.benchmark.lattice import relax_lattice
from aldriver.benchmark.store import Store
from aldriver.benchmark.suite import PROTOCOLS, relaxations, run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_thermal import Phonon

A_CU = 3.615
THZ = np.sqrt(_e / _amu) * 1e10 / 1e12 / (2 * np.pi)
"""Square root of 1 eV/(Å² u) as a frequency, THz."""


def by_name(values):
    return {v.property: v.value for v in values}


def brute_frequencies(potential, case, a, n, points):
    """THz at each q (2π/a) of a crystal with one atom a primitive cell: central differences of all three directions, no
    symmetry, and the lattice sum over minimum images taken by hand."""
    cell = conventional_cell(case, a).repeat(n)
    h, columns = 0.01, []
    for x in range(3):
        moved = []
        for sign in (1, -1):
            other = cell.copy()
            other.positions[0, x] += sign * h
            moved.append(potential.evaluate([other], stress=False)[0].forces)
        columns.append((moved[1] - moved[0]) / (2 * h))
    constants = np.stack(columns, axis=-1)  # (N, 3, 3): force on atom j along y by atom 0 moved along x, negated
    dynamical = np.zeros((len(points), 3, 3), dtype=complex)
    size = n * a
    shifts = size * np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
    for j, position in enumerate(cell.positions):
        images = position - cell.positions[0] + shifts
        lengths = np.linalg.norm(images, axis=1)
        nearest = images[lengths < lengths.min() + 1e-6]
        phases = np.exp(2j * np.pi * np.asarray(points) @ nearest.T / a).mean(axis=1)
        dynamical += phases[:, None, None] * constants[j]
    squares = np.linalg.eigvalsh((dynamical + dynamical.conj().swapaxes(1, 2)) / 2 / cell.get_masses()[0])
    return np.sign(squares) * np.sqrt(np.abs(squares)) * THZ


@pytest.mark.parametrize("metal", ["fe", "cu"])
def test_frequencies_are_those_of_plain_finite_differences(request, metal):
    potential = request.getfixturevalue(metal)
    case = request.getfixturevalue({"fe": "bcc_fe", "cu": "fcc_cu"}[metal])
    a = relax_lattice(potential, case).a
    (crystal,) = harmonic(Bench(potential), case, [(a, Phonon(supercell=(4, 4, 4), displacement_A=0.01))])
    points = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.25, 0.1, 0.4]]
    for q, brute in zip(points, brute_frequencies(potential, case, a, 4, points), strict=True):
        assert crystal.frequencies([q])[0] == pytest.approx(brute, abs=0.005)


def test_acoustic_sum_rule_and_sound_as_the_elastic_constants_have_it(cu, fcc_cu):
    a = relax_lattice(cu, fcc_cu).a
    (crystal,) = harmonic(Bench(cu), fcc_cu, [(a, Phonon(supercell=(4, 4, 4)))])
    assert np.abs(crystal.frequencies([[0, 0, 0]])).max() < 1e-3
    constants = by_name(PROTOCOLS["elastic"].compute(Bench(cu), fcc_cu, a))
    cell = conventional_cell(fcc_cu, a)
    density = cell.get_masses().sum() * _amu / (cell.get_volume() * 1e-30)
    q = 0.04
    slopes = crystal.frequencies([[q, 0, 0]])[0] * 1e12 / (q / (a * 1e-10))  # m/s along [100]
    expected = np.sqrt(np.array([constants["c44"], constants["c44"], constants["c11"]]) * 1e9 / density)
    assert slopes == pytest.approx(expected, rel=0.02)


def test_frequencies_of_copper_at_the_special_points(cu, fcc_cu):
    a = relax_lattice(cu, fcc_cu).a
    options = Phonon(supercell=(2, 2, 2), displacement_A=0.01)
    found = by_name(phonon.compute(Bench(cu), fcc_cu, a, options))
    points = {"X": [1, 0, 0], "L": [0.5, 0.5, 0.5], "K": [0.75, 0.75, 0]}
    for point, brute in zip(points, brute_frequencies(cu, fcc_cu, a, 2, list(points.values())), strict=True):
        mine = [found[f"phonon({point},{k})"] for k in (1, 2, 3)]
        assert mine == pytest.approx(brute, abs=0.005)
        if point != "K":  # both transverse modes are the same along axes of order four and three
            assert mine[0] == pytest.approx(mine[1], abs=1e-3) and mine[1] < mine[2] - 1
    assert found["phonon_max_frequency"] == pytest.approx(found["phonon(X,3)"], abs=0.05)
    assert 0 < found["phonon_min_frequency"] < 1
    assert set(found) == set(phonon.units(fcc_cu))


def test_errors_hold_the_anharmonicity(cu, fcc_cu):
    values = phonon.compute(Bench(cu), fcc_cu, A_CU, Phonon(supercell=(2, 2, 2), displacement_A=0.05))
    exact = by_name(phonon.compute(Bench(cu), fcc_cu, A_CU, Phonon(supercell=(2, 2, 2), displacement_A=0.005)))
    for v in values[:-3]:
        assert abs(v.value - exact[v.property]) <= v.error + 1e-4
        assert v.converged


def test_bands_pass_the_special_points_and_states_are_three_an_atom(cu, fcc_cu):
    (crystal,) = harmonic(Bench(cu), fcc_cu, [(A_CU, Phonon(supercell=(3, 3, 3)))])
    found = phonon.bands(crystal, fcc_cu, points=11)
    assert found.labels == list("GXWKGL")
    at_x = found.frequencies[np.isclose(found.distance, found.ticks[1])]
    assert at_x == pytest.approx(np.tile(crystal.frequencies([[1, 0, 0]]), (len(at_x), 1)))
    assert found.ticks[1] == pytest.approx(1 / A_CU)
    states = phonon.density_of_states(crystal, 12, edges := list(np.arange(0, 10, 0.5)))
    assert (states * np.diff(edges)).sum() == pytest.approx(3)


def test_a_crystal_that_falls_apart_has_imaginary_modes(cu, fcc_cu):
    bcc = fcc_cu.model_copy(update={"name": "bcc-Cu", "lattice": "bcc"})
    # bcc copper is elastically unstable (Mishin 2001, abstract)
    values = {v.property: v for v in phonon.compute(Bench(cu), bcc, 2.87, Phonon(supercell=(3, 3, 3)))}
    lowest = values["phonon_min_frequency"]
    assert lowest.value < -0.5
    assert "unstable against this mode" in lowest.reason
    assert values["phonon_max_frequency"].reason == ""


def test_noise_is_told(cu, fcc_cu, changed):
    rng = np.random.default_rng(0)
    noisy = changed(cu, lambda _, p: dataclasses.replace(p, forces=p.forces + rng.normal(0, 0.1, p.forces.shape)))
    values = phonon.compute(Bench(noisy), fcc_cu, A_CU, Phonon(supercell=(2, 2, 2)))
    assert any(not v.converged and "not linear" in v.reason for v in values)


def test_forces_are_kept_shared_and_foreseen(fe, bcc_fe, tmp_path):
    settings = Benchmark(properties=["phonon"], cases=[bcc_fe], phonon=Phonon(supercell=(2, 2, 2), mesh=4))
    seen = []
    first = run_suite(fe, settings, cache_dir=tmp_path, on_relaxation=lambda *what: seen.append(what[:2]))
    assert relaxations(settings) == 2  # one displacement, once and doubled
    assert seen == [(1, 2), (2, 2)]
    bench = Bench(fe, store=Store(tmp_path))
    a = relax_lattice(fe, bcc_fe).a
    with bench.potential.measure() as spent:
        again = phonon.compute(bench, bcc_fe, a, settings.phonon)
    assert spent.force_calls == 0
    assert [v.value for v in again] == [r.value for r in first]
    assert again[0].cost.force_calls == first[0].force_calls == 2
    assert again[0].cost.atom_calls == 32


def test_forces_that_are_not_finite_name_the_cell(fe, bcc_fe, changed):
    broken = changed(fe, lambda _, p: dataclasses.replace(p, forces=p.forces * np.nan))
    settings = Benchmark(properties=["phonon"], cases=[bcc_fe], phonon=Phonon(supercell=(2, 2, 2)))
    record, *_ = run_suite(broken, settings, cache_dir=None)
    assert record.value is None
    assert "not finite" in record.reason


def test_thermal_functions_of_one_oscillator():
    frequency, weights = [[5.0, 5.0, 5.0]], [1.0]
    cold, hot = 1e-3 * THZ_K * 5, 100 * THZ_K * 5
    zero_point = free_energy(frequency, weights, 0)
    assert zero_point == pytest.approx(3 * 0.5 * 5e12 * 4.135667696e-15)
    assert free_energy(frequency, weights, cold) == pytest.approx(zero_point)
    assert heat_capacity(frequency, weights, hot) == pytest.approx(3, rel=1e-4)
    # C_v = -T d²F/dT², in units of k
    t, h = 300.0, 1.0
    f = [free_energy(frequency, weights, t + x * h) for x in (-1, 0, 1)]
    assert heat_capacity(frequency, weights, t) == pytest.approx(
        -t * (f[0] - 2 * f[1] + f[2]) / h**2 / 8.617333e-5, rel=1e-4
    )
