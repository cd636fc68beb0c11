"""How many relaxations a suite takes, found by letting its properties ask for them without making any.

For progress bars: what a property asks for only after it has seen real energies or forces is not foreseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from ase import Atoms
from ase.data import chemical_symbols

from aldriver.benchmark.bench import Bench, Item, Job, T
from aldriver.benchmark.relax import Relaxation
from aldriver.benchmark.store import Kept
from aldriver.core.records import dumps
from aldriver.potentials.base import Potential, Prediction, Stepper

MOVED = 1.0e-5
"""How far atoms are taken to relax, Å: enough to make another cell, too little to leave a site."""


class _Foreseen(Exception):
    """A property asks for real numbers: what it does with them cannot be foreseen."""


class _NoPotential(Potential):
    name, family, fingerprint = "none", "none", ""
    elements = frozenset(chemical_symbols[1:])

    def evaluate(
        self,
        frames: Sequence[Atoms],
        *,
        stress: bool = True,
        features: bool = False,
        batch_atoms: int | None = None,
    ) -> list[Prediction]:
        raise _Foreseen

    def stepper(self, atoms: Atoms) -> Stepper:
        raise _Foreseen


def _moved(job: Job) -> Atoms:
    atoms = job.atoms.copy()
    if job.max_steps:
        atoms.set_positions(atoms.positions + MOVED, apply_constraint=False)
    return atoms


class PlanningBench(Bench):
    """A bench that notes what is asked of it: `asked` holds one key for each distinct relaxation."""

    def __init__(self) -> None:
        super().__init__(_NoPotential())
        self.asked: set[str] = set()

    def relax_all(self, jobs: Sequence[Job]) -> list[Relaxation]:
        """Give each cell back, all but as it is: what is relaxed again is another cell."""
        self.asked.update(map(self.key, jobs))
        return [
            Relaxation(atoms=_moved(job), energy=0.0, last_gain=0.0, fmax=0.0, steps=0, converged=True) for job in jobs
        ]

    def attempt_all(self, jobs: Sequence[Job]) -> list[Relaxation | str]:
        """As :meth:`relax_all`: none fails."""
        return list(self.relax_all(jobs))

    def each(self, items: Sequence[Item], make: Callable[[Item], T]) -> list[T]:
        """Go on with the others where one asks for real numbers."""
        found = []
        for item in items:
            with suppress(_Foreseen):
                found.append(make(item))
        if len(found) < len(items):
            raise _Foreseen
        return found

    def share(self, keys: Sequence[str], jobs: Sequence[Any], one: object) -> NoReturn:
        """Note each forces or MD run asked for; what is done with its numbers cannot be foreseen."""
        self.asked.update(keys)
        raise _Foreseen

    def once(
        self,
        what: Mapping[str, Any],
        slot: str,
        numbers: Sequence[int],
        begin: Kept,
        make: Callable[[Kept], Kept],
    ) -> Kept:
        """Give back where it begins."""
        self.asked.add(dumps(what))
        return begin

    def foresee(self, compute: object, *arguments: object) -> None:
        """Let a property ask for its relaxations; that it cannot end well is no matter here."""
        with suppress(Exception):
            compute(self, *arguments)  # type: ignore[operator]
