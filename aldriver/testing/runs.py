"""Studies of many runs: each is computed once, kept in a file of its own, gathered in one JSON, shown on a page.

Owns resuming, sharing the work and filling pages; what a run is, is the study's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aldriver.core.errors import InputError
from aldriver.core.records import dumps, jsonable, read_json
from aldriver.core.store import atomic_write

Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What :func:`main` needs to know.

    Attributes
    ----------
    name
        Of its results ``docs/<name>.json`` and its page ``docs/<name>.md``.
    what
        Its description.
    constants
        Everything that decides the numbers: results made with other constants are not taken over.
    runs
        Names of all runs, the most telling first.
    compute
        (run, folder of the data, folder for the run's own files) → what is kept of it.
    summary
        One line about a finished run.
    sections
        All finished runs → texts for the page, by the name of the marker.
    figure
        Draws ``docs/<name>.png`` of all finished runs, if there is one.
    needs_data
        Whether ``--data`` must be given when there is something to compute.
    printed
        Sections that are printed at the end.
    """

    name: str
    what: str
    constants: dict[str, Any]
    runs: Sequence[str]
    compute: Callable[[str, Path | None, Path], Facts]
    summary: Callable[[Facts], str]
    sections: Callable[[list[Facts]], Mapping[str, str]]
    figure: Callable[[list[Facts], Path], None] | None = None
    needs_data: bool = False
    printed: Sequence[str] = ()


def main(study: Study, argv: Sequence[str] | None = None) -> int:
    """Compute what is missing, gather all results and fill the page."""
    parser = argparse.ArgumentParser(description=study.what, formatter_class=argparse.RawDescriptionHelpFormatter)
    if study.needs_data:
        parser.add_argument("--data", type=Path, help="folder of the reference data")
    parser.add_argument("--work", type=Path, default=Path("campaigns") / study.name.replace("_", "-"))
    parser.add_argument("--part", default="1/1", help="k/n: every n-th run, from the k-th")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--results", type=Path, default=Path("docs") / f"{study.name}.json")
    options = parser.parse_args(argv)
    constants = jsonable(study.constants)
    known = finished(study, options.work, options.results)
    chosen = [name for name in shared(study.runs, options.part) if options.only in name]
    if study.needs_data and options.data is None and (missing := [name for name in chosen if name not in known]):
        raise InputError(
            f"{len(missing)} of {len(chosen)} runs are not computed yet: give the folder of their data, --data"
        )
    options.work.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(chosen, start=1):
        if name in known:
            continue
        started, cpu = time.time(), time.process_time()
        print(f"[{k}/{len(chosen)}] {name}", end="", flush=True)
        facts = study.compute(name, getattr(options, "data", None), options.work / name)
        facts |= {"cpu_s": round(time.process_time() - cpu, 1)}
        atomic_write(options.work / f"{name}.json", dumps({"settings": constants, "run": {"name": name, **facts}}))
        print(f": {study.summary(facts)}, {time.time() - started:.0f} s", flush=True)
    known = finished(study, options.work, options.results)
    gathered = [known[name] for name in study.runs if name in known]
    if gathered:
        atomic_write(options.results, dumps({"what": study.what, "settings": constants, "runs": gathered}))
        sections = study.sections(gathered)
        if (page := options.results.with_suffix(".md")).is_file():
            fill(page, sections)
        print("\n\n".join(sections[name] for name in study.printed))
        if study.figure is not None:
            study.figure(gathered, options.results.with_suffix(".png"))
    print(f"{len(gathered)} of {len(study.runs)} runs in {options.results}")
    return 0


def shared(names: Sequence[str], part: str) -> list[str]:
    """The k-th of n parts of the runs.

    Raises
    ------
    InputError
        When `part` is not k/n with 1 ≤ k ≤ n.
    """
    try:
        k, n = (int(x) for x in part.split("/"))
    except ValueError as error:
        raise InputError(f"--part {part}: give k/n, such as 1/2") from error
    if not 1 <= k <= n:
        raise InputError(f"--part {part}: k must lie between 1 and n")
    return list(names[k - 1 :: n])


def finished(study: Study, work: Path, results: Path) -> dict[str, Facts]:
    """Runs that need not be computed, by name: of the published results, and of the files of single runs."""
    constants = jsonable(study.constants)
    found: dict[str, Facts] = {}
    if results.is_file() and (published := read_json(results))["settings"] == constants:
        found = {run["name"]: run for run in published["runs"] if run["name"] in study.runs}
    for name in study.runs:
        path = work / f"{name}.json"
        if path.is_file() and (saved := read_json(path))["settings"] == constants:
            found[name] = saved["run"]
    return found


def fill(page: Path, sections: Mapping[str, str]) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` of a Markdown page.

    Raises
    ------
    InputError
        When the page lacks a marker.
    """
    text = page.read_text()
    for name, section in sections.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text or end not in text:
            raise InputError(f"{page}: no markers {begin} … {end} to write between")
        text = f"{text.split(begin)[0]}{begin}\n{section}\n{end}{text.split(end)[1]}"
    atomic_write(page, text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def cpu_of(runs: Sequence[Facts]) -> str:
    """What the runs cost together, in words."""
    return f"{len(runs)} runs, {sum(run['cpu_s'] for run in runs) / 60:.0f} minutes of one core"
