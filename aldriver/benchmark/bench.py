"""The bench a property is measured on: relaxations, energies and forces, each made once, kept, and warm-started.

What is relaxed, and what follows from it, is the property modules' business; where finished work is kept is
``store.py``'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
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
        self._here: dict[str, Relaxation] = {}
        self._forces: dict[str, tuple[NDArray[np.float64], float]] = {}  # with the seconds they took
        self._others: dict[str, Kept] = {}
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
        return self.share([self.key(job) for job in jobs], jobs, self._relax)

    def attempt_all(self, jobs: Sequence[Job]) -> list[Relaxation | str]:
        """As :meth:`relax_all`; one that fails is a reason in its place, and the others go on.

        Raises
        ------
        StoreError
            When the store cannot be written.
        """

        def one(key: str, job: Job) -> Relaxation | str:
            try:
                return self._relax(key, job)
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
        jobs = [replace(job, max_steps=0) for job in jobs]
        return self.share([f"forces-{self.key(job)}" for job in jobs], jobs, self._evaluate)

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
        if key not in self._others:
            kept = None if self.store is None else self.store.relaxation(key)
            if kept is None and self.store is not None:
                with self.claim(key):
                    kept = self.store.relaxation(key)  # perhaps it was finished while this worker waited
                    if kept is None:
                        kept = self._make_other(key, slot, self._previous(slot, numbers) or begin, make)
                        self.store.keep_relaxation(key, self.potential.fingerprint, slot, numbers, kept)
            self._others[key] = kept or self._make_other(key, slot, begin, make)
        self.count(key, Cost(**{name: self._others[key].facts[name] for name in _COSTS}))
        self._there.add(key)
        self.on_relaxation(slot)
        return self._others[key]

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

    def _relax(self, key: str, job: Job) -> Relaxation:
        """The relaxation, from memory, from the store or made now."""
        if key not in self._here and self.store is not None and (kept := self.store.relaxation(key)) is not None:
            self._here[key] = _from_kept(kept, job.atoms)
        if key in self._here:
            self.count(key, self._here[key].cost)
            return self._here[key]
        if self.store is None:
            self._here[key] = self._make(key, job)
            return self._here[key]
        with self.claim(key):
            kept = self.store.relaxation(key)  # perhaps it was finished while this worker waited
            if kept is None:
                relaxed = self._make(key, job)
                kept = _to_keep(relaxed, job.atoms)
                numbers = job.atoms.numbers.tolist()
                self.store.keep_relaxation(key, self.potential.fingerprint, job.slot, numbers, kept)
        self._here[key] = _from_kept(kept, job.atoms)
        self.count(key, self._here[key].cost)
        return self._here[key]

    def _evaluate(self, key: str, job: Job) -> NDArray[np.float64]:
        """Forces on a cell as it is, from memory, from the store or made now."""
        if key not in self._forces and self.store is not None and (kept := self.store.forces(key)) is not None:
            self._forces[key] = kept
        if key not in self._forces and self.store is None:
            self._forces[key] = self._make_forces(key, job)
        elif key not in self._forces and self.store is not None:
            with self.claim(key):
                kept = self.store.forces(key)
                if kept is None:
                    kept = self._make_forces(key, job)
                    self.store.keep_forces(key, self.potential.fingerprint, job.slot, *kept)
            self._forces[key] = kept
        forces, seconds = self._forces[key]
        self.count(key, Cost(force_calls=1, atom_calls=len(job.atoms), seconds=seconds))
        return forces

    def made(self, key: str) -> None:
        """Note that the block of :meth:`measure` does this work itself."""
        self._counted.add(key)

    def _make_forces(self, key: str, job: Job) -> tuple[NDArray[np.float64], float]:
        self.made(key)
        with self.potential.measure() as cost:
            try:
                forces = self.potential.evaluate([job.atoms], stress=False)[0].forces
            except AldriverError as error:
                raise AldriverError(f"{job.slot}: {error}") from error
        return forces, cost.seconds

    def count(self, key: str, cost: Cost) -> None:
        """Count what work had cost that the block of :meth:`measure` did not do itself, once."""
        if key not in self._counted:
            self._counted.add(key)
            self._reused.force_calls += cost.force_calls
            self._reused.atom_calls += cost.atom_calls
            self._reused.seconds += cost.seconds

    def _make(self, key: str, job: Job) -> Relaxation:
        self.made(key)
        atoms, warm = self._start(job)
        with self.potential.measure() as cost:
            try:
                relaxed = relax_positions(
                    self.potential, atoms, fmax=job.fmax, max_steps=job.max_steps, optimizer=job.optimizer
                )
            except AldriverError as error:
                raise AldriverError(f"{job.slot}: {error}") from error
        return replace(relaxed, cost=cost, warm=warm)

    def _make_other(self, key: str, slot: str, begin: Kept, make: Callable[[Kept], Kept]) -> Kept:
        self._counted.add(key)
        with self.potential.measure() as cost:
            try:
                made = make(begin)
            except AldriverError as error:
                raise AldriverError(f"{slot}: {error}") from error
        return replace(made, facts={**made.facts, **{name: getattr(cost, name) for name in _COSTS}})

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


_COSTS = ("force_calls", "atom_calls", "seconds")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _to_keep(relaxed: Relaxation, start: Atoms) -> Kept:
    facts = {
        "energy": relaxed.energy,
        "last_gain": relaxed.last_gain,
        "fmax": relaxed.fmax,
        "steps": relaxed.steps,
        "converged": relaxed.converged,
        "warm": relaxed.warm,
        "force_calls": relaxed.cost.force_calls,
        "atom_calls": relaxed.cost.atom_calls,
        "seconds": relaxed.cost.seconds,
    }
    moved = np.linalg.solve(np.asarray(start.cell).T, (relaxed.atoms.positions - start.positions).T).T
    return Kept(facts=facts, displacement=moved)


def _from_kept(kept: Kept, start: Atoms) -> Relaxation:
    facts = dict(kept.facts)
    cost = Cost(**{name: facts.pop(name) for name in _COSTS})
    atoms = start.copy()
    atoms.positions += kept.displacement @ np.asarray(atoms.cell)
    return Relaxation(atoms=atoms, cost=cost, **facts)
