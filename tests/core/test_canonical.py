from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aldriver.core.canonical import canonical, rearranged


def alloy(seed: int = 1) -> Atoms:
    atoms = bulk("Cu", a=3.7, cubic=True) * (2, 2, 1)
    atoms.symbols[::3] = "Au"
    atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + 0.03 * np.eye(3, k=1)), scale_atoms=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def disguised(atoms: Atoms, seed: int = 5) -> tuple[Atoms, np.ndarray]:
    """The same structure: sites in another order, atoms moved by whole cell vectors."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(atoms))
    other = atoms[order]
    images = rng.integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    other.positions += images @ np.asarray(atoms.cell)
    return other, order


@pytest.mark.parametrize("seed", range(5))
def test_order_and_images_do_not_count_and_sites_are_found_again(seed):
    atoms = alloy(seed)
    other, order = disguised(atoms, seed)
    a, b = canonical(atoms), canonical(other)
    assert a.digest == b.digest
    per_site = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    assert np.array_equal(rearranged(per_site, a.order, b.order), per_site[order])
    assert np.array_equal(other.numbers, rearranged(atoms.numbers.astype(float), a.order, b.order))


def test_special_positions_survive_rounding_and_wrapping():
    for atoms in (bulk("Si", a=5.431234567), bulk("Mg", a=3.21, c=5.21) * (3, 3, 2), bulk("Fe", cubic=True) * 3):
        wrapped, _ = disguised(atoms)
        wrapped.wrap()
        noisy = atoms.copy()
        noisy.positions += 1e-9 * np.random.default_rng(1).uniform(-1, 1, noisy.positions.shape)
        assert canonical(atoms).digest == canonical(wrapped).digest == canonical(noisy).digest


def test_what_differs_is_told_apart():
    atoms = alloy()
    moved, swapped, strained, open_ = (atoms.copy() for _ in range(4))
    moved.positions[3, 1] += 1e-5
    swapped.numbers[[0, 1]] = swapped.numbers[[1, 0]]
    strained.set_cell(strained.cell * 1.00001, scale_atoms=True)
    open_.pbc = (True, True, False)
    assert len({canonical(a).digest for a in (atoms, moved, swapped, strained, open_)}) == 5


def test_open_directions_are_not_wrapped_and_molecules_need_no_cell():
    slab = alloy()
    slab.pbc = (True, True, False)
    lifted, sideways = slab.copy(), slab.copy()
    lifted.positions[0] += slab.cell[2]
    sideways.positions[0] -= slab.cell[1]
    assert canonical(lifted).digest != canonical(slab).digest == canonical(sideways).digest
    water = molecule("H2O")
    assert canonical(water).digest == canonical(water[[2, 0, 1]]).digest


def test_frames_without_atoms_or_with_bad_numbers_have_a_digest_too():
    broken = Atoms("Si2", positions=[[0, 0, 0], [np.nan, np.inf, 0]], cell=np.eye(3) * 5, pbc=True)
    flat = Atoms("Si", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True)
    for atoms in (broken, flat, Atoms(), Atoms(cell=np.eye(3) * np.nan, pbc=True)):
        assert len(canonical(atoms).digest) == 24
