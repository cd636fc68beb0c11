"""Binding energies of pairs of substitutional solutes, by shell of neighbours; a vacancy is a solute too.

E_b(XY) = E(N−2, X Y) + E(N) − E(N−1, X) − E(N−1, Y), negative where the two attract each other: N. K. Mohandas et al.,
doi:10.1007/s11669-025-01225-z, Eq. 4. Positions are relaxed in the cell of the perfect crystal at the potential's own
lattice constant. The perfect cell and the cells of single solutes are shared by all pairs, so that 12 species and 5
shells take 13 + 390 cells, all of them independent. The error is what the last steps of the relaxations gained.

What is refused: a shell that lies half a supercell away, where each solute has its partner on two sides; what is not
trusted: an atom that has left its site, so that the pair is no longer one of that shell. The lattice constant is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import NDArray

from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.cases import conventional_cell, slot, supercell, times
from aldriver.benchmark.measure import Cost, Value
from aldriver.benchmark.relax import Relaxation
from aldriver.benchmark.vacancy import FORCE_TOLERANCE, MAX_STEPS, RATTLE
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_binding import VACANCY, Binding

VERSION = 1
FloatArray = NDArray[np.float64]

SAME_SHELL = 1.0e-3
"""Of the lattice constant: distances that differ by less belong to one shell."""
SHELLS_SEARCHED = 3
"""Cells in each direction in which neighbours are looked for: the fifth shell lies within √3 lattice constants."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two solutes in a shell; `name` is that of its value."""

    x: str
    y: str
    shell: int

    @property
    def name(self) -> str:
        """``binding_energy(Cu-Ni,2)``."""
        return f"binding_energy({self.x}-{self.y},{self.shell})"


def pairs(options: Binding) -> list[Pair]:
    """All pairs of a block, like ones included: a vacancy first, else in alphabetical order."""
    names = sorted(options.solutes, key=lambda s: (s != VACANCY, s))
    return [
        Pair(x=x, y=y, shell=shell)
        for k, x in enumerate(names)
        for y in names[k:]
        for shell in range(1, options.shells + 1)
    ]


def units(_: Case, options: Binding | None) -> dict[str, str]:
    """Names of the values."""
    return {pair.name: "eV" for pair in pairs(options or Binding())}


@dataclass(frozen=True, kw_only=True)
class Host:
    """The perfect supercell, and where the partners of atom 0 sit in it."""

    case: Case
    a: float
    cell: Atoms = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", supercell(self.case, self.a))

    @cached_property
    def shells(self) -> list[int | None]:
        """An atom in each of the five nearest shells of atom 0; None where that shell reaches its own images."""
        offsets = _offsets(self.case, self.a)
        distance = np.linalg.norm(offsets, axis=1)
        return [self._site(offsets[np.abs(distance - r) < SAME_SHELL * self.a]) for r in self.radii]

    @cached_property
    def radii(self) -> list[float]:
        """Distances (Å) of the five nearest shells."""
        ordered = np.sort(np.linalg.norm(_offsets(self.case, self.a), axis=1))
        return [float(r) for r in ordered[np.diff(ordered, prepend=-1.0) > SAME_SHELL * self.a][:5]]

    def _site(self, offsets: FloatArray) -> int | None:
        """An atom at one of these offsets (Å) from atom 0 that no shorter or equally long way around leads to."""
        inverse = np.linalg.inv(np.asarray(self.cell.cell))
        away = (self.cell.positions - self.cell.positions[0]) @ inverse
        for offset in offsets:
            fractional = offset @ inverse
            if (np.abs(fractional) < 0.5 - 1e-6).all():
                off = away - fractional
                return int(np.abs(off - np.round(off)).max(axis=1).argmin())
        return None

    def defective(self, sites: dict[int, str]) -> Atoms:
        """The cell with these species on these sites (rattled as in ``vacancy.py``)."""
        atoms = self.cell.copy()
        gone = [site for site, species in sites.items() if species == VACANCY]
        for site in sites.keys() - gone:
            atoms.symbols[site] = sites[site]
        del atoms[gone]
        if gone and self.case.lattice == "diamond":
            atoms.rattle(stdev=RATTLE, seed=0)
        return atoms

    def left_site(self, relaxed: Relaxation, sites: dict[int, str]) -> str:
        """Which atom is no longer nearest to the site it started from, or nothing."""
        own = np.delete(np.arange(len(self.cell)), [s for s, species in sites.items() if species == VACANCY])
        moved = relaxed.atoms.positions - self.cell.positions[own]
        moved -= np.median(moved, axis=0)
        cell, pbc = self.cell.cell, self.cell.pbc
        half_way = self.radii[0] / 2  # to the nearest site: whoever moved less is still nearest to its own
        for k in np.flatnonzero(np.linalg.norm(moved, axis=1) > half_way):
            to_sites = find_mic(self.cell.positions - self.cell.positions[own[k]] - moved[k], cell, pbc)[1]
            if int(np.argmin(to_sites)) != own[k]:
                return f"{relaxed.atoms.symbols[k]} left its site by {np.linalg.norm(moved[k]):.2f} Å"
        return ""


def compute(bench: Bench, case: Case, a: float, options: Binding) -> list[Value]:
    """``binding_energy(X-Y,shell)`` (eV) of each pair."""
    host = Host(case=case, a=a)
    known = [s for s in options.solutes if s == VACANCY or s in bench.potential.elements]
    wanted = [p for p in pairs(options) if p.x in known and p.y in known and host.shells[p.shell - 1] is not None]
    sites = [{0: s} for s in known] + [{0: p.x, int(host.shells[p.shell - 1] or 0): p.y} for p in wanted]
    slots = [_words(s) for s in known] + [f"{_words(p.x)}-{_words(p.y)} shell {p.shell}" for p in wanted]
    jobs = [
        Job(atoms=host.defective(s), slot=slot(case, words), fmax=FORCE_TOLERANCE, max_steps=MAX_STEPS)
        for s, words in zip(sites, slots, strict=True)
    ]
    jobs.append(Job(atoms=host.cell, slot=slot(case, "perfect"), max_steps=0))
    with bench.measure() as cost:
        *found, perfect = bench.attempt_all(jobs)
    single = dict(zip(known, found, strict=False))
    together = {p: (found[len(known) + k], sites[len(known) + k]) for k, p in enumerate(wanted)}
    return [_value(bench, host, p, perfect, single, together, cost) for p in pairs(options)]


def _value(
    bench: Bench,
    host: Host,
    pair: Pair,
    perfect: Relaxation | str,
    single: dict[str, Relaxation | str],
    together: dict[Pair, tuple[Relaxation | str, dict[int, str]]],
    cost: Cost,
) -> Value:
    unknown = [s for s in dict.fromkeys((pair.x, pair.y)) if s not in single]
    if unknown:
        reason = f"{bench.potential.name} does not know the element{'s' * (len(unknown) > 1)} {', '.join(unknown)}"
        return Value.missing(pair.name, "eV", reason, cost)
    if pair not in together:
        size = times(host.case.supercell)
        reason = f"shell {pair.shell} meets its own periodic images in a {size} cell; take a larger one"
        return Value.missing(pair.name, "eV", reason, cost)
    both, sites = together[pair]
    parts = [both, perfect, single[pair.x], single[pair.y]]
    failed = next((part for part in parts if isinstance(part, str)), "")
    made = [part for part in parts if not isinstance(part, str)]
    if failed:
        return Value.missing(pair.name, "eV", failed, cost)
    reason = next(filter(None, (part.shortfall for part in made)), "") or host.left_site(made[0], sites)
    reason = reason or host.left_site(made[2], {0: pair.x}) or host.left_site(made[3], {0: pair.y})
    return Value(
        property=pair.name,
        value=made[0].energy + made[1].energy - made[2].energy - made[3].energy,
        unit="eV",
        error=sum(part.last_gain for part in made),
        converged=not reason,
        reason=reason,
        cost=cost,
    )


def _offsets(case: Case, a: float) -> FloatArray:
    """Vectors (Å) from atom 0 to its neighbours in the infinite crystal."""
    n = SHELLS_SEARCHED
    block = conventional_cell(case, a).repeat((2 * n + 1,) * 3)
    centre = n * a * np.ones(3) + conventional_cell(case, a).positions[0]
    offsets = block.positions - centre
    return np.asarray(offsets[np.linalg.norm(offsets, axis=1) > SAME_SHELL * a], dtype=np.float64)


def _words(species: str) -> str:
    return "vacancy" if species == VACANCY else species
