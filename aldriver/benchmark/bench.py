"""The bench a property is measured on: relaxations, forces and bands, each made once, kept, shared and warm-started.

What is relaxed, and what follows from it, is the property modules' business; where finished work is kept is
``store.py``'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aldriver.benchmark.measure import Cost, CountingPotential
from aldriver.benchmark.relax import OptimizerName, Relaxation, relax_positions
from aldriver.benchmark.store import Kept, Store
from aldriver.core.errors import AldriverError, StoreError
from aldriver.core.frames import frame_hash
from aldriver.core.records import jsonable
from aldriver.potentials.base import Potential

VERSION = 2
"""Of how relaxations are made: a change that changes results asks for another, and nothing kept is used any more."""

Item = TypeVar("Item")
T = TypeVar("T")


class _Slotted(Protocol):
    @property
    def slot(self) -> str: ...


J = TypeVar("J", bound=_Slotted)


class InFlight(Exception):
    """Another worker is making what was asked for, and this one has other work to do meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Anything that is made as a whole and kept: a relaxation, the forces on a cell, a band.

    Attributes
    ----------
    slot, numbers
        As of a relaxation; `numbers` are the species.
    make
        Makes it. What it took is added to its facts.
    """

    slot: str
    numbers: Sequence[int]
    make: Callable[[], Kept]

    @classmethod
    def on(cls, job: Job, make: Callable[[], Kept]) -> Work:
        """What is made of the cell of a job."""
        return cls(slot=job.slot, numbers=job.atoms.numbers.tolist(), make=make)


OnRelaxation = Callable[[str], None]
"""Called with the slot of each relaxation that is there, made now or before."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A relaxation to make: of the positions of `atoms` in their fixed cell, or with no steps a single energy.

    Attributes
    ----------
    atoms
        Where it starts. Constraints on the atoms are kept to and count as part of the job.
    slot
        What it is in words, the same for every potential: ``bcc-Fe 4x4x4 Cu-Ni shell 2``. The relaxation of the same
        slot with the previous potential is where this one starts.
    fmax, max_steps
        Largest force to reach, eV/Å, and the steps allowed.
    """

    atoms: Atoms
    slot: str
    fmax: float = 5.0e-3
    max_steps: int = 300
    optimizer: OptimizerName = "lbfgs"


class Bench:
    """A potential with its store of finished work.

    Parameters
    ----------
    store
        Where finished relaxations are kept; None keeps them for as long as this object lives.
    warm
        Start from the relaxed geometry of the previous potential where there is one.
    worker, workers
        Which of how many workers this is: each begins at another place of the same list, and they never do the same.

    Attributes
    ----------
    potential
        Counts the force calls that were really made.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        store: Store | None = None,
        warm: bool = True,
        worker: int = 0,
        workers: int = 1,
        on_relaxation: OnRelaxation = lambda slot: None,
    ) -> None:
        self.potential = CountingPotential(potential)
        self.store, self.warm = store, warm
        self.worker, self.workers = worker, workers
        self._patient = True  # waits for what another worker is making
        self.on_relaxation = on_relaxation
        self._here: dict[str, Kept] = {}
        self._there: set[str] = set()
        self._counted: set[str] = set()
        self._reused = Cost()

    def relax(self, atoms: Atoms, slot: str, **settings: Any) -> Relaxation:
        """Relax the positions of one cell (`settings` as in :class:`Job`)."""
        return self.relax_all([Job(atoms=atoms, slot=slot, **settings)])[0]

    def energy(self, atoms: Atoms, slot: str) -> float:
        """Energy of a cell as it is, eV."""
        return self.relax(atoms, slot, max_steps=0).energy

    def relax_all(self, jobs: Sequence[Job]) -> list[Relaxation]:
        """Relax independent cells, in the order of `jobs`; those that are there are not made again.

        With several workers each makes those that no other is making, and waits for the rest at the end.

        Raises
        ------
        AldriverError
            When the potential gives numbers that are not finite.
        StoreError
            When the store cannot be written.
        """
        works = [self._relaxation(job) for job in jobs]
        kept = self.share([self.key(job) for job in jobs], works, self._one)
        return [_from_kept(k, job.atoms) for k, job in zip(kept, jobs, strict=True)]

    def attempt_all(self, jobs: Sequence[Job]) -> list[Relaxation | str]:
        """As :meth:`relax_all`; one that fails is a reason in its place, and the others go on.

        Raises
        ------
        StoreError
            When the store cannot be written.
        """

        def one(key: str, job: Job) -> Relaxation | str:
            try:
                return _from_kept(self._one(key, self._relaxation(job)), job.atoms)
            except StoreError:
                raise
            except AldriverError as error:
                return str(error)

        return self.share([self.key(job) for job in jobs], jobs, one)

    def forces(self, jobs: Sequence[Job]) -> list[NDArray[np.float64]]:
        """Forces (N, 3), eV/Å, on all atoms of each cell as it is, whatever holds them; kept and shared as relaxations.

        Raises
        ------
        AldriverError
            When the potential gives numbers that are not finite.
        StoreError
            When the store cannot be written.
        """
        keys = [f"forces-{self.key(replace(job, max_steps=0))}" for job in jobs]
        works = [Work.on(job, partial(self._evaluate, job)) for job in jobs]
        return [kept.displacement for kept in self.share(keys, works, self._one)]

    def share(self, keys: Sequence[str], jobs: Sequence[J], one: Callable[[str, J], T]) -> list[T]:
        """What `one` gives for each job, by key: as :meth:`each`, and for a key that comes twice once."""
        todo = dict(zip(keys, jobs, strict=True))

        def make(key: str) -> T:
            made = one(key, todo[key])
            self._there.add(key)
            self.on_relaxation(todo[key].slot)
            return made

        found = dict(zip(todo, self.each(list(todo), make), strict=True))
        return [found[key] for key in keys]

    def each(self, items: Sequence[Item], make: Callable[[Item], T]) -> list[T]:
        """`make` of each of some independent items; those that need what another worker is making come last.

        Each worker begins at another place of the list. It waits for another one only when nothing else is left: of
        the items here and, where this is part of an item of another :meth:`each`, of those there.
        """
        found: dict[int, T] = {}
        start = self.worker * len(items) // max(self.workers, 1)
        todo = [*range(start, len(items)), *range(start)]
        patient = self._patient
        try:
            while todo:
                self._patient, before = False, len(todo)
                for k in list(todo):
                    with suppress(InFlight):
                        found[k] = make(items[k])
                        todo.remove(k)
                if len(todo) == before:
                    self._patient = patient
                    found[todo[0]] = make(items[todo[0]])
                    del todo[0]
        finally:
            self._patient = patient
        return [found[k] for k in range(len(items))]

    def once(
        self,
        what: Mapping[str, Any],
        slot: str,
        numbers: Sequence[int],
        begin: Kept,
        make: Callable[[Kept], Kept],
    ) -> Kept:
        """Work other than a relaxation, made once, kept and shared like one.

        Parameters
        ----------
        what
            All that decides the result, besides the potential.
        slot, numbers
            As of a relaxation; `numbers` are the species.
        begin
            Where it begins with the first potential; with a later one it begins at what the previous one ended with.
        make
            Makes it from there. The facts get what it cost.

        Raises
        ------
        AldriverError, StoreError
            As :meth:`relax_all`.
        """
        key = _digest({"version": VERSION, "potential": self.potential.fingerprint, **what})
        work = Work(slot=slot, numbers=numbers, make=lambda: make(self._previous(slot, numbers) or begin))
        return self.share([key], [work], self._one)[0]

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold `key` of the store for this worker, waiting for another one only where nothing else is to be done.

        Raises
        ------
        InFlight
            When another worker has it.
        """
        assert self.store is not None
        with self.store.claim(key, wait=self._patient) as mine:
            if not mine:
                raise InFlight
            yield

    @contextmanager
    def measure(self) -> Iterator[Cost]:
        """What the block takes, including what relaxations that were there already had cost when they were made."""
        cost = Cost()
        self._counted, self._reused = set(), Cost()
        with self.potential.measure() as made:
            try:
                yield cost
            finally:
                reused = self._reused
        cost.force_calls = made.force_calls + reused.force_calls
        cost.atom_calls = made.atom_calls + reused.atom_calls
        cost.seconds = made.seconds + reused.seconds

    @property
    def there(self) -> int:
        """How many different relaxations, cells with their forces, bands and MD runs are there so far."""
        return len(self._there)

    def key(self, job: Job) -> str:
        """What makes a relaxation the same: potential, structure, constraints, tolerances and version."""
        content = {
            "version": VERSION,
            "potential": self.potential.fingerprint,
            "structure": frame_hash(job.atoms),
            "constraints": [jsonable(c.todict()) for c in job.atoms.constraints],
            "fmax": job.fmax if job.max_steps else None,
            "max_steps": job.max_steps,
            "optimizer": job.optimizer if job.max_steps else None,
        }
        return _digest(content)

    def _one(self, key: str, work: Work) -> Kept:
        """A work from memory, from the store or made now."""
        kept = self._here.get(key)
        if kept is None and self.store is None:
            kept = self._make(key, work)
        elif kept is None and self.store is not None:
            kept = self.store.relaxation(key)
            if kept is None:
                with self.claim(key):
                    kept = self.store.relaxation(key)  # perhaps it was finished while this worker waited
                    if kept is None:
                        kept = self._make(key, work)
                        self.store.keep_relaxation(key, self.potential.fingerprint, work.slot, work.numbers, kept)
        assert kept is not None
        self._here[key] = kept
        self.count(key, cost_of(kept))
        return kept

    def count(self, key: str, cost: Cost) -> None:
        """Count what work had cost that the block of :meth:`measure` did not do itself, once."""
        if key not in self._counted:
            self._counted.add(key)
            self._reused.force_calls += cost.force_calls
            self._reused.atom_calls += cost.atom_calls
            self._reused.seconds += cost.seconds

    def _make(self, key: str, work: Work) -> Kept:
        self._counted.add(key)  # the block of `measure` does it itself
        with self.potential.measure() as cost:
            try:
                made = work.make()
            except AldriverError as error:
                raise AldriverError(f"{work.slot}: {error}") from error
        return replace(made, facts=made.facts | asdict(cost))

    def _relaxation(self, job: Job) -> Work:
        return Work.on(job, partial(self._relax, job))

    def _relax(self, job: Job) -> Kept:
        atoms, warm = self._start(job)
        relaxed = relax_positions(
            self.potential, atoms, fmax=job.fmax, max_steps=job.max_steps, optimizer=job.optimizer
        )
        return _to_keep(relaxed, job.atoms, warm)

    def _evaluate(self, job: Job) -> Kept:
        return Kept(facts={}, displacement=self.potential.evaluate([job.atoms], stress=False)[0].forces)

    def _previous(self, slot: str, numbers: Sequence[int]) -> Kept | None:
        """What the previous potential ended with."""
        if not (self.warm and self.store is not None):
            return None
        return self.store.previous(slot, self.potential.fingerprint, numbers)

    def _start(self, job: Job) -> tuple[Atoms, bool]:
        """The cell to start from: relaxed as with the previous potential, or as it is."""
        before = self._previous(job.slot, job.atoms.numbers.tolist()) if job.max_steps else None
        if before is None:
            return job.atoms, False
        atoms = job.atoms.copy()
        atoms.set_positions(atoms.positions + before.displacement @ np.asarray(atoms.cell))  # keeps to constraints
        return atoms, True


def cost_of(kept: Kept) -> Cost:
    """What finished work took when it was made; nothing for what was only foreseen."""
    return Cost(**{field.name: kept.facts.get(field.name, 0) for field in fields(Cost)})


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _to_keep(relaxed: Relaxation, start: Atoms, warm: bool) -> Kept:
    facts = {
        "energy": relaxed.energy,
        "last_gain": relaxed.last_gain,
        "fmax": relaxed.fmax,
        "steps": relaxed.steps,
        "converged": relaxed.converged,
        "warm": warm,
    }
    moved = np.linalg.solve(np.asarray(start.cell).T, (relaxed.atoms.positions - start.positions).T).T
    return Kept(facts=facts, displacement=moved)


def _from_kept(kept: Kept, start: Atoms) -> Relaxation:
    cost = cost_of(kept)
    facts = {name: value for name, value in kept.facts.items() if name not in asdict(cost)}
    atoms = start.copy()
    atoms.positions += kept.displacement @ np.asarray(atoms.cell)
    return Relaxation(atoms=atoms, cost=cost, **facts)
