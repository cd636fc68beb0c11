"""Test cells for the campaigns with real DFT, made without the campaigns' MD or potentials.

Owns where they come from: MD with a classical potential, images of a vacancy hop, strains. Labelling them and comparing
potentials on them is ``real_campaigns.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator

from aldriver.core.frames import bare

SETTLE, EVERY, FRAMES = 250, 150, 3
"""MD steps before the first frame, between frames, and frames of a walker."""
TIMESTEP_FS = 2.0
FRICTION_PER_FS = 0.01
STRAIN, SHEAR = 0.02, 0.01
"""Largest isotropic strain and largest other strain component of a walker's cell."""
HOPS = (0.1, 0.3, 0.45, 0.55, 0.7, 0.9)
"""How far the hopping neighbour has gone; the path is symmetric, the other atoms' displacements are not."""
HOP_RATTLE_A = 0.04
CONSTANTS = {
    "settle": SETTLE,
    "every": EVERY,
    "frames": FRAMES,
    "timestep_fs": TIMESTEP_FS,
    "friction_per_fs": FRICTION_PER_FS,
    "strain": STRAIN,
    "shear": SHEAR,
    "hops": HOPS,
    "hop_rattle_A": HOP_RATTLE_A,
}


@dataclass(frozen=True, kw_only=True)
class Classical:
    """A classical potential that comes with LAMMPS: its pair style and file."""

    style: str
    file: str

    def calculator(self, element: str) -> Calculator:
        """ASE calculator of it (LAMMPS in this process)."""
        from aldriver.potentials.lammps_library import import_lammps, potential_file

        import_lammps()
        from ase.calculators.lammpslib import LAMMPSlib

        commands = [f"pair_style {self.style}", f'pair_coeff * * "{potential_file(self.file)}" {element}']
        return LAMMPSlib(lmpcmds=commands, atom_types={element: 1}, keep_alive=True)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where the test cells of a campaign come from.

    Attributes
    ----------
    classical
        What moves the atoms.
    warm_K
        Temperatures within the campaign's, of the classes ``bulk`` and ``vacancy``.
    hot_K
        One beyond them, of the class ``hot``.
    other, other_cubic
        Repeats of the primitive, or the conventional, cell that makes the perfect cell of the class ``other``.
    """

    classical: Classical
    warm_K: tuple[float, ...]
    hot_K: float
    other: tuple[int, int, int]
    other_cubic: bool


def make_cells(plan: Plan, bulk: Atoms, other: Atoms) -> list[Atoms]:
    """Test cells, ``info['group']`` naming their class: ``bulk``, ``vacancy``, ``hop``, ``hot``, ``other``.

    Parameters
    ----------
    bulk
        The campaign's perfect cell; the vacancy is its first site.
    other
        A perfect cell of another size or shape, for the class ``other`` (with a vacancy too).
    """
    vacancy = with_vacancy(bulk)
    cells: list[Atoms] = []
    for temperature in plan.warm_K:
        cells += _walk(plan, bulk, temperature, group="bulk", seed=len(cells))
        cells += _walk(plan, vacancy, temperature, group="vacancy", seed=len(cells))
    cells += [_named(cell, "hop") for cell in hop_images(bulk)]
    for start in (bulk, vacancy):
        cells += _walk(plan, start, plan.hot_K, group="hot", seed=len(cells))
    return cells + _walk(plan, with_vacancy(other), max(plan.warm_K), group="other", seed=len(cells))


def with_vacancy(atoms: Atoms) -> Atoms:
    """A copy without its first atom."""
    return atoms[1:]


def hop_images(bulk: Atoms) -> list[Atoms]:
    """Cells on the straight path of a nearest neighbour into the vacancy, the other atoms displaced at random."""
    distances = bulk.get_distances(0, range(len(bulk)), mic=True)
    distances[0] = np.inf
    neighbour = int(np.argmin(distances))
    path = bulk.get_distance(neighbour, 0, mic=True, vector=True)
    images = []
    for k, way in enumerate(HOPS):
        image = bulk.copy()
        image.rattle(HOP_RATTLE_A, seed=k)
        image.positions[neighbour] = bulk.positions[neighbour] + way * path
        del image[0]
        images.append(image)
    return images


def deformed(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """A copy under a random strain: isotropic within ±`STRAIN`, each component within ±`SHEAR` of that."""
    strain = rng.uniform(-STRAIN, STRAIN) * np.eye(3) + _symmetric(rng.uniform(-SHEAR, SHEAR, (3, 3)))
    out = atoms.copy()
    out.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    return out


def _symmetric(matrix: Any) -> Any:
    return 0.5 * (matrix + matrix.T)


def _walk(plan: Plan, start: Atoms, temperature_K: float, *, group: str, seed: int) -> list[Atoms]:
    """Frames of constant-volume Langevin dynamics in a strained cell."""
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import thermalize_momenta

    rng = np.random.default_rng(seed)
    atoms = deformed(start, rng)
    atoms.calc = plan.classical.calculator(atoms.get_chemical_symbols()[0])
    thermalize_momenta(atoms, temperature_K, rng=rng)
    dynamics = Langevin(
        atoms,
        TIMESTEP_FS * units.fs,
        temperature_K=temperature_K,
        friction=FRICTION_PER_FS / units.fs,
        rng=rng,
        fixcm=False,
    )
    dynamics.run(SETTLE)
    frames = []
    for _ in range(FRAMES):
        dynamics.run(EVERY)
        frames.append(_named(atoms, group))
    return frames


def _named(atoms: Atoms, group: str) -> Atoms:
    cell = bare(atoms)
    cell.info = {"group": group}
    return cell


def classes(frames: Sequence[Atoms]) -> dict[str, int]:
    """Number of frames of each class."""
    counts: dict[str, int] = {}
    for frame in frames:
        counts[str(frame.info["group"])] = counts.get(str(frame.info["group"]), 0) + 1
    return counts
