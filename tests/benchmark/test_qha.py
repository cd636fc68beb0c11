"""The quasi-harmonic approximation against crystals whose answers are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from ase.units import J, kB, mol

from aldriver.benchmark import qha
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.harmonic import heat_capacity
from aldriver.benchmark.lattice import relax_lattice
from aldriver.benchmark.protocols import PROTOCOLS
from aldriver.benchmark.qha import QuasiHarmonic, around
from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_thermal import Qha

REST, B, B1 = 12.0, 0.9, 4.5  # Å³, eV/Å³: 144 GPa
FAST = Qha(supercell=(2, 2, 2), mesh=8, free_energies_K=[0, 300])


def crystal(gamma, frequency=2.0, n=11):
    """One atom of a Birch–Murnaghan solid whose frequencies go as V^-gamma."""
    volumes = REST * np.linspace(0.94, 1.08, n)
    x = (REST / volumes) ** (2 / 3) - 1
    energies = 9 / 16 * REST * B * (x**3 * B1 + x**2 * (6 - 4 * (x + 1)))
    return QuasiHarmonic(
        volumes=volumes,
        energies=energies,
        frequencies=[np.full((1, 3), frequency * (v / REST) ** -gamma) for v in volumes],
        weights=[np.ones(1)] * n,
        n_atoms=1,
    )


def test_a_harmonic_crystal_does_not_expand():
    solid = crystal(gamma=0.0)
    assert solid.at(300.0)[0] == pytest.approx(REST, rel=1e-6)
    assert solid.expansion(300.0) == pytest.approx(0, abs=1e-10)
    constant_volume = heat_capacity(solid.frequencies[0], solid.weights[0], 300.0) * kB
    assert solid.heat_capacity(300.0) == pytest.approx(constant_volume, rel=5e-4)  # steps of 10 K
    assert solid.heat_capacity(3000.0) == pytest.approx(3 * kB, rel=1e-3)  # Dulong and Petit


def test_expansion_is_grueneisens():
    """In the classical limit α = γ·3k/(3·B·V), E. Grüneisen, Ann. Phys. 344, 257 (1912)."""
    gamma, t = 2.0, 60.0
    solid = crystal(gamma, frequency=0.2)  # 10 K: classical
    assert solid.expansion(t) == pytest.approx(gamma * 3 * kB / (3 * B * REST), rel=0.02)


def test_heat_capacities_differ_by_the_work_of_expansion():
    """C_p − C_v = 9 α² B V T."""
    solid, t = crystal(2.0, frequency=4.0), 400.0
    volume = solid.at(t)[0]
    frequencies = np.full((1, 3), 4.0 * (volume / REST) ** -2.0)
    constant_volume = heat_capacity(frequencies, [1.0], t) * kB
    pressure = -np.gradient(helmholtz(solid, t), solid.volumes)
    modulus = -volume * np.interp(volume, solid.volumes, np.gradient(pressure, solid.volumes))
    work = 9 * solid.expansion(t) ** 2 * modulus * volume * t
    assert solid.heat_capacity(t) - constant_volume == pytest.approx(work, rel=0.03)


def helmholtz(solid, t):
    vibrations = [qha.free_energy(f, w, t) for f, w in zip(solid.frequencies, solid.weights, strict=True)]
    return solid.energies + np.array(vibrations)


def test_copper(cu, fcc_cu):
    a = relax_lattice(cu, fcc_cu).a
    bench = Bench(cu)
    found = {v.property: v for v in qha.compute(bench, fcc_cu, a, FAST)}
    assert list(found) == list(qha.units(fcc_cu, FAST))
    assert all(v.converged and v.error > 0 for v in found.values())
    # experiment: 16.9e-6/K from 0 to 100 °C, 0.385 J/(g K) or 24.5 J/(mol K) at 20 °C (F. Habashi, Copper, Physical and
    # Chemical Properties, Encyclopedia of Metalloproteins, 2013); harmonic oscillators have less than 3k
    assert found["qha_thermal_expansion"].value == pytest.approx(16.9, rel=0.25)
    assert 23.0 < found["qha_heat_capacity"].value < 3 * kB * mol / J
    assert found["qha_lattice_constant"].value > a
    # zero-point energy: half of the mean of hν, 3 modes
    assert 0.02 < found["qha_free_energy(0)"].value < 0.04
    assert found["qha_free_energy(300)"].value < found["qha_free_energy(0)"].value
    # a volume takes one cell with a displaced atom, and one at rest
    assert found["qha_heat_capacity"].cost.force_calls == 2 * FAST.volumes


def test_no_free_energy_of_a_crystal_with_imaginary_modes(cu, fcc_cu):
    bcc = fcc_cu.model_copy(update={"name": "bcc-Cu", "lattice": "bcc"})
    values = qha.compute(Bench(cu), bcc, 2.87, FAST)
    assert [v.property for v in values] == list(qha.units(bcc, FAST))
    assert all(v.value is None and not v.converged and "imaginary modes" in v.reason for v in values)


def test_volumes_far_above_with_imaginary_modes_are_left_out(cu, fcc_cu):
    """Stretched to 1.4 times its volume copper is unstable; at 300 K it is nowhere near."""
    far = FAST.model_copy(update={"largest": 1.4, "volumes": 16, "free_energies_K": [0.0, 300.0, 6000.0]})
    near = {v.property: v for v in qha.compute(Bench(cu), fcc_cu, 3.615, FAST)}
    values = {v.property: v for v in qha.compute(Bench(cu), fcc_cu, 3.615, far)}
    for name in ("qha_lattice_constant", "qha_free_energy(300)"):
        assert values[name].value == pytest.approx(near[name].value, abs=2 * values[name].error + 1e-4)
    hot = values["qha_free_energy(6000)"]
    assert hot.value is None and "no minimum within the volumes" in hot.reason and "imaginary modes at" in hot.reason


def test_the_stretch_around_rest():
    stable = np.array([True, False, True, True, True, False, True])
    assert around(3, stable) == [2, 3, 4]
    assert around(0, stable) == [0] and around(6, stable) == [6]
    assert around(1, stable) == []
    assert around(2, np.ones(4, dtype=bool)) == [0, 1, 2, 3]


def test_a_minimum_outside_the_volumes_is_a_reason(cu, fcc_cu):
    narrow = FAST.model_copy(update={"smallest": 0.99, "largest": 1.02, "free_energies_K": [0.0, 2000.0]})
    values = {v.property: v for v in qha.compute(Bench(cu), fcc_cu, 3.615, narrow)}
    assert values["qha_free_energy(2000)"].value is None
    assert "no minimum within the volumes" in values["qha_free_energy(2000)"].reason
    assert values["qha_free_energy(0)"].value is not None


def test_in_a_suite(cu, fcc_cu):
    settings = Benchmark(properties=["qha"], cases=[fcc_cu], qha=FAST)
    records = run_suite(cu, settings, cache_dir=None)
    assert [r.property for r in records] == list(PROTOCOLS["qha"].units(fcc_cu, FAST))
    assert records[-1].property == "qha_free_energy(300)"
    assert {r.unit for r in records} == {"Å", "1e-6/K", "J/(mol K)", "eV/atom"}


def test_temperatures_are_not_negative():
    with pytest.raises(ValueError, match="not negative"):
        Qha(free_energies_K=[-1])
