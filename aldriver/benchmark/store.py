"""What a benchmark has finished: relaxations and properties, in one SQLite file that several workers share.

Each is written as soon as it is done, so a killed run loses the relaxation in flight and nothing else. What is computed
how is the property modules' business; who computes what next is ``bench.py``'s.
"""

from __future__ import annotations

import gc
import io
import json
import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aldriver.core.errors import StoreError
from aldriver.core.locks import held
from aldriver.core.records import PropertyRecord, dumps

FILE = "benchmark.sqlite"
_WAIT_S = 120.0
_TABLES = """
create table if not exists relaxation (
    key text primary key, potential text not null, slot text not null, numbers text not null, done real not null,
    facts text not null, displacement blob not null
);
create index if not exists relaxation_slot on relaxation (slot, done);
create table if not exists run (key text primary key, potential text not null, slot text not null, state blob not null);
create table if not exists property (key text primary key, potential text not null, records text not null);
"""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Finished work: plain facts, and what the atoms moved in units of the cell's vectors, or the forces on them, eV/Å.

    (N, 3); of a band (images × N, 3).
    """

    facts: dict[str, Any]
    displacement: NDArray[np.float64]


class Store:
    """Finished relaxations and properties under a folder.

    Raises
    ------
    StoreError
        When the file cannot be opened or written, or is not a store.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE
        with self._errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._create()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # no database, or a damaged one: it only saves time
                aside = self.path.with_name(f"{FILE}.damaged-{time.time_ns()}")
                self.path.replace(aside)
                logging.getLogger(__name__).warning(
                    "%s is damaged; it is now %s, and all is computed anew", FILE, aside
                )
                self._create()

    def relaxation(self, key: str) -> Kept | None:
        """The relaxation of a key, if it is there."""
        rows = self._read("select facts, displacement from relaxation where key = ?", key)
        return _kept(*rows[0]) if rows else None

    def previous(self, slot: str, potential: str, numbers: Sequence[int]) -> Kept | None:
        """The latest converged relaxation of the same slot and species with another potential."""
        rows = self._read(
            "select facts, displacement from relaxation where slot = ? and potential != ? and numbers = ? "
            "order by done desc limit 1",
            slot, potential, _numbers(numbers),
        )  # fmt: skip
        kept = _kept(*rows[0]) if rows else None
        return kept if kept is not None and kept.facts.get("converged") else None

    def keep_relaxation(self, key: str, potential: str, slot: str, numbers: Sequence[int], it: Kept) -> None:
        """Write a finished relaxation (one that is there already stays)."""
        self._write(
            "insert or ignore into relaxation values (?, ?, ?, ?, ?, ?, ?)",
            key, potential, slot, _numbers(numbers), time.time(), dumps(it.facts, indent=None), _blob(it.displacement),
        )  # fmt: skip

    def run(self, key: str) -> dict[str, NDArray[Any]] | None:
        """The latest state of an MD run, if there is one."""
        rows = self._read("select state from run where key = ?", key)
        if not rows:
            return None
        with np.load(io.BytesIO(rows[0][0]), allow_pickle=False) as arrays:
            return dict(arrays)

    def keep_run(self, key: str, potential: str, slot: str, state: Mapping[str, NDArray[Any]]) -> None:
        """Write the latest state of an MD run."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **state)  # type: ignore[arg-type]
        self._write("insert or replace into run values (?, ?, ?, ?)", key, potential, slot, buffer.getvalue())

    def records(self, key: str) -> list[PropertyRecord] | None:
        """The records of a property, if they are there."""
        rows = self._read("select records from property where key = ?", key)
        return [PropertyRecord(**fields) for fields in json.loads(rows[0][0])] if rows else None

    def all_records(self, potential: str) -> list[PropertyRecord]:
        """All records of a potential, by fingerprint."""
        rows = self._read("select records from property where potential = ?", potential)
        collecting = gc.isenabled()
        gc.disable()  # so many new objects make it look through all others again and again, and none is garbage
        try:
            return [PropertyRecord(**fields) for (text,) in rows for fields in json.loads(text)]
        finally:
            if collecting:
                gc.enable()

    def keep_records(self, key: str, potential: str, records: Sequence[PropertyRecord]) -> None:
        """Write the records of a finished property."""
        self._write("insert or replace into property values (?, ?, ?)", key, potential, dumps(records, indent=None))

    @contextmanager
    def claim(self, key: str, *, wait: bool) -> Iterator[bool]:
        """Hold `key` for this worker: true when it is held, false when another worker has it (only without `wait`).

        The claim of a worker that is killed is free again: the operating system drops its lock.
        """
        folder = self.folder / "claims"
        with self._errors():
            folder.mkdir(exist_ok=True)
        with held(folder / key, wait=wait) as mine:
            yield mine

    def _create(self) -> None:
        with closing(self._open()) as db, db:
            db.executescript(_TABLES)

    def _read(self, query: str, *values: Any) -> list[Any]:
        with self._errors(), closing(self._open()) as db:
            return db.execute(query, values).fetchall()

    def _write(self, query: str, *values: Any) -> None:
        with self._errors(), closing(self._open()) as db, db:
            db.execute(query, values)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_WAIT_S)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self.path}: the benchmark's store cannot be used ({error}); "
                "it may be moved away, then everything is computed anew"
            ) from error


def _kept(facts: str, blob: bytes) -> Kept:
    return Kept(facts=json.loads(facts), displacement=_array(blob))


def _array(blob: bytes) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.load(io.BytesIO(blob), allow_pickle=False)
    return found


def _blob(array: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, dtype="<f8"), allow_pickle=False)
    return buffer.getvalue()


def _numbers(numbers: Sequence[int]) -> str:
    return " ".join(str(int(z)) for z in numbers)
