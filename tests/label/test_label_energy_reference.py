"""The energy reference: exact where energies are sums over atoms, unmoved by strangers, silent where it knows nothing."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aldriver.label.energy_reference import EnergyReference, fit_energies

E0 = {"Fe": -8.4, "Cu": -3.7}


def alloys(n: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    return [Atoms(f"Fe{a}Cu{b}") for a, b in rng.integers(1, 9, (n, 2))]


def energy(frame: Atoms) -> float:
    return sum(E0[s] for s in frame.get_chemical_symbols())


def test_sums_over_atoms_are_found_exactly():
    frames = alloys(12)
    found = fit_energies(frames, [energy(f) for f in frames])
    assert found is not None
    assert found.energies == pytest.approx(E0, abs=1e-6)
    assert found.offset_eV_atom(frames[0], energy(frames[0]) + 3.0 * len(frames[0])) == pytest.approx(3.0, abs=1e-5)


def test_a_minority_with_another_reference_is_told_apart_and_does_not_move_the_rest():
    frames = alloys(40)
    energies = np.array([energy(f) for f in frames])
    strangers = np.arange(0, 40, 4)
    energies[strangers] -= [1000.0 * len(frames[i]) for i in strangers]
    found = fit_energies(frames, energies)
    assert found is not None
    refused = [i for i, f in enumerate(frames) if found.problem(f, energies[i])]
    assert refused == list(strangers)
    assert "shift of +1000." in found.problem(frames[0], energies[0])


def test_the_three_references_of_iron_in_public_data_never_mix():
    # all-electron-like pseudopotentials of two kinds, and VASP's zero of energy
    per_atom = [-8.4, -8.5, -8.3, -4479.9, -3460.9, -8.45]
    frames = [Atoms("Fe2") for _ in per_atom]
    found = fit_energies(frames, [2 * e for e in per_atom])
    assert found is not None
    assert [bool(found.problem(f, 2 * e)) for f, e in zip(frames, per_atom, strict=True)] == [
        False, False, False, True, True, False
    ]  # fmt: skip


def test_of_two_halves_the_earlier_one_stands():
    found = fit_energies([Atoms("Fe"), Atoms("Fe")], [-8.4, -3460.9])
    assert found is not None
    assert not found.problem(Atoms("Fe"), -8.4)
    assert found.problem(Atoms("Fe"), -3460.9)


def test_it_says_nothing_of_compositions_it_was_not_fitted_to():
    frames = [Atoms("Fe53Cu")] * 3
    found = fit_energies(frames, [energy(f) for f in frames])
    assert found is not None
    assert found.offset_eV_atom(frames[0], energy(frames[0])) == pytest.approx(0.0, abs=1e-5)
    # Fe53Cu alone cannot tell what a copper atom has: a good label of another composition must not be lost
    assert found.offset_eV_atom(Atoms("Fe2Cu2"), -4000.0) is None
    assert found.offset_eV_atom(Atoms("Mo"), -4000.0) is None
    # two nearly equal compositions tell it badly: that far away no verdict either
    near = [Atoms("Fe53Cu"), Atoms("Fe54"), Atoms("Fe52Cu2")]
    found = fit_energies(near, [energy(f) for f in near])
    assert found is not None
    assert found.offset_eV_atom(Atoms("Cu"), 0.0) is None


def test_given_energies_judge_every_composition():
    given = EnergyReference(E0)
    assert given.offset_eV_atom(Atoms("FeCu"), -12.1 + 2.0) == pytest.approx(1.0)
    assert fit_energies([], []) is None
