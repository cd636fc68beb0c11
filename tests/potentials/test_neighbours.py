"""Pairs against brute force, and the skin list against fresh ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase.build import bulk, molecule

from aldriver.potentials.neighbours import NeighbourList


def brute_force(atoms, cutoff, images=4):
    """Sorted pair distances from all images within ±`images`."""
    cell = np.asarray(atoms.cell)
    ranges = [range(-images, images + 1) if p else (0,) for p in atoms.pbc]
    found = []
    for shift in itertools.product(*ranges):
        vectors = atoms.positions[None] - atoms.positions[:, None] + np.array(shift) @ cell
        lengths = np.linalg.norm(vectors, axis=2)
        if shift == (0, 0, 0):
            np.fill_diagonal(lengths, np.inf)
        found.append(lengths[lengths < cutoff])
    return np.sort(np.concatenate(found))


def skewed(atoms, seed):
    rng = np.random.default_rng(seed)
    atoms = atoms.copy()
    atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + rng.uniform(-0.25, 0.25, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.2, atoms.positions.shape) + rng.integers(-2, 3, 3) @ np.asarray(atoms.cell)
    return atoms


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cubic", [True, False])
def test_pairs_are_those_of_all_images(seed, cubic):
    atoms = skewed(bulk("Fe", cubic=cubic), seed)
    pairs = NeighbourList(5.0)(atoms.positions, np.asarray(atoms.cell))
    np.testing.assert_allclose(np.sort(pairs.distance), brute_force(atoms, 5.0), atol=1e-10)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False), (False, False, False)])
def test_directions_that_are_not_periodic(pbc):
    atoms = skewed(bulk("Fe", cubic=True) * (2, 2, 1), 1)
    atoms.pbc = pbc
    pairs = NeighbourList(4.0, pbc=pbc)(atoms.positions, np.asarray(atoms.cell))
    np.testing.assert_allclose(np.sort(pairs.distance), brute_force(atoms, 4.0), atol=1e-10)


def test_a_molecule_without_a_cell():
    atoms = molecule("C2H6")
    pairs = NeighbourList(3.0, pbc=False)(atoms.positions, np.asarray(atoms.cell))
    np.testing.assert_allclose(np.sort(pairs.distance), brute_force(atoms, 3.0), atol=1e-10)


def test_left_handed_cell():
    atoms = skewed(bulk("Fe", cubic=True), 2)
    atoms.set_cell(np.asarray(atoms.cell)[[1, 0, 2]])
    pairs = NeighbourList(5.0)(atoms.positions, np.asarray(atoms.cell))
    np.testing.assert_allclose(np.sort(pairs.distance), brute_force(atoms, 5.0), atol=1e-10)


def test_indices_belong_together():
    atoms = skewed(bulk("Fe", cubic=True), 3)
    p = NeighbourList(5.0)(atoms.positions, np.asarray(atoms.cell))
    vectors = (p.frac[p.j] + p.shift - p.frac[p.i]) @ p.cell
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), p.distance, atol=1e-12)
    assert (np.bincount(p.undirected) == 2).all()
    assert (p.undirected[p.directed] == np.arange(len(p.directed))).all()
    for u in range(0, len(p.directed), 17):
        a, b = np.flatnonzero(p.undirected == u)
        assert (p.i[a], p.j[a]) == (p.j[b], p.i[b])
        assert (p.shift[a] == -p.shift[b]).all()


def test_crystal_shells_exactly_at_the_cutoff_stay_symmetric():
    a = 3.0
    atoms = bulk("Cu", "fcc", a=a, cubic=True) * (2, 2, 2)
    for cutoff in (a, a * np.sqrt(2), a * np.sqrt(0.5)):
        p = NeighbourList(cutoff)(atoms.positions, np.asarray(atoms.cell))
        assert len(p.i) == 2 * len(p.directed)


@pytest.mark.parametrize("skin", [0.3, 1.0])
def test_skin_list_equals_a_fresh_one_along_npt_with_wrap_jumps(skin):
    rng = np.random.default_rng(0)
    atoms = bulk("Fe", cubic=True) * (2, 2, 2)
    kept, steps = NeighbourList(5.0, skin=skin), 120
    for step in range(steps):
        atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + rng.normal(0, 0.001, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
        atoms.positions += [0.05, 0, -0.03]  # the whole crystal drifts
        if step % 7 == 0:
            atoms.wrap()
        if step % 11 == 0:
            atoms.positions[step % len(atoms)] += np.asarray(atoms.cell)[step % 3]
        got = kept(atoms.positions, np.asarray(atoms.cell))
        fresh = NeighbourList(5.0)(atoms.positions, np.asarray(atoms.cell))
        for name in ("i", "j", "shift", "undirected", "directed", "frac", "distance"):
            assert np.array_equal(getattr(got, name), getattr(fresh, name)), f"{name} differs at step {step}"
    assert kept.searches < steps / 2, "the list was searched anew nearly every step"
    assert kept.searches > 1, "the walk was too short to leave the skin"


def test_another_number_of_atoms_searches_anew():
    kept = NeighbourList(5.0, skin=1.0)
    small, large = bulk("Fe"), bulk("Fe", cubic=True)
    kept(small.positions, np.asarray(small.cell))
    got = kept(large.positions, np.asarray(large.cell))
    np.testing.assert_allclose(np.sort(got.distance), brute_force(large, 5.0), atol=1e-10)
