"""How a property depends on a size: ``python -m aldriver.testing.convergence POTENTIAL CASE PROPERTY NAME=V1,V2,...``.

Prints a Markdown table for ``docs/``. NAME is ``supercell`` (4 stands for 4x4x4) or an option of the property's block,
e.g. ``surface.thickness_A=12,16,24``. What a property is, is its own module's business.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from aldriver.benchmark.cases import case_by_name
from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.records import PropertyRecord
from aldriver.potentials import load


def settings_at(case: str, name: str, option: str, value: str, fixed: dict[str, Any]) -> Benchmark:
    """The suite of one property of one crystal, at one size."""
    crystal = case_by_name(case).model_dump()
    block: dict[str, Any] = {"properties": [name], "cases": [crystal]}
    block |= {name: dict(fixed)} if fixed else {}
    if option == "supercell":
        sides = [int(n) for n in value.split("x")]
        crystal["supercell"] = sides * 3 if len(sides) == 1 else sides
    else:
        key = option.partition(".")[2] or option
        block.setdefault(name, {})[key] = json.loads(value)
    return Benchmark.model_validate(block)


def table(option: str, values: Sequence[str], found: Sequence[list[PropertyRecord]]) -> str:
    """Markdown: a row a size, a column a value, and what it took."""
    names = [record.property for record in found[0]]
    units = {record.property: record.unit for records in found for record in records}
    lines = [
        f"| {option} | "
        + " | ".join(f"{n} ({units[n]})" if units[n] else n for n in names)
        + " | force calls × atoms |",
        "| --- " * (len(names) + 2) + "|",
    ]
    for value, records in zip(values, found, strict=True):
        by_name = {record.property: record for record in records}
        cells = [_shown(by_name.get(n)) for n in names]
        lines.append(f"| {value} | " + " | ".join(cells) + f" | {max(r.atom_calls for r in records):,} |")
    return "\n".join(lines)


def _shown(record: PropertyRecord | None) -> str:
    if record is None or record.value is None:
        return f"none: {record.reason}" if record else ""
    error = f" ± {record.error:.1g}" if record.error else ""
    return f"{record.value:.4f}{error}" + ("" if record.converged else " (not converged)")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m aldriver.testing.convergence")
    parser.add_argument("potential")
    parser.add_argument("case")
    parser.add_argument("property")
    parser.add_argument("sizes", help="NAME=V1,V2,... ; values with commas of their own are separated by ;")
    parser.add_argument("--with", dest="fixed", type=json.loads, default={}, help="JSON of the property's block")
    options = parser.parse_args(argv)
    name, _, text = options.sizes.partition("=")
    values = text.split(";" if ";" in text else ",")
    potential = load(options.potential)
    found = []
    for value in values:
        settings = settings_at(options.case, options.property, name, value, options.fixed)
        found.append(run_suite(potential, settings, cache_dir=None))
        print(f"{name}={value}: done", file=sys.stderr, flush=True)
    print(table(name, values, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
