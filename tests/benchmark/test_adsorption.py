from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from scipy.ndimage import label

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


class TwoStates(Potential):
    """A metal, and above it two hydrogen atoms that are the mixture of a molecule and of two adsorbed atoms.

    The two do not see the metal's atoms, so that the way from one to the other is a matter of two coordinates alone.
    """

    name, family, fingerprint = "toy", "toy", "toy0toy0toy0toy0"
    elements = frozenset({"Cu", "H"})

    def __init__(self, metal, atoms):
        self.metal = metal
        self.middle = atoms.positions[-2:].mean(axis=0)
        self.apart = float(np.linalg.norm(atoms.positions[-1] - atoms.positions[-2]))
        x = (atoms.positions[-1] - atoms.positions[-2]) / self.apart
        self.axes = np.array([x, np.cross([0, 0, 1], x), [0, 0, 1]])

    def state(self, bond, height):
        """Energy (eV) at a bond length and a height over the hollows (Å)."""
        molecule = 4.5 * (1 - np.exp(-1.95 * (bond - 0.74))) ** 2 + np.exp(-(height - 0.6) / 0.4)
        atoms = 4.0 * (bond - self.apart) ** 2 + 6.0 * height**2 - 0.4
        return (molecule + atoms) / 2 - np.sqrt((molecule - atoms) ** 2 / 4 + 0.3**2)

    def energy(self, two):
        middle, apart = self.axes @ (two.mean(axis=0) - self.middle), self.axes @ (two[1] - two[0])
        return self.state(apart[0], middle[2]) + 3.0 * (middle[:2] @ middle[:2] + apart[1:] @ apart[1:])

    def evaluate(self, frames, *, stress=True, features=False, batch_atoms=None):
        return [self.one(atoms, stress) for atoms in frames]

    def one(self, atoms, stress):
        light = atoms.numbers == 1
        if not light.any():
            return self.metal.evaluate([atoms], stress=stress)[0]
        metal = Atoms(atoms.numbers[~light], atoms.positions[~light], cell=atoms.cell, pbc=True)
        found, two = self.metal.evaluate([metal], stress=stress)[0], atoms.positions[light]
        forces, step = np.zeros((len(atoms), 3)), 1e-5
        forces[~light] = found.forces
        for k in range(6):
            moved = np.zeros(6)
            moved[k] = step
            moved = moved.reshape(2, 3)
            forces[len(metal) + k // 3, k % 3] = -(self.energy(two + moved) - self.energy(two - moved)) / (2 * step)
        return Prediction(energy=found.energy + float(self.energy(two)), forces=forces, stress=found.stress)


@pytest.fixture
def toy(cu, fcc_cu):
    return TwoStates(cu, ends(fcc_cu, 3.615, "100", SMALL)[1])


def test_the_barrier_is_the_pass_of_the_energy_surface(toy, fcc_cu):
    """The way is one of bond length and height: the pass can be found on a map of both."""
    options = SMALL.model_copy(update={"images": 5})
    values = {v.property: v for v in adsorption.compute(Bench(toy), fcc_cu, 3.615, options)}
    assert {name: v.unit for name, v in values.items()} == adsorption.units(fcc_cu, options)
    barrier, energy = values["dissociation_barrier(100)"], values["adsorption_energy(100)"]
    assert barrier.converged and energy.converged
    far = adsorption.ABOVE - FACETS["100"].height
    bond, height = np.meshgrid(np.arange(0.6, 2.7, 0.01), np.arange(-0.2, far + 0.3, 0.01), indexing="ij")
    surface = toy.state(bond, height)
    above = surface[:, np.abs(height[0] - far).argmin()].min()
    assert energy.value == pytest.approx(surface.min() - above, abs=0.01)
    assert barrier.value == pytest.approx(lowest_pass(surface, height[0], far) - above, abs=0.02)
    assert barrier.value > 1.0


def lowest_pass(surface, height, far):
    """Lowest energy at which the molecule far above and the lowest point, the two atoms, are connected."""
    column = int(np.abs(height - far).argmin())
    molecule, atoms = (int(surface[:, column].argmin()), column), np.unravel_index(surface.argmin(), surface.shape)
    low, high = surface[molecule], surface[molecule] + 5.0
    while high - low > 1e-4:
        level = (low + high) / 2
        regions, _ = label(surface <= level)
        connected = regions[molecule] and regions[molecule] == regions[atoms]
        low, high = (low, level) if connected else (level, high)
    return high


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


def test_a_saddle_point_that_is_another_one_is_a_reason(toy, fcc_cu, monkeypatch):
    """Where the atoms should be on the one side and the molecule on the other it is the other way round, or too early."""
    bench, options = Bench(toy), SMALL.model_copy(update={"images": 5})
    monkeypatch.setattr(adsorption, "ASIDE", -adsorption.ASIDE)
    barrier, energy = adsorption.compute(bench, fcc_cu, 3.615, options)
    assert (barrier.converged, energy.converged) == (False, True)
    assert "the saddle point is another one" in barrier.reason
    monkeypatch.setattr(adsorption, "SADDLE_STEPS", 1)
    barrier, _ = adsorption.compute(bench, fcc_cu, 3.615, options)
    assert not barrier.converged and "stopped after 1 steps" in barrier.reason
