"""Hexagonal crystals: lattice constants that leave no stress, and elastic constants that are derivatives of energies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import spglib
from ase.build import bulk
from ase.units import GPa, _amu

import aldriver
from aldriver.benchmark import elastic, hexagonal, lattice
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import case_by_name, conventional_cell
from aldriver.benchmark.harmonic import harmonic
from aldriver.benchmark.protocols import PROTOCOLS
from aldriver.benchmark.relax import relax_positions
from aldriver.benchmark.strain import strained
from aldriver.benchmark.suite import run_suite, units
from aldriver.core.recipe_benchmark import Benchmark, Case
from aldriver.core.recipe_extended import Speed
from aldriver.core.recipe_thermal import Phonon


@pytest.fixture(scope="module")
def mg():
    """Sun et al., Phys. Rev. B 73, 024116 (2006)."""
    return aldriver.load("eam:Mg_mm.eam.fs")


def relaxed(potential, name):
    case = case_by_name(name)
    a, ratio = (v.value for v in lattice.compute(Bench(potential), case))
    return case.model_copy(update={"c_over_a": ratio}), a


def second_derivative(potential, cell, voigt, h=2e-3):
    """(1/V) d²E/dδ² of a strain δ·voigt with the atoms relaxed, GPa, without any stress."""
    energies = [
        relax_positions(potential, strained(cell, x * h * np.asarray(voigt, dtype=float)), fmax=1e-5).energy
        for x in (-2, -1, 0, 1, 2)
    ]
    curvature = np.dot([-1, 16, -30, 16, -1], energies) / (12 * h * h)
    return curvature / cell.get_volume() / GPa


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # of spglib
def test_cells_are_the_crystals_they_are_named_after():
    hcp = conventional_cell(case_by_name("hcp-Ti"))
    reference = bulk("Ti")
    assert hcp.get_volume() == pytest.approx(reference.get_volume())
    assert sorted(hcp.get_all_distances(mic=True)[0]) == pytest.approx(sorted(reference.get_all_distances(mic=True)[0]))
    for name, group in (("hcp-Ti", 194), ("omega-Ti", 191)):
        cell = conventional_cell(case_by_name(name))
        crystal = (np.asarray(cell.cell), cell.get_scaled_positions(), cell.numbers)
        assert spglib.get_symmetry_dataset(crystal).number == group
    omega = case_by_name("omega-Ti")
    per_atom = conventional_cell(omega).get_volume() / 3
    assert per_atom == pytest.approx(reference.get_volume() / 2)  # the atomic volume of the ground state


@pytest.mark.parametrize("name", ["hcp-Mg", "omega-Mg"])
def test_no_stress_is_left(mg, name):
    case, a = relaxed(mg, name)
    stress = mg.evaluate([conventional_cell(case, a)])[0].stress
    assert np.abs(stress).max() <= hexagonal.STRESS_TOLERANCE
    for factor in (0.999, 1.001):  # a minimum against both
        for da, dr in ((factor, 1.0), (1.0, factor)):
            other = case.model_copy(update={"c_over_a": case.c_over_a * dr})
            energies = [mg.evaluate([conventional_cell(c, x)])[0].energy for c, x in ((case, a), (other, a * da))]
            assert energies[1] > energies[0]


@pytest.mark.parametrize("name", ["hcp-Mg", "omega-Mg"])
def test_constants_are_second_derivatives_of_the_energy(mg, name):
    case, a = relaxed(mg, name)
    found = {v.property: v for v in elastic.compute(Bench(mg), case, a)}
    assert list(found) == list(elastic.units(case))
    assert all(v.converged and not v.reason for v in found.values())
    cell = conventional_cell(case, a)
    c11, c33, c44 = (second_derivative(mg, cell, np.eye(6)[k]) for k in (0, 2, 3))
    c66 = second_derivative(mg, cell, [0, 0, 0, 0, 0, 1])
    plane = second_derivative(mg, cell, [1, 1, 0, 0, 0, 0]) / 2  # C11 + C12
    c13 = (second_derivative(mg, cell, [1, 1, 1, 0, 0, 0]) - 2 * plane - c33) / 4
    expected = {"c11": c11, "c12": plane - c11, "c13": c13, "c33": c33, "c44": c44}
    for key, value in expected.items():
        assert found[key].value == pytest.approx(value, rel=0.02, abs=2 * found[key].error), key
    assert (found["c11"].value - found["c12"].value) / 2 == pytest.approx(c66, rel=0.04)  # isotropy of the plane


def test_the_bulk_modulus_is_that_under_pressure(mg):
    """Let a and c answer a pressure, and take B from the volume: no elastic constant is used."""
    case, a = relaxed(mg, "hcp-Mg")
    found = {v.property: v.value for v in elastic.compute(Bench(mg), case, a)}
    pressure = 0.2 * GPa
    volumes = []
    for sign in (1, -1):
        pressed = PressedPotential(mg, sign * pressure)
        squeezed = hexagonal.relax_hexagonal(pressed, case.model_copy(update={"a": a}))
        assert squeezed.converged
        volumes.append(squeezed.a**3 * squeezed.c_over_a)
    middle = a**3 * case.c_over_a
    assert found["bulk_modulus"] == pytest.approx(-2 * pressure / (volumes[0] - volumes[1]) * middle / GPa, rel=0.01)


class PressedPotential:
    """Tells the stress on top of that under a pressure: where it vanishes, the crystal is under that pressure."""

    def __init__(self, inner, pressure):
        self.inner, self.pressure = inner, pressure

    def evaluate(self, frames):
        return [
            dataclasses.replace(p, stress=p.stress + self.pressure * np.array([1, 1, 1, 0, 0, 0]))
            for p in self.inner.evaluate(frames)
        ]


def test_a_crystal_that_is_no_minimum_is_refused(mg, changed):
    turned = changed(mg, lambda _, p: dataclasses.replace(p, stress=-p.stress))
    values = lattice.compute(Bench(turned), case_by_name("hcp-Mg"))
    assert not any(v.converged for v in values)
    assert values[0].reason == values[1].reason != ""
    records = run_suite(turned, Benchmark(properties=["elastic"], cases=["hcp-Mg"]), cache_dir=None)
    assert [r.property for r in records] == list(hexagonal.ELASTIC)
    assert all("needs the lattice constant" in r.reason for r in records)


def test_an_unstable_crystal_is_named(mg, changed):
    def soften(atoms, p):
        if p.stress is None:
            return p
        shear = np.asarray(atoms.cell)[2, 1] / np.asarray(atoms.cell)[2, 2] * 2
        return dataclasses.replace(p, stress=p.stress - 40 * GPa * np.array([0, 0, 0, shear, 0, 0]))

    case, a = relaxed(mg, "hcp-Mg")
    values = {v.property: v for v in elastic.compute(Bench(changed(mg, soften)), case, a)}
    assert values["c44"].value < 0
    assert "mechanically unstable: C44" in values["c44"].reason
    assert values["c11"].reason == ""


def test_suite_of_hexagonal_crystals(mg, tmp_path):
    settings = Benchmark(
        properties=["lattice", "elastic", "vacancy"],
        cases=[case_by_name("hcp-Mg", supercell=(3, 3, 2)), "omega-Mg"],
    )
    names = units(settings)
    assert names["hcp-Mg", "c_over_a"] == ""
    assert names["omega-Mg", "c33"] == "GPa"
    records = run_suite(mg, settings.model_copy(update={"cases": settings.cases[:1]}), cache_dir=tmp_path)
    assert [r.property for r in records] == [*hexagonal.LATTICE, *hexagonal.ELASTIC, "vacancy_formation_energy"]
    assert all(r.converged and r.value is not None for r in records)
    again = run_suite(mg, settings.model_copy(update={"cases": settings.cases[:1]}), cache_dir=tmp_path)
    assert [r.value for r in again] == [r.value for r in records]


def test_phonons_carry_sound_as_the_elastic_constants_have_it(mg):
    """Along c both transverse velocities are √(C44/ρ), and the longitudinal one is √(C33/ρ)."""
    case, a = relaxed(mg, "hcp-Mg")
    constants = {v.property: v.value for v in elastic.compute(Bench(mg), case, a)}
    (crystal,) = harmonic(Bench(mg), case, [(a, Phonon(supercell=(4, 4, 4)))])
    cell = conventional_cell(case, a)
    density = cell.get_masses().sum() * _amu / (cell.get_volume() * 1e-30)
    q = 0.05
    slopes = crystal.frequencies([[0, 0, q]])[0][:3] * 1e12 / (q / (a * case.c_over_a * 1e-10))
    expected = np.sqrt(np.array([constants["c44"], constants["c44"], constants["c33"]]) * 1e9 / density)
    assert slopes == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("name", ["hcp-Mg", "omega-Mg"])
def test_phonons_in_a_suite(mg, name):
    settings = Benchmark(properties=["phonon"], cases=[name], phonon=Phonon(supercell=(2, 2, 2), mesh=4))
    records = run_suite(mg, settings, cache_dir=None)
    case = settings.cases[0]
    modes = 3 * len(conventional_cell(case))
    assert len(records) == (modes - 3) + 5 * modes + 3
    assert all(r.value is not None for r in records)


def test_a_property_of_cubic_crystals_says_so(mg, monkeypatch):
    cubic = dataclasses.replace(PROTOCOLS["vacancy"], hexagonal=False)
    monkeypatch.setitem(PROTOCOLS, "vacancy", cubic)
    (record,) = run_suite(mg, Benchmark(properties=["vacancy"], cases=["hcp-Mg"]), cache_dir=None)
    assert record.value is None
    assert "hcp-Mg is hexagonal" in record.reason


def test_what_does_not_ask_for_the_shape_of_the_cell_is_measured_too(mg):
    settings = Benchmark(properties=["magnetic_moment", "speed"], cases=["hcp-Mg"], speed=Speed(duration_s=0.1))
    moment, speed = run_suite(mg, settings, cache_dir=None)
    assert moment.value is None and "predicts no magnetic moments" in moment.reason
    assert speed.value > 0 and speed.converged


def test_cubic_crystals_have_no_c_over_a():
    with pytest.raises(ValueError, match="is cubic"):
        Case(name="x", element="Fe", lattice="bcc", a=2.87, c_over_a=1.6)
