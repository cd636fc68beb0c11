"""Self-interstitials: formation energies of dumbbells in bcc, fcc and diamond, and of the open sites of diamond.

Solutes between sites are ``interstitial.py``'s, pairs of self-interstitials ``di_interstitial.py``'s.

Protocol: E_f = E(N+1) − (N+1)/N E(N), positions relaxed from the symmetric configuration at the fixed cell of the
perfect crystal. bcc has the ⟨100⟩, ⟨110⟩ and ⟨111⟩ dumbbells (C.-C. Fu, F. Willaime and P. Ordejón, Phys. Rev. Lett.
92, 175503 (2004)), fcc the ⟨100⟩ dumbbell, diamond the split ⟨110⟩, the hexagonal and the tetrahedral interstitial
(A. P. Bartók et al., Phys. Rev. X 8, 041048 (2018), as in Table 3 of Liu et al., arXiv:2506.07401). The error is what
the last step of the relaxation gained. What has relaxed into another configuration is named, and not converged.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import NDArray

from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.cases import slot, supercell
from aldriver.benchmark.measure import Cost, Value
from aldriver.benchmark.relax import Relaxation
from aldriver.core.recipe_benchmark import Case

VERSION = 1
FloatArray = NDArray[np.float64]

DIRECTIONS = {"100": (1.0, 0.0, 0.0), "110": (1.0, 1.0, 0.0), "111": (1.0, 1.0, 1.0)}
DUMBBELLS = {"bcc": {"100": 0.35, "110": 0.37, "111": 0.36}, "fcc": {"100": 0.3}, "diamond": {"110": 0.23}}
"""Half the distance of the two atoms where the relaxation starts, in lattice constants."""
LOWERED = {"bcc": 0.0, "fcc": 0.0, "diamond": 0.12}
"""How far its middle starts below the site along [001], away from the neighbours it points to, in lattice constants."""
OPEN_SITES = {"diamond": {"tetrahedral": (0.5, 0.5, 0.5), "hexagonal": (0.625, 0.625, 0.625)}}
"""In lattice constants, from an atom whose neighbour is at (¼, ¼, ¼)."""

FORCE_TOLERANCE = 5.0e-3  # eV/Å
MAX_STEPS = 500


def units(case: Case, options: object = None) -> dict[str, str]:
    """Names and units of the values."""
    names = [f"self_interstitial_energy({name})" for name in configurations(case)]
    return dict.fromkeys(names or ["self_interstitial_energy"], "eV")


def configurations(case: Case) -> list[str]:
    """Dumbbells by direction, and open sites by name, that are known of a lattice."""
    return [*DUMBBELLS.get(case.lattice, {}), *OPEN_SITES.get(case.lattice, {})]


def compute(bench: Bench, case: Case, a: float) -> list[Value]:
    """``self_interstitial_energy(...)`` of each configuration of the lattice, eV."""
    perfect = supercell(case, a)
    jobs = {name: _job(case, a, name) for name in configurations(case)}
    bench.relax_all(list(jobs.values()))  # independent: workers share them
    values = []
    for name, job in jobs.items():
        with bench.measure() as cost:
            energy = bench.energy(perfect, slot(case, "perfect"))
            relaxed = bench.relax_all([job])[0]
        formation = relaxed.energy - len(relaxed.atoms) / len(perfect) * energy
        reason = relaxed.shortfall or _changed(case, a, name, relaxed.atoms)
        values.append(formation_value(f"self_interstitial_energy({name})", formation, relaxed, reason, cost))
    return values


def formation_value(name: str, energy: float, relaxed: Relaxation, reason: str, cost: Cost) -> Value:
    """A formation energy (eV) as a value; with a reason it is not to be trusted."""
    return Value(
        property=name, value=energy, unit="eV", error=relaxed.last_gain, converged=not reason, reason=reason, cost=cost
    )


def with_interstitial(case: Case, a: float, name: str) -> Atoms:
    """The supercell with one atom too many, unrelaxed, near the middle of the cell."""
    atoms = supercell(case, a)
    middle = np.array([n // 2 for n in case.supercell]) * a
    if name in OPEN_SITES.get(case.lattice, {}):
        return atoms + Atoms(case.element, positions=[middle + np.array(OPEN_SITES[case.lattice][name]) * a])
    step = DUMBBELLS[case.lattice][name] * a * np.array(DIRECTIONS[name]) / np.linalg.norm(DIRECTIONS[name])
    site = int(np.argmin(np.linalg.norm(atoms.positions - middle, axis=1)))
    centre = middle - [0.0, 0.0, LOWERED[case.lattice] * a]
    atoms.positions[site] = centre - step
    return atoms + Atoms(case.element, positions=[centre + step])


def found_configuration(case: Case, a: float, atoms: Atoms) -> str:
    """Which configuration a relaxed cell with one atom too many is in: a direction, a site, or empty for none of these.

    Each atom belongs to the nearest site of the perfect crystal. Of the two atoms at the site that has two, either both
    have moved, as a dumbbell, or one is at home and the other sits between the sites.
    """
    sites = supercell(case, a).positions
    atoms = atoms.copy()
    away, distance = _from_sites(atoms, sites)
    atoms.positions -= np.median(away[np.arange(len(atoms)), distance.argmin(axis=1)], axis=0)  # the host may drift
    away, distance = _from_sites(atoms, sites)
    nearest = distance.argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(sites))
    (doubled,) = np.nonzero(counts == 2)
    if len(doubled) != 1 or counts.max() > 2:
        return ""
    pair = np.flatnonzero(nearest == doubled[0])
    one, two = sorted(pair, key=lambda k: distance[k, doubled[0]])
    if distance[one, doubled[0]] > 0.3 * distance[two, doubled[0]]:
        return _direction(away[two, doubled[0]] - away[one, doubled[0]])
    return _open_site(case, a, atoms, int(two))


def _job(case: Case, a: float, name: str) -> Job:
    atoms = with_interstitial(case, a, name)
    what = f"self-interstitial {name}"
    return Job(atoms=atoms, slot=slot(case, what), fmax=FORCE_TOLERANCE, max_steps=MAX_STEPS)


def _changed(case: Case, a: float, name: str, atoms: Atoms) -> str:
    now = found_configuration(case, a, atoms)
    if now == name:
        return ""
    into = f"the {_words(now)}" if now else "none of the configurations known"
    return f"the {_words(name)} relaxed into {into}"


def _words(name: str) -> str:
    return f"⟨{name}⟩ dumbbell" if name in DIRECTIONS else f"{name} interstitial"


def _from_sites(atoms: Atoms, sites: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Vector (N, M, 3) and distance (N, M) of each atom from each site, Å."""
    apart = atoms.positions[:, None] - sites[None]
    flat, length = find_mic(apart.reshape(-1, 3), atoms.cell, atoms.pbc)
    return flat.reshape(apart.shape), length.reshape(apart.shape[:2])


def _direction(vector: FloatArray) -> str:
    """The family of directions a dumbbell is nearest to."""
    mine = np.sort(np.abs(vector))[::-1] / np.linalg.norm(vector)
    return max(DIRECTIONS, key=lambda name: float(mine @ DIRECTIONS[name]) / float(np.linalg.norm(DIRECTIONS[name])))


def _open_site(case: Case, a: float, atoms: Atoms, extra: int) -> str:
    """The open site an atom is nearest to."""
    if case.lattice != "diamond":
        return ""
    half, eighth = np.full(3, 0.5), np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 8
    places = {"tetrahedral": np.array([half, half + 0.25]), "hexagonal": half + eighth}
    centring = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    distance = {}
    for name, basis in places.items():
        apart = atoms.positions[extra] / a - (basis[:, None] + centring[None]).reshape(-1, 3)
        distance[name] = float(np.linalg.norm(apart - np.round(apart), axis=1).min())
    return min(distance, key=lambda name: distance[name])
