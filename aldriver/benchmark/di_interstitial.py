"""Di-interstitials of diamond crystals: formation energies of six pairs of self-interstitials.

Single ones are ``self_interstitial.py``'s.

Protocol: E_f = E(N+2) − (N+2)/N E(N), positions and cell relaxed together. TT: two atoms on neighbouring tetrahedral
sites. XT and W: three atoms share a site, in XT with a threefold axis, each pushed away from one neighbour, in W as a
split pair with the third atom below. XEX: split pairs side by side on neighbouring sites. EXT: five atoms on three
sites. XX3: two atoms in the middle of a hexagonal ring, which has opened. Names, free cell and energies after
A. P. Bartók et al., Phys. Rev. X 8, 041048 (2018), and their test set (github.com/libAtoms/silicon-testing-framework,
tests/diinterstitial-64-energy), from whose structures these descriptions are drawn; Table 4 of Liu et al.,
arXiv:2506.07401, has deviations from them. The error is what the last step of the relaxation gained.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import slot, supercell
from aldriver.benchmark.free_cell import relax_cell
from aldriver.benchmark.measure import Value
from aldriver.benchmark.self_interstitial import FORCE_TOLERANCE, MAX_STEPS, formation_value
from aldriver.core.errors import AldriverError
from aldriver.core.recipe_benchmark import Case

VERSION = 1

Place = tuple[float, float, float]
STRUCTURES: dict[str, tuple[list[Place], list[Place]]] = {
    "TT": ([], [(0.5, 0.5, 0.5), (0.75, 0.75, 0.75)]),
    "XT": ([(0, 0, 0)], [(-0.16, 0.16, 0.16), (0.16, -0.16, 0.16), (-0.16, -0.16, -0.16)]),
    "W": ([(0, 0, 0)], [(0.155, -0.155, 0.1), (-0.155, 0.155, 0.1), (0, 0, -0.3)]),
    "XEX": (
        [(0, 0, 0), (-0.25, -0.25, 0.25), (-0.25, 0.25, -0.25), (0.25, -0.25, -0.25)],
        [(-0.21, 0.21, 0.02), (0.21, -0.21, 0.02), (-0.39, -0.11, 0.2), (-0.11, -0.39, 0.2),
         (-0.16, 0.16, -0.34), (0.16, -0.16, -0.34)],
    ),
    "EXT": (
        [(0, 0, 0), (-0.25, 0.25, -0.25), (0.25, -0.25, -0.25)],
        [(-0.16, 0.16, 0.06), (-0.14, 0.15, -0.35), (0.16, -0.16, -0.37), (0.24, -0.2, 0.05), (0.59, -0.18, -0.18)],
    ),
    "XX3": (
        [(1, 0.5, 0.5), (0.5, 1, 0.5), (0.5, 0.5, 1), (0.25, 0.75, 0.75), (0.75, 0.25, 0.75), (0.75, 0.75, 0.25)],
        [(0.625 + sign * x, 0.625 + sign * y, 0.625 + sign * z) for sign in (1, -1) for x, y, z in
         ((0.18, 0.06, -0.085), (0.46, -0.225, -0.05), (-0.18, 0.45, -0.18), (0.055, 0.21, -0.445))],
    ),
}  # fmt: skip
"""Atoms taken out of the crystal, and put into it, in lattice constants from an atom with a neighbour at (¼, ¼, ¼)."""
PROPERTIES = {f"di_interstitial_energy({name})": "eV" for name in STRUCTURES}
FARTHEST = 0.2  # lattice constants: the structures above are at least twice that apart


def compute(bench: Bench, case: Case, a: float) -> list[Value]:
    """``di_interstitial_energy(...)`` of each configuration, eV.

    Raises
    ------
    AldriverError
        For a lattice other than diamond.
    """
    if case.lattice != "diamond":
        raise AldriverError(f"these di-interstitials are those of diamond, not of {case.lattice}")
    perfect = supercell(case, a)
    values = []
    for name in STRUCTURES:
        start, what = with_pair(case, a, name), f"di-interstitial {name}"
        with bench.measure() as cost:
            energy = bench.energy(perfect, slot(case, "perfect"))
            relaxed = relax_cell(bench, start, slot(case, what), fmax=FORCE_TOLERANCE, max_steps=MAX_STEPS)
        formation = relaxed.energy - len(relaxed.atoms) / len(perfect) * energy
        reason = relaxed.shortfall or _moved(a, name, start, relaxed.atoms)
        values.append(formation_value(f"di_interstitial_energy({name})", formation, relaxed, reason, cost))
    return values


def with_pair(case: Case, a: float, name: str) -> Atoms:
    """The supercell with two atoms too many, unrelaxed; those of the defect are the last ones."""
    atoms = supercell(case, a)
    middle = np.array([n // 2 for n in case.supercell]) * a
    out, put = (np.array(places).reshape(-1, 3) * a + middle for places in STRUCTURES[name])
    del atoms[[int(find_mic(atoms.positions - place, atoms.cell)[1].argmin()) for place in out]]
    return atoms + Atoms(numbers=[atoms.numbers[0]] * len(put), positions=put)


def _moved(a: float, name: str, start: Atoms, relaxed: Atoms) -> str:
    """Why a relaxed cell no longer holds the structure it began with; empty when it does."""
    count = len(STRUCTURES[name][1])
    back = relaxed.copy()
    back.set_cell(start.cell, scale_atoms=True)
    moved, _ = find_mic(back.positions - start.positions, start.cell, start.pbc)
    moved -= np.median(moved, axis=0)  # the host may drift
    farthest = float(np.linalg.norm(moved[-count:], axis=1).max())
    if farthest < FARTHEST * a:
        return ""
    return f"the {name} di-interstitial relaxed into another one: one of its atoms moved {farthest:.2f} Å"
