"""Systems: cells built from the recipe (bulk or file, supercell, vacancies, solutes). Moves no atom afterwards."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk as ase_bulk
from ase.io import read

from aldriver.core.errors import InputError
from aldriver.core.recipe import Bulk, Recipe, System


def crystal(spec: Bulk) -> Atoms:
    """Perfect crystal of a recipe's `bulk` block, without magnetic moments."""
    cubic = spec.cubic and spec.lattice in ("bcc", "fcc", "diamond", "sc")
    cell = ase_bulk(spec.element, spec.lattice, a=spec.a, c=spec.c, cubic=cubic)
    cell.set_initial_magnetic_moments(None)
    return cell


def build_system(spec: System, *, seed: int = 0) -> Atoms:
    """Starting cell of a system; substituted and removed sites are drawn from `seed`, reproducibly.

    Raises
    ------
    InputError
        When the file cannot be read, has no cell, or has too few sites for the vacancies and solutes.
    """
    if spec.file is not None:
        try:
            atoms = read(spec.file, index=-1)
        except Exception as error:
            raise InputError(f"{spec.file}: cannot be read as a structure ({error})") from error
        assert isinstance(atoms, Atoms)
        if atoms.cell.rank < 3:
            raise InputError(f"{spec.file}: has no three-dimensional cell; aldriver needs a periodic cell")
    else:
        atoms = crystal(spec.bulk)  # type: ignore[arg-type]
    atoms = atoms.repeat(spec.supercell)
    atoms.pbc = spec.periodic
    wanted = sum(spec.solutes.values()) + spec.vacancies
    if wanted >= len(atoms):
        raise InputError(f"system '{spec.name}': {wanted} vacancies and solutes do not fit into {len(atoms)} sites")
    sites = np.random.default_rng(seed).permutation(len(atoms))
    for element, count in spec.solutes.items():
        for site in sites[:count]:
            atoms.symbols[site] = element
        sites = sites[count:]
    del atoms[list(sites[: spec.vacancies])]
    atoms.info = {"system": spec.name}
    return atoms


def build_systems(recipe: Recipe) -> list[Atoms]:
    """All starting cells of a recipe, in its order."""
    return [build_system(s, seed=recipe.seed) for s in recipe.systems]
