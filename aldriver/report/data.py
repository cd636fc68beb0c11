"""What the report reads: a campaign directory as plain numbers, with every missing or damaged piece named.

Reads only; how it looks is ``figures.py``, ``detection.py``, ``tables.py`` and ``html.py``.
"""

from __future__ import annotations

import json
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.store import Ledger
from aldriver.report.words import finite

Arrays = dict[str, NDArray[Any]]


@dataclass(kw_only=True)
class Walker:
    """One MD run: its ``result.json``, the scores of its frames by signal, and their vectors (n, d) if any."""

    name: str
    result: dict[str, Any]
    scores: Arrays
    vectors: NDArray[Any] | None


@dataclass(kw_only=True)
class Generation:
    """What one generation published; pieces that are not there yet are empty."""

    number: int
    decision: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    selection: dict[str, Any] = field(default_factory=dict)
    selected: list[tuple[str, int]] = field(default_factory=list)
    walkers: list[Walker] = field(default_factory=list)
    predictions: Arrays = field(default_factory=dict)
    stages: frozenset[str] = frozenset()

    @property
    def promoted(self) -> bool:
        """Whether the gate made this generation's potential the current one (the foundation always is at first)."""
        if self.number == 0:
            return True
        candidate, chosen = self.decision.get("fingerprint"), self.decision.get("promoted")
        if candidate and chosen:
            return bool(candidate == chosen)
        return self.decision.get("decision") == "promote"

    @property
    def stops(self) -> bool:
        """Whether the gate ended the campaign after this generation."""
        return bool(self.decision.get("stop")) or self.decision.get("decision") == "stop"

    @property
    def title(self) -> str:
        """Name in tables and legends."""
        return "foundation" if self.number == 0 else f"generation {self.number}"


@dataclass(kw_only=True)
class Campaign:
    """A campaign as read from disk; `problems` are files that could not be read, in words."""

    path: Path
    info: dict[str, Any]
    recipe: dict[str, Any]
    ledger: list[dict[str, Any]]
    generations: list[Generation]
    reference: list[dict[str, Any]]
    problems: list[str]

    @property
    def name(self) -> str:
        """Name from the recipe, or else of the directory."""
        return str(self.recipe.get("name") or self.info.get("name") or self.path.resolve().name)

    @property
    def foundation(self) -> Generation | None:
        """Generation 0."""
        return next((g for g in self.generations if g.number == 0), None)

    @property
    def current(self) -> Generation | None:
        """The generation whose potential is promoted now: generation 0 until a later one is."""
        promoted = [g for g in self.generations if g.promoted]
        decided = [g for g in self.generations if g.decision.get("promoted")]
        if decided:
            wanted = decided[-1].decision["promoted"]
            return next((g for g in promoted if g.decision.get("fingerprint") == wanted), promoted[-1])
        return promoted[-1] if promoted else None

    @property
    def finished(self) -> str | None:
        """Why the campaign ended, or None while it has not: the last generation's stop, or a `finished` event."""
        last = self.generations[-1] if self.generations else None
        if last is not None and last.stops:
            return str(last.decision.get("stop_reason") or last.decision.get("reason") or "the gate stopped it")
        ends = [e for e in self.ledger if e.get("event") in ("finished", "published")]
        return str(ends[-1].get("reason") or "") if ends and ends[-1]["event"] == "finished" else None

    @property
    def metric_set(self) -> str:
        """``test`` where any generation was evaluated on an independent test set, else ``valid``."""
        return "test" if any(g.evaluation.get("test") for g in self.generations) else "valid"

    def metrics(self, generation: Generation | None) -> dict[str, Any]:
        """Errors of a generation on :attr:`metric_set`, empty where there are none."""
        found = generation.evaluation.get(self.metric_set) if generation else None
        return found if isinstance(found, dict) else {}

    def before(self, generation: Generation) -> Generation | None:
        """The generation whose potential explored in `generation`: the one promoted when it began."""
        earlier = [g for g in self.generations if g.number < generation.number]
        wanted = next((g.decision["promoted"] for g in reversed(earlier) if g.decision.get("promoted")), None)
        promoted = [g for g in earlier if g.promoted]
        for g in promoted:
            if wanted and g.decision.get("fingerprint") == wanted:
                return g
        return promoted[-1] if promoted else None


class Reader:
    """Reads files that may be missing (empty result) or damaged (empty result and a line in `problems`)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []

    def _note(self, path: Path, error: Exception) -> None:
        self.problems.append(f"{path.relative_to(self.root)} could not be read: {error}")

    def json(self, path: Path, kind: type) -> Any:
        """Content of a JSON file if it is of this kind, else an empty one."""
        if not path.is_file():
            return kind()
        try:
            content: Any = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            self._note(path, error)
            return kind()
        if not isinstance(content, kind):
            self._note(path, ValueError(f"expected a JSON {'object' if kind is dict else 'list'}"))
            return kind()
        return [c for c in content if isinstance(c, dict)] if isinstance(content, list) else content

    def npz(self, path: Path) -> Arrays:
        """Numeric arrays of an ``.npz`` file (never unpickled)."""
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as data:
                return {k: data[k] for k in data.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            self._note(path, error)
            return {}

    def yaml(self, path: Path) -> dict[str, Any]:
        """A YAML mapping."""
        if not path.is_file():
            return {}
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            self._note(path, error)
            return {}
        return content if isinstance(content, dict) else {}

    def selected(self, path: Path) -> list[tuple[str, int]]:
        """Group and MD step of each frame chosen for labelling."""
        if not path.is_file() or not path.stat().st_size:
            return []
        from aldriver.core.frames import read_frames

        try:
            frames = read_frames(path)
        except AldriverError as error:
            self._note(path, error)
            return []
        return [(str(a.info["group"]), int(a.info["step"])) for a in frames if "step" in a.info]


def read_campaign(path: Path) -> Campaign:
    """Read whatever a campaign has published so far.

    Raises
    ------
    InputError
        When the directory does not look like a campaign at all.
    """
    path = Path(path)
    if not any((path / name).is_file() for name in ("campaign.json", "recipe.yaml", "ledger.jsonl")):
        raise InputError(
            f"{path}: not a campaign directory (no campaign.json, recipe.yaml or ledger.jsonl). "
            "Give the directory that `aldriver run` or `aldriver launch` made."
        )
    reader = Reader(path)
    ledger = [e for e in Ledger(path / "ledger.jsonl").read() if isinstance(e, dict)]
    generations = []
    for folder in sorted(path.glob("generation-*")):
        suffix = folder.name.removeprefix("generation-")
        if folder.is_dir() and suffix.isdigit():
            generations.append(_generation(reader, folder, int(suffix), ledger))
    generations.sort(key=lambda g: g.number)
    recipe = reader.yaml(path / "recipe.yaml")
    reference = reader.json(path / "generation-000" / "reference" / "records.json", list)
    return Campaign(
        path=path,
        info=reader.json(path / "campaign.json", dict),
        recipe=recipe,
        ledger=ledger,
        generations=generations,
        reference=reference or _reference_of_recipe(recipe),
        problems=reader.problems,
    )


def _generation(reader: Reader, folder: Path, number: int, ledger: list[dict[str, Any]]) -> Generation:
    labels = reader.json(folder / "label" / "labels.json", list)
    if not labels:  # under way: the ledger knows each finished label already
        labels = [e for e in ledger if e.get("event") == "label" and e.get("generation") == number]
    return Generation(
        number=number,
        decision=reader.json(folder / "gate" / "decision.json", dict),
        evaluation=reader.json(folder / "benchmark" / "evaluation.json", dict),
        records=reader.json(folder / "benchmark" / "records.json", list),
        labels=labels,
        training=reader.json(folder / "train" / "result.json", dict),
        selection=reader.json(folder / "select" / "selection.json", dict),
        selected=reader.selected(folder / "select" / "selected.extxyz"),
        walkers=[_walker(reader, w) for w in sorted((folder / "explore").glob("walker-*")) if w.is_dir()],
        predictions=reader.npz(folder / "train" / "predictions_test.npz"),
        stages=frozenset(d.name for d in folder.iterdir() if d.is_dir() and not d.name.startswith(".")),
    )


def _walker(reader: Reader, folder: Path) -> Walker:
    vectors = reader.npz(folder / "vectors.npz").get("vectors")
    scores: Arrays = {}
    for key, values in reader.npz(folder / "scores.npz").items():
        with suppress(ValueError, TypeError):
            scores[key] = np.asarray(values, dtype=float).ravel()
    return Walker(
        name=folder.name,
        result=reader.json(folder / "result.json", dict),
        scores=scores,
        vectors=vectors if vectors is not None and vectors.ndim == 2 else None,
    )


def _reference_of_recipe(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Records from the recipe's own ``benchmark.reference`` values."""
    section = recipe.get("benchmark")
    cases = section.get("reference") if isinstance(section, dict) else None
    if not isinstance(cases, dict):
        return []
    return [
        {"property": str(prop), "case": str(case), "value": value, "unit": "", "protocol": "recipe"}
        for case, values in cases.items()
        if isinstance(values, dict)
        for prop, value in values.items()
    ]


@dataclass(frozen=True, kw_only=True)
class StoredDetector:
    """Thresholds by signal, frame scores of training and held-out frames, and what frame vectors were divided by.

    Where force errors were known, the one threshold is that of ``score``.
    """

    thresholds: dict[str, float] = field(default_factory=dict)
    train: Arrays = field(default_factory=dict)
    heldout: Arrays = field(default_factory=dict)
    vector_scale: float = 1.0


def detector_of(campaign: Campaign, generation: Generation | None) -> StoredDetector:
    """The detector that scored in a generation, or that guards the current potential; an empty one where there is none.

    A generation that was not promoted leaves the promoted potential's detector with a newer calibration.
    """
    guard = campaign.before(generation) if generation else campaign.current
    fingerprint = str(guard.decision.get("fingerprint") or "") if guard else ""
    if not fingerprint or "/" in fingerprint or fingerprint.startswith("."):
        return StoredDetector()
    reader = Reader(campaign.path)
    last = max(g.number for g in campaign.generations if generation is None or g.number < generation.number)
    folder = campaign.path / f"generation-{last:03d}" / "gate" / "detector"
    if not folder.is_dir():
        folder = campaign.path / "potentials" / fingerprint / "detector"
    config = reader.json(folder / "config.json", dict)
    raw = config.get("thresholds")
    thresholds = {}
    for signal, value in raw.items() if isinstance(raw, dict) else ():
        number = finite(value.get("value") if isinstance(value, dict) else value)
        if number is not None:
            thresholds[str(signal)] = number
    heldout = reader.npz(folder / "heldout_scores.npz")
    calibration = config.get("calibration")
    if isinstance(calibration, dict) and calibration.get("formula"):
        limit = calibration.get("pooled")
        value = finite(limit.get("value")) if isinstance(limit, dict) else None
        if value:  # none where every frame is flagged
            thresholds["score"] = value
        heldout = heldout | {k: v for k, v in reader.npz(folder / "calibration.npz").items() if k == "score"}
    found = StoredDetector(
        thresholds=thresholds,
        train=reader.npz(folder / "train_scores.npz"),
        heldout=heldout,
        vector_scale=finite(config.get("vector_scale")) or 1.0,
    )
    campaign.problems.extend(p for p in reader.problems if p not in campaign.problems)
    return found
