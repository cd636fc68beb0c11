"""Binding energies against energies made another way, and the geometry of the shells."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.optimize import FIRE

import aldriver
from aldriver.benchmark import binding
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.binding import Host, pairs
from aldriver.benchmark.cases import case_by_name, supercell
from aldriver.benchmark.relax import Relaxation
from aldriver.benchmark.suite import relaxations, run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_binding import Binding

STEEL = ["Al", "Cr", "Cu", "Nb", "Ni", "Mo", "Si", "Sn", "Ti", "V", "Zn", "vac"]
A = 2.8553  # of the Mendelev iron that these potentials of alloys contain


@pytest.fixture(scope="module")
def fev():
    """Mendelev, Han, Son, Ackland, Srolovitz, Phys. Rev. B 76, 214105 (2007), as we know it: the file does not say."""
    return aldriver.load("eam:VFe_mm.eam.fs")


@pytest.fixture(scope="module")
def bcc128():
    return case_by_name("bcc-Fe")


@pytest.fixture(scope="module")
def found(fev, bcc128):
    options = Binding(solutes=["V", "vac", "Fe", "Sn"])
    return {v.property: v for v in binding.compute(Bench(fev), bcc128, A, options)}


def relaxed_energy(potential, atoms):
    atoms.calc = potential.calculator()
    FIRE(atoms, logfile=None).run(fmax=1e-3, steps=1000)
    return atoms.get_potential_energy()


@pytest.mark.parametrize(
    ("name", "where"), [("V-V,2", (1, 0, 0)), ("vac-V,1", (0.5, 0.5, 0.5)), ("vac-vac,3", (1, 1, 0))]
)
def test_a_pair_is_the_difference_of_four_energies(found, fev, bcc128, name, where):
    """Eq. 4 of Mohandas et al. with cells, sites and optimiser made here."""
    x, y = name.split(",")[0].split("-")

    def energy(*solutes):
        atoms = supercell(bcc128, A)
        for species, site in solutes:
            k = int(np.linalg.norm(atoms.positions - A * np.array(site), axis=1).argmin())
            if species == "vac":
                del atoms[k]
            else:
                atoms.symbols[k] = species
        return relaxed_energy(fev, atoms)

    centre = (2, 2, 2)
    there = tuple(np.add(centre, where))
    # the vacancy last: taking an atom out moves the others' numbers
    pair = sorted([(x, centre), (y, there)], key=lambda s: s[0] == "vac")
    expected = energy(*pair) + energy() - energy((x, centre)) - energy((y, centre))
    assert found[f"binding_energy({name})"].value == pytest.approx(expected, abs=1e-3)


def test_an_atom_of_the_host_binds_to_nothing(found):
    assert [found[f"binding_energy({pair},{s})"].value for pair in ("Fe-V", "vac-Fe") for s in range(1, 6)] == (
        pytest.approx([0.0] * 10, abs=1e-8)
    )


def test_what_is_known_is_computed_and_the_rest_says_why(found):
    assert all(v.converged for name, v in found.items() if "Sn" not in name)
    unknown = [v for name, v in found.items() if "Sn" in name]
    assert len(unknown) == 20
    assert all(v.value is None and not v.converged and "does not know the element Sn" in v.reason for v in unknown)


def test_iron_divacancies_attract_most_as_second_neighbours(found):
    """Two vacancies that are neighbours break fewer bonds. That second ones bind more is as we know it of bcc iron."""
    near = [found[f"binding_energy(vac-vac,{s})"].value for s in (1, 2, 3)]
    assert near[1] < near[0] < 0
    assert abs(near[2]) < 0.05


@pytest.mark.slow
def test_chgnet_has_the_sign_of_the_paper(chgnet020, bcc_fe):
    """Mohandas et al. 2026, section 3.3: that MACE forgot shows in an attraction of Nb to Nb; CHGNet has none."""
    options = Binding(solutes=["Nb"], shells=1)
    values = binding.compute(Bench(chgnet020), bcc_fe, 2.8489, options)
    assert all(v.converged and v.value > 0.1 for v in values)
    assert values[0].cost.force_calls <= 12 * 3


def test_all_of_steel_in_403_relaxations(bcc128):
    options = Binding(solutes=STEEL)
    assert len(pairs(options)) == len(binding.units(bcc128, options)) == 390
    assert relaxations(Benchmark(properties=["binding"], cases=[bcc128], binding=options)) == 403


@pytest.mark.parametrize("name", ["bcc-Fe", "fcc-Cu", "diamond-Si"])
def test_the_vacancy_is_that_of_the_formation_energy(name):
    case = case_by_name(name)
    alone = relaxations(Benchmark(properties=["binding"], cases=[case]))
    assert relaxations(Benchmark(properties=["vacancy", "binding"], cases=[case])) == alone


def test_names_do_not_depend_on_the_order_of_the_solutes(bcc128):
    names = list(binding.units(bcc128, Binding(solutes=["Ni", "vac", "Cu"], shells=2)))
    assert names == list(binding.units(bcc128, Binding(solutes=["Cu", "Ni", "vac"], shells=2)))
    assert {"binding_energy(vac-vac,1)", "binding_energy(vac-Cu,2)", "binding_energy(Cu-Ni,2)"} <= set(names)


@pytest.mark.parametrize(
    ("name", "size", "squares"),
    [
        ("bcc-Fe", 4, [3 / 4, 1, 2, 11 / 4, 3]),
        ("fcc-Cu", 4, [1 / 2, 1, 3 / 2, 2, 5 / 2]),
        ("diamond-Si", 3, [3 / 16, 1 / 2, 11 / 16, 1, 19 / 16]),
    ],
)
def test_shells_are_those_of_the_crystal(name, size, squares):
    case = case_by_name(name, supercell=(size,) * 3)
    host = Host(case=case, a=case.a)
    distances = [host.cell.get_distance(0, site, mic=True) for site in host.shells]
    assert np.square(distances) / case.a**2 == pytest.approx(squares)


@pytest.mark.parametrize(("name", "shell"), [("fcc-Cu", 5), ("diamond-Si", 4)])
def test_a_shell_that_meets_its_own_images_is_refused(name, shell):
    """Half a supercell away the partner sits on both sides: the energy would be that of two pairs."""
    case = case_by_name(name)
    host = Host(case=case, a=case.a)
    assert [k + 1 for k, site in enumerate(host.shells) if site is None] == [shell]
    away = host.cell.get_all_distances(mic=True)[0]
    neighbours = {5: 24, 4: 6}[shell]  # in the crystal; here each is its own image on the other side
    assert np.isclose(away, host.radii[shell - 1]).sum() == neighbours / 2


def test_the_refused_shell_is_a_record(cu, fcc_cu):
    records = run_suite(cu, Benchmark(properties=["binding"], cases=[fcc_cu]), cache_dir=None)
    assert [r.property for r in records] == [f"binding_energy(vac-vac,{s})" for s in range(1, 6)]
    assert all(r.converged for r in records[:4])
    assert records[4].value is None and "take a larger one" in records[4].reason
    assert records[0].value < 0  # two neighbouring vacancies break one bond less than two apart


def test_an_atom_that_left_its_site_is_noticed(bcc128):
    host = Host(case=bcc128, a=A)
    sites = {0: "vac", host.shells[0]: "V"}
    start = host.defective(sites)
    there = Relaxation(atoms=start.copy(), energy=0.0, last_gain=0.0, fmax=0.0, steps=1, converged=True)
    v = list(start.symbols).index("V")
    to_vacancy = host.cell.get_distance(host.shells[0], 0, mic=True, vector=True)
    there.atoms.positions += 0.7  # the crystal as a whole may drift
    assert host.left_site(there, sites) == ""
    there.atoms.positions[v] += 0.45 * to_vacancy
    assert host.left_site(there, sites) == ""
    there.atoms.positions[v] += 0.1 * to_vacancy
    assert "V left its site by 1.36 Å" in host.left_site(there, sites)


def test_a_pair_that_fails_takes_nothing_else_with_it(fev, changed, bcc128):
    def fails(atoms, prediction):
        if list(atoms.symbols).count("V") == 2:
            return dataclasses.replace(prediction, energy=float("nan"))
        return prediction

    options = Binding(solutes=["V", "vac"], shells=1)
    values = {v.property: v for v in binding.compute(Bench(changed(fev, fails)), bcc128, A, options)}
    assert "not finite" in values["binding_energy(V-V,1)"].reason
    assert values["binding_energy(V-V,1)"].value is None
    assert values["binding_energy(vac-V,1)"].converged and values["binding_energy(vac-vac,1)"].converged


def test_a_step_limit_is_no_value_to_trust(fev, bcc128, monkeypatch):
    monkeypatch.setattr(binding, "MAX_STEPS", 2)
    (value,) = binding.compute(Bench(fev), bcc128, A, Binding(solutes=["V"], shells=1))
    assert not value.converged and "stopped after 2 steps" in value.reason


@pytest.mark.parametrize("solutes", [["Xx"], ["Cu", "Cu"], []])
def test_bad_solutes_are_refused(solutes):
    with pytest.raises(ValueError, match="Xx|Cu|at least 1"):
        Binding(solutes=solutes)
