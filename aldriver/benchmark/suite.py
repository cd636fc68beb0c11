"""The suite: runs the properties asked for on each case, one after the other, and keeps each as it is done.

A property that fails is a record with its reason; the others go on. How a property is computed is its own module's
business, where finished work is kept ``store.py``'s, what the values mean for a generation ``gate.py``'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aldriver.benchmark import elastic
from aldriver.benchmark.bench import Bench, InFlight
from aldriver.benchmark.cases import conventional_cell
from aldriver.benchmark.measure import Cost, Value
from aldriver.benchmark.plan import PlanningBench
from aldriver.benchmark.protocols import LATTICE, PROTOCOLS, Protocol
from aldriver.benchmark.store import Store
from aldriver.core.errors import StoreError
from aldriver.core.frames import frame_hash
from aldriver.core.recipe_benchmark import Benchmark, Case
from aldriver.core.records import PropertyRecord, jsonable
from aldriver.potentials.base import Potential

OnRecord = Callable[[PropertyRecord], None]
OnRelaxation = Callable[[int, int, str], None]
"""Called with how many relaxations of the suite are there, how many it takes, and which was the last."""


def run_suite(
    potential: Potential,
    settings: Benchmark,
    *,
    cache_dir: Path | None,
    on_record: OnRecord | None = None,
    on_relaxation: OnRelaxation | None = None,
    worker: int = 0,
    workers: int = 1,
) -> list[PropertyRecord]:
    """Benchmark a potential.

    Parameters
    ----------
    settings
        Cases and properties; the lattice constant every other property needs is computed once per case, whether asked
        for or not.
    cache_dir
        Where finished properties and relaxations are kept (:class:`~aldriver.benchmark.store.Store`); None keeps
        nothing. What it holds is not computed again (the records then tell what they took when they were computed).
        Properties that raised an error are not kept.
    on_record, on_relaxation
        Called with each record as soon as it is there, and after each relaxation.
    worker, workers
        Which of how many workers on the same `cache_dir` this is: each begins elsewhere in the suite, they never make
        the same relaxation, band or MD run, and one that meets what another is making goes on with other properties.

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
        When the store cannot be written.
    """
    potential.check_elements([conventional_cell(case) for case in settings.cases])
    store = None if cache_dir is None else Store(cache_dir)
    bench = Bench(potential, store=store, worker=worker, workers=workers)
    if on_relaxation is not None:
        planned, tell = relaxations(settings), on_relaxation
        bench.on_relaxation = lambda slot: tell(bench.there, max(planned, bench.there), slot)
    found: dict[tuple[str, str], list[PropertyRecord]] = {}

    def once(name: str, case: Case) -> list[PropertyRecord]:
        """Records of a property of a case, made when first asked for: a property may need another one."""
        if (case.name, name) not in found:
            protocol = PROTOCOLS[name]
            options = _options(protocol, settings)
            obstacle = _obstacle(protocol, case, once)
            if obstacle:
                found[case.name, name] = _without(protocol, case, options, obstacle)
            else:
                at = () if protocol is LATTICE else tuple(r.value for r in once(LATTICE.name, case))
                relaxed = case.model_copy(update={"c_over_a": at[1]}) if at[1:] else case
                found[case.name, name] = _run(protocol, bench, relaxed, options, *at[:1])
        return found[case.name, name]

    def told(task: tuple[Case, str]) -> None:
        case, name = task
        for record in once(name, case):
            if on_record is not None:
                on_record(record)

    bench.each([(case, name) for case in settings.cases for name in settings.properties], told)
    return [record for case in settings.cases for name in settings.properties for record in found[case.name, name]]


def relaxations(settings: Benchmark) -> int:
    """How many different relaxations a suite takes, as far as can be foreseen."""
    bench = PlanningBench()
    for case in settings.cases:
        for name in settings.properties:
            if PROTOCOLS[name] is not LATTICE:
                bench.foresee(PROTOCOLS[name].compute, case, case.a, *_options(PROTOCOLS[name], settings))
    return len(bench.asked)


def _options(protocol: Protocol, settings: Benchmark) -> tuple[Any, ...]:
    return (getattr(settings, protocol.name),) if protocol.options else ()


def units(settings: Benchmark, *, asked_for: bool = False) -> dict[tuple[str, str], str]:
    """Unit of each value there can be of a suite's cases, by case and property; of those asked for, or of all."""
    return {
        (case.name, value): unit
        for case in settings.cases
        for name, protocol in PROTOCOLS.items()
        if not asked_for or name in settings.properties
        for value, unit in protocol.units(case, getattr(settings, name, None)).items()
    }


def _obstacle(protocol: Protocol, case: Case, once: Callable[[str, Case], list[PropertyRecord]]) -> str:
    """Why a property cannot be measured: it needs a lattice constant, and a defect a host that is a minimum."""
    if protocol is LATTICE:
        return ""
    if case.hexagonal and not protocol.hexagonal:
        return f"it is defined for cubic crystals, and {case.name} is hexagonal"
    start = once(LATTICE.name, case)[0]
    if start.value is None or not start.converged:
        return f"needs the lattice constant, which is missing: {start.reason}"
    constants = once("elastic", case) if protocol.supercell or protocol.stable else []
    unstable = next((r.reason for r in constants if elastic.UNSTABLE in r.reason), "")
    return f"nothing is relaxed in an unstable host: {unstable}" if unstable else ""


def _run(
    protocol: Protocol, bench: Bench, case: Case, options: tuple[Any, ...], *lattice_constant: Any
) -> list[PropertyRecord]:
    key = _key(protocol, bench, case, options, lattice_constant)
    kept = bench.store.records(key) if bench.store is not None else None
    if kept is not None:
        return kept
    with bench.measure() as spent:
        try:
            values = protocol.compute(bench, case, *lattice_constant, *options)
        except (StoreError, InFlight):
            raise
        except Exception as error:
            values = None
            reason = _sentence(error)
    if values is None:
        return _without(protocol, case, options, reason, spent)
    records = [_record(value, case, protocol) for value in values]
    if bench.store is not None:
        bench.store.keep_records(key, bench.potential.fingerprint, records)
    return records


def _key(
    protocol: Protocol, bench: Bench, case: Case, options: tuple[Any, ...], lattice_constant: tuple[float, ...]
) -> str:
    content = {
        "potential": bench.potential.fingerprint,
        "protocol": protocol.label(case),
        "structure": frame_hash(conventional_cell(case, *lattice_constant)),
        "case": case.name,
        "options": [jsonable(o.model_dump(mode="json")) for o in options],
    }
    if options and (also := protocol.content(case, *options)):
        content["content"] = also
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


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
        curve=value.curve,
    )


def _without(
    protocol: Protocol, case: Case, options: tuple[Any, ...], reason: str, cost: Cost | None = None
) -> list[PropertyRecord]:
    """A record without a value for each property of a protocol."""
    return [
        _record(Value.missing(name, unit, reason, cost), case, protocol)
        for name, unit in protocol.units(case, *(options or (None,))).items()
    ]


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
