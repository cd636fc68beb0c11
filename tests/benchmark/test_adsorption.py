from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from aldriver.benchmark import adsorption
from aldriver.benchmark.adsorption import FACETS, ends
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_extended import Adsorption
from aldriver.potentials.base import Potential, Prediction

SMALL = Adsorption(facets=["100"], layers=2, images=3)


@pytest.mark.parametrize("facet", FACETS)
def test_both_ends_are_symmetric_about_the_bridge(fcc_cu, facet):
    """Both hydrogen atoms see the same: the molecule lies over a bridge, the atoms on both sides of it."""
    for atoms in ends(fcc_cu, 3.615, facet, Adsorption()):
        assert atoms.get_chemical_symbols()[-2:] == ["H", "H"]
        assert len(atoms) == 18 and len(atoms.constraints[0].index) == 8
        first, second = (np.sort(atoms.get_distances(k, range(16), mic=True))[:3] for k in (16, 17))
        assert first[0] == pytest.approx(second[0], abs=1e-6)
        assert first[0] > 1.5


@pytest.mark.parametrize(("facet", "neighbours"), [("111", 3), ("100", 4)])
def test_an_adsorbed_atom_lies_in_a_hollow(fcc_cu, facet, neighbours):
    _, atoms = ends(fcc_cu, 3.615, facet, Adsorption())
    distances = np.sort(atoms.get_distances(-1, range(16), mic=True))
    assert np.ptp(distances[:neighbours]) < 1e-6 < distances[neighbours] - distances[0]


def morse(r, depth, stiffness, length, cutoff=5.0):
    """Morse potential times a factor that ends at the cutoff, eV, and its derivative."""
    e, cut = np.exp(-stiffness * (r - length)), (1 - (r / cutoff) ** 2) ** 2
    value, slope = depth * ((1 - e) ** 2 - 1), 2 * depth * stiffness * (1 - e) * e
    return value * cut, slope * cut - value * 4 * (r / cutoff**2) * (1 - (r / cutoff) ** 2)


class HydrogenOn(Potential):
    """A metal, with hydrogen that binds by pairs: to itself as in the molecule, and to the metal."""

    name, family, fingerprint = "toy", "toy", "toy0toy0toy0toy0"
    elements = frozenset({"Cu", "H"})

    def __init__(self, metal):
        self.metal = metal

    def evaluate(self, frames, *, stress=True, features=False, batch_atoms=None):
        return [self.one(atoms, stress) for atoms in frames]

    def one(self, atoms, stress):
        atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        light = atoms.numbers == 1
        found = self.metal.evaluate([atoms[~light]], stress=stress)[0]
        forces = np.zeros((len(atoms), 3))
        forces[~light] = found.forces
        first, second, r, apart = neighbor_list("ijdD", atoms, 5.0)
        energy = found.energy
        for both, parameters in ((True, (4.5, 1.95, 0.74)), (False, (0.62, 1.2, 1.85))):
            kept = light[first] & light[second] if both else light[first] ^ light[second]
            value, slope = morse(r[kept], *parameters)
            energy += value.sum() / 2
            np.add.at(forces, first[kept], slope[:, None] * apart[kept] / r[kept, None])
        return Prediction(energy=float(energy), forces=forces, stress=found.stress)


@pytest.fixture
def toy(cu):
    return HydrogenOn(cu)


def test_the_toy_has_the_forces_of_its_energy(toy, fcc_cu):
    _, atoms = ends(fcc_cu, 3.615, "100", SMALL)
    atoms.rattle(0.1, seed=0)
    forces = toy.evaluate([atoms])[0].forces
    for atom in (-1, 5):
        energies = []
        for step in (-1e-4, 1e-4):
            moved = atoms.copy()
            moved.set_constraint()
            moved.positions[atom, 2] += step
            energies.append(toy.evaluate([moved])[0].energy)
        assert forces[atom, 2] == pytest.approx(-(energies[1] - energies[0]) / 2e-4, abs=1e-4)


def test_the_barrier_is_the_pass_of_the_energy_surface(toy, fcc_cu):
    """By symmetry the atoms move alike: with the metal frozen the pass can be found on a map of height and distance."""
    options = SMALL.model_copy(update={"images": 7})
    values = {v.property: v for v in adsorption.compute(Bench(toy), fcc_cu, 3.615, options)}
    assert {name: v.unit for name, v in values.items()} == adsorption.units(fcc_cu, options)
    barrier, energy = values["dissociation_barrier(100)"], values["adsorption_energy(100)"]
    assert barrier.converged and energy.converged
    start, end = ends(fcc_cu, 3.615, "100", options)
    top = start.positions[:-2, 2].max()
    middle, along = end.positions[-2:].mean(axis=0), end.positions[-1] - end.positions[-2]
    along /= np.linalg.norm(along)
    half, height = np.arange(0.32, 1.4, 0.04), np.arange(0.2, 4.01, 0.08)
    surface = np.empty((len(half), len(height)))
    for i, x in enumerate(half):
        for k, z in enumerate(height):
            start.positions[-2:] = [middle - x * along, middle + x * along]
            start.positions[-2:, 2] = top + z
            surface[i, k] = toy.evaluate([start], stress=False)[0].energy
    frozen = lowest_pass(surface) - surface[:, -1].min()
    assert frozen > 0.1
    assert frozen - 0.25 < barrier.value < frozen + 0.02  # the metal gives way, and the map has steps


def lowest_pass(surface):
    """Lowest energy at which the molecule (far above, whatever its bond) and the atoms (far apart) are connected."""
    from scipy.ndimage import label

    minimum = np.unravel_index(np.argmin(surface[:, -1]), surface[:, -1].shape)[0], surface.shape[1] - 1
    apart = np.unravel_index(np.argmin(surface[-8:]), surface[-8:].shape)
    apart = (apart[0] + len(surface) - 8, apart[1])
    for level in np.sort(surface, axis=None):
        regions, _ = label(surface <= level, structure=np.ones((3, 3)))
        if regions[minimum] and regions[minimum] == regions[apart]:
            return level
    raise AssertionError


def test_ends_that_are_none_are_a_reason(toy, fcc_cu, monkeypatch):
    monkeypatch.setattr(adsorption, "APART", 5.0)
    values = adsorption.compute(Bench(toy), fcc_cu, 3.61, SMALL)
    assert [v.converged for v in values] == [False, False]
    assert values[0].value is None and "have become a molecule" in values[0].reason
    monkeypatch.setattr(adsorption, "LONGEST_BOND", 0.1)
    assert "is none" in adsorption.compute(Bench(toy), fcc_cu, 3.61, SMALL)[0].reason
    monkeypatch.setattr(adsorption, "MAX_STEPS", 1)
    assert "stopped after 1 steps" in adsorption.compute(Bench(toy), fcc_cu, 3.61, SMALL)[0].reason


def test_without_hydrogen_or_on_bcc_is_a_reason(cu, fe):
    for potential, case, words in ((cu, "fcc-Cu", "does not know the element H"), (fe, "bcc-Fe", "fcc metals")):
        records = run_suite(potential, Benchmark(properties=["adsorption"], cases=[case]), cache_dir=None)
        assert len(records) == 6
        assert all(r.value is None and words in r.reason for r in records)
