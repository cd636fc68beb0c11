"""The suite: runs the properties asked for on each case, one after the other, and keeps each in a cache as it is done.

A property that fails is a record with its reason; the others go on. How a property is computed is its own module's
business, what the values mean for a generation is ``gate.py``'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aldriver.benchmark import elastic, eos, lattice, vacancy
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.measure import Cost, CountingPotential, Value
from aldriver.core.errors import StoreError
from aldriver.core.frames import frame_hash
from aldriver.core.recipe import Benchmark, Case
from aldriver.core.records import PropertyRecord, dumps, read_json
from aldriver.core.store import atomic_write, disk_errors
from aldriver.potentials.base import Potential

OnRecord = Callable[[PropertyRecord], None]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A property module as the suite sees it: its version, the values it gives with their units, how it computes."""

    name: str
    version: int
    properties: Mapping[str, str]
    compute: Callable[..., list[Value]]
    supercell: bool = False

    def label(self, case: Case) -> str:
        """Name and version as records show it, with the supercell where one matters."""
        size = " " + "x".join(str(n) for n in case.supercell) if self.supercell else ""
        return f"{self.name}/{self.version}{size}"


LATTICE = Protocol(name="lattice", version=lattice.VERSION, properties=lattice.PROPERTIES, compute=lattice.compute)
PROTOCOLS = {
    "lattice": LATTICE,
    "eos": Protocol(name="eos", version=eos.VERSION, properties=eos.PROPERTIES, compute=eos.compute),
    "elastic": Protocol(
        name="elastic", version=elastic.VERSION, properties=elastic.PROPERTIES, compute=elastic.compute
    ),
    "vacancy": Protocol(
        name="vacancy",
        version=vacancy.VERSION,
        properties=vacancy.PROPERTIES,
        compute=vacancy.compute,
        supercell=True,
    ),
}


def run_suite(
    potential: Potential,
    settings: Benchmark,
    *,
    cache_dir: Path | None,
    on_record: OnRecord | None = None,
) -> list[PropertyRecord]:
    """Benchmark a potential.

    Parameters
    ----------
    settings
        Cases and properties; the lattice constant every other property needs is computed once per case, whether asked
        for or not.
    cache_dir
        Where finished properties are kept, one file each, under the potential's fingerprint, the hash of the structure
        and the protocol's version; None keeps nothing. What it holds is not computed again (the records then tell what
        they took when they were computed). Properties that raised an error are not kept.
    on_record
        Called with each record as soon as it is there.

    Returns
    -------
    list[PropertyRecord]
        One for each value of each property asked for, in the order of `settings`: a value or a reason. Values of one
        protocol that come from the same force calls each name them (C11, C12, C' and the bulk modulus share theirs).

    Raises
    ------
    InputError
        When the potential does not know an element of a case.
    StoreError
        When the cache cannot be written.
    """
    potential.check_elements([conventional_cell(case) for case in settings.cases])
    counting = CountingPotential(potential)
    records: list[PropertyRecord] = []
    for case in settings.cases:
        start = _run(LATTICE, counting, case, cache_dir)
        for name in settings.properties:
            protocol = PROTOCOLS[name]
            found = start if protocol is LATTICE else _run_from(start[0], protocol, counting, case, cache_dir)
            records += found
            if on_record is not None:
                for record in found:
                    on_record(record)
    return records


def _run_from(
    start: PropertyRecord, protocol: Protocol, potential: CountingPotential, case: Case, cache_dir: Path | None
) -> list[PropertyRecord]:
    """Run a protocol at the relaxed lattice constant, if there is one."""
    if start.value is None or not start.converged:
        return _without(protocol, case, f"needs the lattice constant, which is missing: {start.reason}")
    return _run(protocol, potential, case, cache_dir, start.value)


def _run(
    protocol: Protocol, potential: CountingPotential, case: Case, cache_dir: Path | None, *arguments: float
) -> list[PropertyRecord]:
    path = None if cache_dir is None else _cache_path(cache_dir, protocol, potential, case, arguments)
    kept = _kept(path, protocol)
    if kept is not None:
        return kept
    with potential.measure() as spent:
        try:
            values = protocol.compute(potential, case, *arguments)
        except Exception as error:
            values = None
            reason = _sentence(error)
    if values is None:
        return _without(protocol, case, reason, spent)
    records = [_record(value, case, protocol) for value in values]
    if path is not None:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, dumps(records))
    return records


def _cache_path(
    cache_dir: Path, protocol: Protocol, potential: Potential, case: Case, arguments: tuple[float, ...]
) -> Path:
    cell = conventional_cell(case, *arguments)
    key: dict[str, Any] = {
        "potential": potential.fingerprint,
        "protocol": protocol.label(case),
        "structure": frame_hash(cell),
        "case": case.name,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return Path(cache_dir) / potential.fingerprint / f"{case.name}-{protocol.name}-{digest}.json"


def _kept(path: Path | None, protocol: Protocol) -> list[PropertyRecord] | None:
    """Records of an earlier run; a damaged file counts as none."""
    if path is None or not path.is_file():
        return None
    try:
        records = [PropertyRecord(**fields) for fields in read_json(path)]
    except (StoreError, TypeError):
        return None
    return records if {r.property for r in records} == set(protocol.properties) else None


def _record(value: Value, case: Case, protocol: Protocol) -> PropertyRecord:
    return PropertyRecord(
        property=value.property,
        case=case.name,
        value=value.value,
        unit=value.unit,
        error=value.error,
        converged=value.converged,
        force_calls=value.cost.force_calls,
        atom_calls=value.cost.atom_calls,
        seconds=value.cost.seconds,
        protocol=protocol.label(case),
        reason=value.reason,
    )


def _without(protocol: Protocol, case: Case, reason: str, cost: Cost | None = None) -> list[PropertyRecord]:
    """A record without a value for each property of a protocol."""
    return [
        _record(
            Value(property=name, value=None, unit=unit, converged=False, reason=reason, cost=cost or Cost()),
            case,
            protocol,
        )
        for name, unit in protocol.properties.items()
    ]


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
