"""General knowledge of a potential: small cells of simple crystals near the potential's own equilibrium.

They are what self-distilled replay rehearses and what the forgetting guard watches. Which elements, and what the cells
are used for, is the caller's business. Near equilibrium matters: cells at made-up lattice constants replay nonsense,
which was measured to make forgetting worse, and replay protects only the elements it covers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, chemical_symbols, covalent_radii, reference_states
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.potentials.base import Potential, Prediction

SIMPLE = ("bcc", "fcc", "hcp", "sc", "diamond")
COMPOUNDS = ("B2", "L1_2", "rocksalt")
KEPT = 3
"""Simple crystals an element keeps: those of lowest energy."""
SCAN = np.geomspace(0.74, 1.45, 12)
"""Bond lengths scanned, in the expected one."""
REFINED = np.linspace(-1.0, 1.0, 5)
"""Second scan around the lowest point, in steps of the first."""
STRAIN = 0.04
RATTLES_A = (0.03, 0.15)
SOFT_BOND = 0.06
"""Rattles are never larger than this share of the bond length (hydrogen, carbon)."""
MAX_DEPTH_EV_ATOM = 12.0
"""A minimum further below the far end of the scan is a hole of the network; tungsten's cohesive energy is 8.9."""
MAX_STRESS_GPA = 3.0
MAX_FORCE_EV_A = 0.05
MAX_FORMATION_EV_ATOM = 0.3
SHORTEST_BOND_A = 1.5
"""Floor of the expected bond: crystals of many neighbours are not denser, and would have thousands of edges."""
BATCH_ATOMS = 24
CHUNK = 48
_BOND = {
    "bcc": math.sqrt(3) / 2,
    "fcc": 1 / math.sqrt(2),
    "hcp": 1.0,
    "sc": 1.0,
    "diamond": math.sqrt(3) / 4,
    "B2": math.sqrt(3) / 2,
    "L1_2": 1 / math.sqrt(2),
    "rocksalt": 0.5,
}
"""Nearest-neighbour distance over lattice constant."""
_CONTRACTION = {12: 1.0, 8: 0.97, 6: 0.96, 4: 0.88}
"""Bond length by coordination number, over that of close packing (Goldschmidt's rule for metals)."""
_COORDINATION = {"bcc": 8, "fcc": 12, "hcp": 12, "sc": 6, "diamond": 4, "B2": 8, "L1_2": 12, "rocksalt": 6}
_COPIES = {"bcc": (2, 2, 1), "fcc": (1, 1, 1), "hcp": (2, 2, 1), "sc": (2, 2, 2), "diamond": (1, 1, 1)}
_COPIES |= {"B2": (2, 2, 1), "L1_2": (1, 1, 1), "rocksalt": (1, 1, 1)}


@dataclass(frozen=True, kw_only=True)
class GeneralCells:
    """Cells, and what was left out.

    Attributes
    ----------
    frames
        ``info`` holds ``group`` (``general-Fe``), ``prototype`` (``bcc-Fe``); no labels.
    skipped
        Prototype (or element): why it has no cells.
    """

    frames: list[Atoms]
    skipped: dict[str, str]


@dataclass(kw_only=True)
class _Prototype:
    kind: str
    symbols: tuple[str, ...]
    a: float = math.nan
    energy: float = math.nan
    reason: str = ""

    @property
    def name(self) -> str:
        return f"{self.kind}-{''.join(self.symbols)}"

    def cell(self, a: float) -> Atoms:
        """The smallest cell, lattice constant Å."""
        first, second = self.symbols[0], self.symbols[-1]
        if self.kind in SIMPLE:
            return bulk(first, self.kind, a=a, covera=math.sqrt(8 / 3) if self.kind == "hcp" else None)
        if self.kind == "B2":
            return bulk(first + second, "cesiumchloride", a=a)
        if self.kind == "rocksalt":
            return bulk(first + second, "rocksalt", a=a)
        atoms = bulk(first, "fcc", a=a, cubic=True)
        atoms.symbols[0] = second
        return atoms

    def supercell(self) -> Atoms:
        """4 or 8 atoms, free to move against each other."""
        if self.kind in ("bcc", "fcc", "diamond", "rocksalt"):
            formula = "".join(dict.fromkeys(self.symbols))
            atoms = bulk(formula, self.kind, a=self.a, cubic=True)
        else:
            atoms = self.cell(self.a)
        return atoms * _COPIES[self.kind]


def near_equilibrium_cells(
    potential: Potential,
    elements: Iterable[str],
    *,
    seed: int,
    per_element: int,
    compounds: Collection[str] = (),
) -> GeneralCells:
    """Strained and rattled cells of simple crystals at the potential's own lattice constants.

    Each element gets the :data:`KEPT` of bcc, fcc, hcp, sc and diamond that the potential finds lowest in energy; its
    lattice constant is the minimum of the energy on a scan of the bond length that is nearest to the expected bond.
    Pairs of `compounds` get B2, L1_2 (both ways) and rocksalt where the potential's own stress and forces are small
    there and the formation energy is below :data:`MAX_FORMATION_EV_ATOM`.

    A cell has at most 8 atoms, a random symmetric strain of up to ±4 % and a rattle of 0.03 and 0.15 Å in turn. The
    cells of an element depend on the potential, the seed and the element alone.

    Parameters
    ----------
    per_element
        Cells of each element; each pair of `compounds` gets as many.
    compounds
        Elements whose pairs are wanted too.

    Returns
    -------
    GeneralCells
        Elements the potential does not know, and crystals without a minimum, are named with the reason.
    """
    elements = set(elements)
    wanted = sorted(elements | set(compounds), key=atomic_numbers.__getitem__)
    skipped = {e: f"{potential.name} does not know it" for e in wanted if e not in potential.elements}
    known = [e for e in wanted if e in potential.elements]
    singles = {e: [_Prototype(kind=kind, symbols=(e,)) for kind in SIMPLE] for e in known}
    _find_minima(potential, [p for group in singles.values() for p in group])
    lowest = {e: min((p.energy for p in group if not p.reason), default=math.nan) for e, group in singles.items()}
    groups = {}
    for element, group in singles.items():
        skipped |= {p.name: p.reason for p in group if p.reason}
        if element in elements:
            groups[element] = sorted((p for p in group if not p.reason), key=lambda p: p.energy)[:KEPT]
    pairs = [pair for pair in combinations(known, 2) if set(pair) <= set(compounds)]
    mixed = {a + b: _pair_prototypes(a, b) for a, b in pairs if not math.isnan(lowest[a] + lowest[b])}
    _find_minima(potential, [p for group in mixed.values() for p in group])
    _refuse_strange(potential, [p for group in mixed.values() for p in group], lowest)
    for name, group in mixed.items():
        skipped |= {p.name: p.reason for p in group if p.reason}
        groups[name] = [p for p in group if not p.reason]
    frames = [atoms for name, group in groups.items() if group for atoms in _variants(name, group, seed, per_element)]
    return GeneralCells(frames=frames, skipped=skipped)


def neighbouring_elements(symbols: Iterable[str], known: Collection[str]) -> list[str]:
    """Elements left, right, above and below in the periodic table, those of `known` only; the given ones left out.

    Lanthanides and actinides are rows of their own: the ones above and below each other are neighbours.
    """
    place = {(row, column): z for z, (row, column) in _places().items()}
    given = {atomic_numbers[s] for s in symbols}
    found: set[int] = set()
    for z in given:
        row, column = _places()[z]
        for step in ((0, -1), (0, 1), (-1, 0), (1, 0)):
            neighbour = place.get((row + step[0], column + step[1]))
            if neighbour is not None:
                found.add(neighbour)
    return [chemical_symbols[z] for z in sorted(found - given) if chemical_symbols[z] in known]


def evaluate_each(potential: Potential, cells: Sequence[Atoms], *, stress: bool = False) -> list[Prediction | None]:
    """Predictions of cells; None where the potential cannot read one (an atom without neighbours, say)."""
    predictions: list[Prediction | None] = []
    for start in range(0, len(cells), CHUNK):  # a cell that cannot be read costs no more than its chunk
        chunk = cells[start : start + CHUNK]
        try:
            predictions += potential.evaluate(chunk, stress=stress, batch_atoms=BATCH_ATOMS)
        except AldriverError:
            predictions += [_one(potential, atoms, stress) for atoms in chunk]
    return predictions


def _one(potential: Potential, atoms: Atoms, stress: bool) -> Prediction | None:
    try:
        return potential.evaluate([atoms], stress=stress)[0]
    except AldriverError:
        return None


def distort(atoms: Atoms, rng: np.random.Generator, rattle: float) -> None:
    """Strain a cell (symmetric, every component within ±4 %) and displace its atoms (normal, `rattle` Å), in place."""
    strain = rng.uniform(-STRAIN, STRAIN, (3, 3))
    atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
    atoms.positions += rng.normal(0.0, rattle, atoms.positions.shape)


# ---- lattice constants -----------------------------------------------------------------------------------------------


def _close_packed_bond(element: str) -> float:
    """Expected bond length of an element in close packing (Å), from ase's reference state or the covalent radius."""
    radius = 2.0 * float(covalent_radii[atomic_numbers[element]])
    state: dict[str, Any] = reference_states[atomic_numbers[element]] or {}  # type: ignore[assignment]
    kind = str(state.get("symmetry"))
    bond = float(state["a"]) * _BOND[kind] if kind in SIMPLE else math.inf
    if bond > 1.7 * radius:  # molecules, layers, crystals of many atoms (Mn: a bcc lattice of 29 atoms a point)
        kind, bond = "fcc", radius
    return max(bond / _CONTRACTION[_COORDINATION[kind]], SHORTEST_BOND_A)


def _find_minima(potential: Potential, prototypes: Sequence[_Prototype]) -> None:
    """Set the lattice constant and energy (eV/atom) of each prototype, or the reason why there is none.

    Of several minima the one nearest to the expected bond counts: networks have deep holes where atoms are too close.
    """
    scans = []
    for p in prototypes:
        bond = float(np.mean([_close_packed_bond(s) for s in p.symbols])) * _CONTRACTION[_COORDINATION[p.kind]]
        scans.append(bond / _BOND[p.kind] * SCAN)
    energies = _scan(potential, prototypes, scans)
    inner = []
    for prototype, energy in zip(prototypes, energies, strict=True):
        floor = energy[np.isfinite(energy)][-1:].sum() - MAX_DEPTH_EV_ATOM
        low = (energy[1:-1] >= floor) & (energy[1:-1] <= energy[:-2]) & (energy[1:-1] <= energy[2:])  # NaN is never low
        inside = [int(k) for k in np.flatnonzero(low) + 1]
        if not inside:
            prototype.reason = f"no minimum of the energy between {SCAN[0]:.2f} and {SCAN[-1]:.2f} of the expected bond"
        inner.append(min(inside, key=lambda k: abs(np.log(SCAN[k]))) if inside else 1)
    good = [i for i, p in enumerate(prototypes) if not p.reason]
    fine = [scans[i][inner[i]] * (SCAN[1] / SCAN[0]) ** REFINED for i in good]
    for i, a, energy in zip(good, fine, _scan(potential, [prototypes[i] for i in good], fine), strict=True):
        if not np.isfinite(energy).all():
            prototypes[i].reason = "the energy near the minimum is not finite"
            continue
        prototypes[i].a, prototypes[i].energy = _vertex(a, energy)


def _scan(
    potential: Potential, prototypes: Sequence[_Prototype], scans: Sequence[NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    """Energies (eV/atom) along each scan; NaN where the potential gives none."""
    cells = [p.cell(float(a)) for p, scan in zip(prototypes, scans, strict=True) for a in scan]
    predictions = evaluate_each(potential, cells)
    values = np.array([math.nan if p is None else p.energy / len(a) for p, a in zip(predictions, cells, strict=True)])
    return np.split(values, np.cumsum([len(scan) for scan in scans])[:-1]) if len(scans) else []


def _vertex(a: NDArray[np.float64], energy: NDArray[np.float64]) -> tuple[float, float]:
    """Minimum of the parabola through the lowest point and its neighbours."""
    k = int(np.clip(np.argmin(energy), 1, len(a) - 2))
    c = np.polyfit(a[k - 1 : k + 2] - a[k], energy[k - 1 : k + 2] - energy[k], 2)
    shift = -c[1] / (2 * c[0]) if c[0] > 0 else 0.0
    shift = float(np.clip(shift, a[k - 1] - a[k], a[k + 1] - a[k]))
    return round(float(a[k]) + shift, 4), float(energy[k])


def _pair_prototypes(a: str, b: str) -> list[_Prototype]:
    return [
        _Prototype(kind="B2", symbols=(a, b)),
        _Prototype(kind="rocksalt", symbols=(a, b)),
        _Prototype(kind="L1_2", symbols=(a, a, a, b)),
        _Prototype(kind="L1_2", symbols=(b, b, b, a)),
    ]


def _refuse_strange(potential: Potential, prototypes: Sequence[_Prototype], lowest: dict[str, float]) -> None:
    """Drop compounds that are not near an equilibrium of the potential."""
    kept = [p for p in prototypes if not p.reason]
    predictions = potential.evaluate([p.cell(p.a) for p in kept], batch_atoms=BATCH_ATOMS) if kept else []
    for p, prediction in zip(kept, predictions, strict=True):
        formation = p.energy - float(np.mean([lowest[s] for s in p.symbols]))
        stress = math.inf if prediction.stress is None else float(np.abs(prediction.stress).max()) * EV_A3_TO_GPA
        force = float(np.abs(prediction.forces).max())
        if not stress <= MAX_STRESS_GPA or not force <= MAX_FORCE_EV_A:
            p.reason = f"stress {stress:.1f} GPa, force {force:.2f} eV/Å at the minimum of the scan"
        elif not formation <= MAX_FORMATION_EV_ATOM:
            p.reason = f"formation energy {formation:.2f} eV/atom above {MAX_FORMATION_EV_ATOM}"


# ---- cells -----------------------------------------------------------------------------------------------------------


def _variants(name: str, prototypes: Sequence[_Prototype], seed: int, count: int) -> list[Atoms]:
    numbers = [atomic_numbers[s] for s in sorted({s for p in prototypes for s in p.symbols})]
    rng = np.random.default_rng([seed, *numbers])
    frames = []
    for k in range(count):
        prototype = prototypes[k % len(prototypes)]
        atoms = prototype.supercell()
        rattle = min(RATTLES_A[(k // len(prototypes)) % 2], SOFT_BOND * _BOND[prototype.kind] * prototype.a)
        distort(atoms, rng, rattle)
        atoms.info = {"group": f"general-{name}", "prototype": prototype.name}
        frames.append(atoms)
    return frames


def _places() -> dict[int, tuple[int, int]]:
    """Row and column of each element up to 118; lanthanides and actinides in two rows below the others."""
    places: dict[int, tuple[int, int]] = {1: (1, 1), 2: (1, 18)}
    for row, first, last in ((2, 3, 10), (3, 11, 18), (4, 19, 36), (5, 37, 54), (6, 55, 86), (7, 87, 118)):
        for z in range(first, last + 1):
            if row >= 6 and first + 2 <= z <= first + 16:
                places[z] = (row + 3, z - first + 1)
            elif z - first < 2:
                places[z] = (row, z - first + 1)
            else:
                places[z] = (row, 18 - (last - z))
    return places
