"""Takes finished DFT results of a user into a label store: found, read, judged, kept apart by level of theory.

Owns the order of events and the fate of every file. Which files are outputs is ``finding.py``, what stands in them
``<code>_output.py``, what is good ``gate.py``, which belong together ``levels.py`` and ``energy_reference.py``.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from aldriver.core.frames import frame_hash, read_frames
from aldriver.core.reasons import count_reasons
from aldriver.core.store import sha256_file
from aldriver.label.base import Label
from aldriver.label.energy_reference import fit_energies
from aldriver.label.finding import Candidate, find_outputs
from aldriver.label.found import FoundLabel
from aldriver.label.gate import LabelLimits, check_label
from aldriver.label.ingest_store import label_writer
from aldriver.label.levels import Levels, describe, differences, settings_digest
from aldriver.label.spin import usual_moments

READERS: Mapping[str, str] = {
    "vasp": "vasp_output:read_vasp",
    "espresso": "espresso_output:read_espresso",
    "gpaw": "gpaw_output:read_gpaw",
    "extxyz": "extxyz_output:read_extxyz",
}
Fate = Literal["accepted", "refused", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of a file, or of one ionic step in it.

    Attributes
    ----------
    source
        The file as the user knows it; ``#step k`` for one of several ionic steps, ``ARCHIVE!member`` in an archive.
    fate, reason
        ``accepted`` (the reason may say that it was there already), ``refused`` or ``skipped`` (no output) and why.
    status
        Of the label: ``ok`` or how it failed.
    formula, energy_eV_atom, level, key
        Of the label where there is one; `level` in words, `key` in the label store.
    """

    source: str
    fate: Fate
    reason: str = ""
    status: str = ""
    formula: str = ""
    energy_eV_atom: float | None = None
    level: str = ""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """Fate of every file and step, and the data set of each level of theory."""

    rows: list[Row]
    datasets: dict[str, Path] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Rows, counts of fates and of reasons, and the data sets."""
        fates = Counter(r.fate for r in self.rows)
        return {
            "files": [asdict(r) for r in self.rows],
            **{fate: fates.get(fate, 0) for fate in ("accepted", "refused", "skipped")},
            "reasons": count_reasons(r.reason for r in self.rows if r.fate == "refused"),
            "datasets": self.datasets,
        }


@dataclass
class _Entry:
    """A label on its way: found, judged, assigned to a level."""

    found: FoundLabel
    name: str
    level: int = -1

    @property
    def label(self) -> Label:
        return self.found.label

    def judged(self, label: Label) -> None:
        self.found = replace(self.found, label=label)

    def refuse(self, reason: str) -> None:
        """Reject a label that was ok so far."""
        if self.label.ok:
            self.judged(replace(self.label, status="rejected", reason=reason))


def ingest(
    paths: Iterable[Path],
    out: Path,
    *,
    limits: LabelLimits | None = None,
    wanted: Mapping[str, Any] | None = None,
    level: str = "",
    interrupted: bool = False,
    advance: Callable[[str], None] = lambda note: None,
) -> Ingested:
    """Take every label of the outputs under `paths` that is good into the store `out`; say why of each that is not.

    Parameters
    ----------
    limits
        Of the gate. Without, those of ``LabelLimits``, and for ferromagnetic metals the usual spin state.
    wanted, level
        Settings that labels must have (``levels.wanted_settings``), and the words for them; without, each level of
        theory becomes a data set of its own.
    interrupted
        Also take the whole ionic steps of runs that did not come to their end.
    advance
        Called with each file's name.

    Raises
    ------
    StoreError
        When the store cannot be written.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="aldriver-ingest-") as scratch:
        candidates = find_outputs(paths, Path(scratch))
        rows: dict[str, list[Row]] = {}
        entries: list[_Entry] = []
        for candidate in candidates:
            advance(candidate.name)
            rows[candidate.name] = []
            if candidate.code:
                entries += _read(candidate, interrupted)
            else:
                fate: Fate = "refused" if candidate.refused else "skipped"
                rows[candidate.name].append(Row(source=candidate.name, fate=fate, reason=candidate.reason))
        _judge(entries, limits)
        levels = _sort_by_level(entries, wanted)
        _check_energies(entries, limits or LabelLimits(), out)
        datasets = _store(entries, rows, levels, level, out, {c.name: c.path for c in candidates})
    ordered = [row for candidate in candidates for row in rows[candidate.name]]
    return Ingested(rows=ordered, datasets=datasets)


def reader(code: str) -> Callable[[Path], list[FoundLabel]]:
    """The function that reads finished outputs of a code."""
    module, name = READERS[code].split(":")
    function: Callable[[Path], list[FoundLabel]] = getattr(import_module(f"aldriver.label.{module}"), name)
    return function


def _read(candidate: Candidate, interrupted: bool) -> list[_Entry]:
    """Labels of one output; whatever its reader stumbles over becomes a reason."""
    try:
        found = reader(candidate.code)(candidate.path)
    except Exception as error:
        found = [
            _nothing(candidate, f"cannot be read as an output of {candidate.code}: {type(error).__name__}: {error}")
        ]
    if not found:
        found = [_nothing(candidate, f"nothing that {candidate.code} would write is in it")]
    shown = [f.source.removeprefix(str(candidate.path)) for f in found]
    entries = [
        _Entry(replace(f, source=candidate.name + (s if s.startswith("#") else "")), candidate.name)
        for f, s in zip(found, shown, strict=True)
    ]
    if not interrupted:
        _refuse_unfinished(entries)
    return entries


def _nothing(candidate: Candidate, reason: str) -> FoundLabel:
    label = Label(status="failed", reason=reason)
    return FoundLabel(frame=Atoms(), label=label, source=str(candidate.path), settings={"code": candidate.code})


def _refuse_unfinished(entries: Sequence[_Entry]) -> None:
    """Steps of a run whose last one failed: the run did not come to its end."""
    runs: dict[str, list[_Entry]] = {}
    for entry in entries:
        runs.setdefault(entry.found.source.rpartition("#step ")[0], []).append(entry)
    for name, steps in runs.items():
        last = steps[-1].label
        if name and len(steps) > 1 and last.status == "failed":
            for step in steps[:-1]:
                step.refuse(f"the run did not end well ({last.reason}); `--interrupted` takes its whole steps")


def _judge(entries: Sequence[_Entry], limits: LabelLimits | None) -> None:
    """The gate, one label at a time."""
    for entry in entries:
        label = entry.label
        if label.ok and label.provenance.get("stand_in"):
            entry.refuse(f"made by a stand-in ({label.provenance.get('code')}), not by a DFT code")
        own = limits
        if own is None:
            own = LabelLimits(moments=_usual(entry))
        entry.judged(check_label(entry.label, entry.found.frame, own))
        if limits is None and "another spin state" in entry.label.reason:
            entry.judged(
                replace(entry.label, reason=f"{entry.label.reason} (another one: `--spin ELEMENT=LEAST:MOST`)")
            )


def _usual(entry: _Entry) -> dict[str, tuple[float, float]]:
    """The usual spin state, of labels that say something about theirs: a file without moments may still have it."""
    label, spin = entry.label, entry.found.settings.get("spin")
    if label.magmoms is not None or spin is True:
        known = label.magmoms is not None or label.provenance.get("magnetisation") is not None
        return usual_moments(entry.found.frame) if known else {}
    windows = usual_moments(entry.found.frame) if spin is False else {}
    if windows and label.ok:
        names = ", ".join(windows)
        entry.refuse(f"computed without spin, but {names} is a ferromagnet: another spin state")
    return {}


def _sort_by_level(entries: Sequence[_Entry], wanted: Mapping[str, Any] | None) -> Levels:
    """Give each good label the number of its level; refuse those of another level than `wanted`."""
    levels = Levels()
    for entry in entries:
        if not entry.label.ok:
            continue
        other = differences(entry.found.settings, wanted) if wanted else []
        if other:
            entry.refuse(f"another level of theory: {'; '.join(other)}")
        else:
            entry.level = 0 if wanted else levels.index(entry.found.settings)
    return levels


def _check_energies(entries: Sequence[_Entry], limits: LabelLimits, out: Path) -> None:
    """Refuse labels that do not share the energy reference of their level (with what the store has of it)."""
    levels: dict[int, list[_Entry]] = {}
    for entry in entries:
        if entry.label.ok:
            levels.setdefault(entry.level, []).append(entry)
    for members in levels.values():
        known = limits.reference
        if known is None:
            stored = _stored(out, members[0].found.settings)
            frames = [a for a, _ in stored] + [m.found.frame for m in members]
            known = fit_energies(frames, [e for _, e in stored] + [float(m.label.energy or 0.0) for m in members])
        own = replace(limits, moments={}, reference=known)
        for member in members:
            member.judged(check_label(member.label, member.found.frame, own))


def _stored(out: Path, settings: Mapping[str, Any]) -> list[tuple[Atoms, float]]:
    path = out / _data_set(settings)
    return [(a, float(a.get_potential_energy())) for a in read_frames(path)] if path.is_file() else []


def _store(
    entries: Sequence[_Entry],
    rows: dict[str, list[Row]],
    levels: Levels,
    level: str,
    out: Path,
    files: Mapping[str, Path],
) -> dict[str, Path]:
    """Store the good labels, note the fate of all; returns the data set of each level that got one."""
    datasets: dict[str, Path] = {}
    first: dict[str, str] = {}
    sums: dict[str, str] = {}
    names = [_level_words(level or settings) for settings in levels.members] or [_level_words(level)]
    with label_writer(out) as writer:
        for entry in entries:
            if not entry.label.ok:
                rows[entry.name].append(_row(entry, "refused", entry.label.reason))
                continue
            words, data_set = names[entry.level]
            key = _key(entry, words)
            if key in first:
                rows[entry.name].append(_row(entry, "accepted", f"the same label as {first[key]}", words, key))
                continue
            first[key] = entry.found.source
            if entry.name not in sums:
                sums[entry.name] = sha256_file(files[entry.name])
            known = writer.add(entry.found, key, words, data_set, entry.name, sums[entry.name])
            datasets[words] = out / data_set
            remarks = ["in the store already"] if known else []
            remarks += [entry.label.provenance["caution"]] if "caution" in entry.label.provenance else []
            rows[entry.name].append(_row(entry, "accepted", "; ".join(remarks), words, key))
    return datasets


def _level_words(level: str | Mapping[str, Any]) -> tuple[str, str]:
    """A level in words, and the name of its data set; of a recipe's level (words already) there is one alone."""
    if isinstance(level, str):
        return level, "dataset.extxyz"
    return describe(level), _data_set(level)


def _data_set(settings: Mapping[str, Any]) -> str:
    return f"dataset-{settings_digest(settings)}.extxyz"


def _key(entry: _Entry, words: str) -> str:
    """Of frame, level and k points: a level holds a frame at several grids only where it was computed at several."""
    grid = [entry.found.settings.get(k) for k in ("kpoints", "kpoints_irreducible")]
    return f"{frame_hash(entry.found.frame)}-{hashlib.sha256(f'{words} {grid}'.encode()).hexdigest()[:12]}"


def _row(entry: _Entry, fate: Fate, reason: str, level: str = "", key: str = "") -> Row:
    frame, label = entry.found.frame, entry.label
    return Row(
        source=entry.found.source,
        fate=fate,
        reason=reason,
        status=label.status,
        formula=frame.get_chemical_formula() if len(frame) else "",
        energy_eV_atom=None if label.energy is None or not len(frame) else label.energy / len(frame),
        level=level or (describe(entry.found.settings) if len(frame) else ""),
        key=key,
    )
