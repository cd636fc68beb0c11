"""The recipe: what a user writes to describe a campaign, checked before anything runs.

This module owns the schema, its defaults and its error messages. Building cells from it is ``core/systems.py``;
running it is ``workflow/``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from aldriver.core.errors import InputError
from aldriver.core.presets import LABELS, SUITES
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_detect import Detect
from aldriver.core.recipe_explore import Explore
from aldriver.core.recipe_export import Export
from aldriver.core.recipe_label import Label
from aldriver.core.recipe_train import Replay, Train
from aldriver.core.section import Element, Positive, Section, beside, unique_names
from aldriver.core.yamlfile import Location, line_of, load_yaml

Block = TypeVar("Block", bound=BaseModel)

Lattice = Literal["bcc", "fcc", "diamond", "hcp", "sc"]


class Bulk(Section):
    """A perfect crystal."""

    element: Element
    lattice: Lattice
    a: Positive = Field(description="lattice constant, Å")
    c: Positive | None = Field(default=None, description="hcp only, Å")
    cubic: bool = Field(default=True, description="conventional (True) or primitive cell")


class System(Section):
    """A cell in which walkers start: a structure file, or bulk + supercell + vacancies/solutes."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$")
    file: Path | None = Field(default=None, description="structure file (anything ASE reads); relative to the recipe")
    bulk: Bulk | None = None
    supercell: tuple[int, int, int] = (1, 1, 1)
    periodic: tuple[bool, bool, bool] = Field(
        default=(True, True, True),
        description="`false` opens a direction in MD (slabs: `[true, true, false]`); for label engines that know "
        "open directions, `calculator` and `ase`. DFT in plane waves takes a periodic cell with vacuum",
    )
    vacancies: int = Field(default=0, ge=0)
    solutes: dict[Element, int] = Field(default_factory=dict, description="element: number of substituted sites")

    @model_validator(mode="after")
    def _one_source(self) -> System:
        if (self.file is None) == (self.bulk is None):
            raise ValueError("give either `file` or `bulk`, not both and not neither")
        if min(self.supercell) < 1:
            raise ValueError("supercell repeats must be at least 1")
        if any(n > 1 for n, p in zip(self.supercell, self.periodic, strict=True) if not p):
            raise ValueError("a direction that is not periodic cannot be repeated (supercell)")
        if any(n < 1 for n in self.solutes.values()):
            raise ValueError("each solute needs a count of at least 1")
        return self


class TestSet(Section):
    """Independent labelled frames no generation trains on."""

    file: Path | None = Field(default=None, description="labelled extended XYZ, relative to the recipe")
    temperatures_K: list[Positive] = Field(
        default_factory=list, description="MD with the reference potential itself (engine: calculator), per system"
    )
    frames_per_walker: int = Field(default=5, ge=1)
    steps: int = Field(default=500, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> TestSet:
        if self.file is not None and self.temperatures_K:
            raise ValueError("give either `file` or `temperatures_K`, not both")
        return self


class Gate(Section):
    """When a generation is promoted."""

    max_force_rmse_ratio: Positive = Field(
        default=1.0, description="held-out force RMSE of the new generation over that of the promoted one"
    )
    max_property_worsening: Annotated[float, Field(ge=0)] = Field(
        default=0.1, description="largest allowed growth of a property's relative deviation from the reference"
    )
    tolerances: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="property: growth allowed in place of `max_property_worsening` "
        "(`binding_energy` stands for all of them)",
    )
    must_have: list[str] = Field(
        default_factory=list, description="properties without which a generation is held: each needs a trusted value"
    )
    rollback_ratio: Positive = Field(default=1.5, description="a ratio above this rolls back instead of holding")


class Stop(Section):
    """When the campaign ends."""

    generations: int = Field(default=3, ge=1)
    max_labels: int | None = Field(default=None, ge=1)
    force_rmse_meV_A: Positive | None = Field(default=None, description="stop once the test error is below this")
    settled: bool = Field(
        default=True,
        description="stop once errors, coverage and benchmark have settled over two generations: "
        "[how](how-it-works.md#the-gate)",
    )


class Resources(Section):
    """Where and how much: local workers, and per-stage FireWorks categories and queue parameters."""

    workers: int = Field(default=1, ge=1, le=64, description="worker processes of `aldriver run`")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of a stage; default: cores / workers")
    walltime_s: Positive = Field(default=86400.0, description="longest time of one stage")
    categories: dict[Literal["explore", "label", "train", "benchmark"], str] = Field(default_factory=dict)
    queue: dict[str, dict[str, Any]] = Field(default_factory=dict, description="category: _queueadapter parameters")
    device: Literal["cpu", "cuda"] = "cpu"


class Recipe(Section):
    """A campaign."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    seed: int = Field(default=0, ge=0)
    systems: list[System] = Field(min_length=1)
    potential: str
    explore: Explore = Explore()
    detect: Detect = Detect()
    label: Label
    train: Train = Train()
    benchmark: Benchmark
    test: TestSet | None = None
    gate: Gate = Gate()
    stop: Stop = Stop()
    export: Export = Export()
    resources: Resources = Resources()

    @field_validator("systems")
    @classmethod
    def _unique(cls, systems: list[System]) -> list[System]:
        unique_names([s.name for s in systems], "systems")
        return systems

    @model_validator(mode="after")
    def _test_needs_reference(self) -> Recipe:
        if self.test is not None and self.test.temperatures_K and self.label.engine != "calculator":
            raise ValueError(
                "test.temperatures_K runs MD with the reference itself, which needs label.engine 'calculator'; "
                "give test.file with labelled frames instead"
            )
        return self

    @model_validator(mode="after")
    def _labels_know_open_directions(self) -> Recipe:
        opened = [s.name for s in self.systems if not all(s.periodic)]
        if opened and self.label.engine not in ("calculator", "ase"):
            raise ValueError(
                f"system '{opened[0]}' is not periodic in all directions, which label.engine '{self.label.engine}' "
                "does not know; leave `periodic` out and give the cell enough vacuum"
            )
        return self

    @model_validator(mode="after")
    def _foundation_needs_a_signal(self) -> Recipe:
        if set(self.detect.signals) == {"committee"}:
            raise ValueError(
                "detect.signals: the foundation has no committee, so generation 1 needs another signal beside it"
            )
        return self

    def digest(self) -> str:
        """SHA-256 (16 characters) of the recipe with all defaults filled in."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe; relative files in it are resolved against its own folder.

    Raises
    ------
    InputError
        Listing each problem with its line, the value given and what is allowed.
    """
    path = Path(path)
    data, lines = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError(
            f"{path}: a recipe is a mapping of keys (name, systems, potential, ...); see `aldriver schema`"
        )
    try:
        recipe = Recipe.model_validate(SUITES.beside(LABELS.beside(data, path), path))
    except ValidationError as error:
        problems = [_explain(path, lines, data, e) for e in error.errors()]
        raise InputError("\n".join(problems)) from error
    return _resolve_files(recipe, path, lines)


def load_label(path: str | Path) -> Label:
    """The ``label`` block of a recipe, of a file that holds ``label:`` alone, or of one that holds just what is in it.

    Raises
    ------
    InputError
        As :func:`load_recipe`.
    """
    path = Path(path)
    data, lines = load_yaml(path)
    if isinstance(data, dict) and "systems" in data:
        return load_recipe(path).label
    if not isinstance(data, dict):
        raise InputError(f"{path}: a label block is a mapping of keys (engine, limits, ...): docs/recipe.md")
    try:
        if set(data) == {"label"}:
            return _LabelFile.model_validate(LABELS.beside(data, path)).label
        return Label.model_validate(LABELS.beside({"label": data}, path)["label"])
    except ValidationError as error:
        model = _LabelFile if set(data) == {"label"} else Label
        problems = [_explain(path, lines, data, e, model) for e in error.errors()]
        raise InputError("\n".join(problems)) from error


class _LabelFile(Section):
    """A file that holds ``label:`` and nothing else."""

    label: Label


def load_suite(name: str | Path) -> Benchmark:
    """A suite by its name, or the ``benchmark`` block in a file of its own; files in it are relative to its folder.

    Raises
    ------
    InputError
        As :func:`load_recipe`.
    """
    if Path(name).suffix not in (".yaml", ".yml"):
        SUITES.load(str(name))  # says which there are
        name = SUITES.where() / f"{name}.yaml"
    data, lines = load_yaml(name)
    wrapped = isinstance(data, dict) and set(data) == {"benchmark"}
    try:
        suite = _SuiteFile.model_validate(data).benchmark if wrapped else Benchmark.model_validate(data)
        return beside(suite, Path(name).resolve().parent)
    except ValidationError as error:
        model = _SuiteFile if wrapped else Benchmark
        problems = [_explain(Path(name), lines, data, e, model) for e in error.errors()]
        raise InputError("\n".join(problems)) from error


class _SuiteFile(Section):
    """A file that holds ``benchmark:`` and nothing else."""

    benchmark: Benchmark


def load_train(path: str | Path) -> Train:
    """Read and check a ``train`` block that stands in a file of its own; files in it are relative to its folder.

    Raises
    ------
    InputError
        As :func:`load_recipe`.
    """
    settings, lines = _load_block(Path(path), Train)
    return _resolve_train(settings, Path(path), lines, ())


def load_detect(path: str | Path) -> Detect:
    """Read and check a ``detect`` block that stands in a file of its own.

    Raises
    ------
    InputError
        As :func:`load_recipe`.
    """
    return _load_block(Path(path), Detect)[0]


def _load_block(path: Path, model: type[Block]) -> tuple[Block, dict[Location, int]]:
    data, lines = load_yaml(path)
    if not isinstance(data, dict | None):
        raise InputError(f"{path}: settings are a mapping of keys ({', '.join(model.model_fields)}): docs/recipe.md")
    try:
        return model.model_validate(data or {}), lines
    except ValidationError as error:
        problems = [_explain(path, lines, data, e, model) for e in error.errors()]
        raise InputError("\n".join(problems)) from error


def _resolve_files(recipe: Recipe, path: Path, lines: dict[Location, int]) -> Recipe:
    base = path.resolve().parent
    systems = []
    for i, system in enumerate(recipe.systems):
        if system.file is not None:
            file = base / system.file
            if not file.is_file():
                line = line_of(lines, ("systems", i, "file"))
                raise InputError(f"{path}, line {line}: systems.{i}.file: {file} does not exist")
            system = system.model_copy(update={"file": file})
        systems.append(system)
    update: dict[str, Any] = {"systems": systems}
    if recipe.test is not None and recipe.test.file is not None:
        file = base / recipe.test.file
        if not file.is_file():
            raise InputError(f"{path}, line {line_of(lines, ('test', 'file'))}: test.file: {file} does not exist")
        update["test"] = recipe.test.model_copy(update={"file": file})
    if recipe.explore.lammps_input is not None:
        where: Location = ("explore", "lammps_input")
        file = _existing(path, lines, base, where, recipe.explore.lammps_input)
        update["explore"] = recipe.explore.model_copy(update={"lammps_input": file})
    update["train"] = _resolve_train(recipe.train, path, lines, ("train",))
    return recipe.model_copy(update=update)


def _resolve_train(train: Train, path: Path, lines: dict[Location, int], where: Location) -> Train:
    base = path.resolve().parent

    def resolved(replay: Replay, *keys: str | int) -> Replay:
        if not isinstance(replay.source, Path):
            return replay
        found = _existing(path, lines, base, (*where, *keys, "replay", "source"), replay.source)
        return replay.model_copy(update={"source": found})

    guard = train.guard
    if guard.general is not None:
        guard = guard.model_copy(
            update={"general": _existing(path, lines, base, (*where, "guard", "general"), guard.general)}
        )
    fallbacks = [
        a if a.replay is None else a.model_copy(update={"replay": resolved(a.replay, "fallbacks", k)})
        for k, a in enumerate(train.fallbacks)
    ]
    return train.model_copy(update={"replay": resolved(train.replay), "guard": guard, "fallbacks": fallbacks})


def _existing(path: Path, lines: dict[Location, int], base: Path, where: Location, file: Path) -> Path:
    found = base / file
    if not found.is_file():
        raise InputError(f"{path}, line {line_of(lines, where)}: {'.'.join(map(str, where))}: {found} does not exist")
    return found


def _explain(path: Path, lines: dict[Location, int], data: Any, error: Any, model: type[BaseModel] = Recipe) -> str:
    where: Location = tuple(error["loc"])
    key = ".".join(str(k) for k in where) or "recipe"
    line = line_of(lines, where)
    head = f"{path}, line {line}: {key}"
    if error["type"] == "extra_forbidden":
        known = _known_keys(where[:-1], model)
        close = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"allowed here: {', '.join(known)}"
        return f"{head}: unknown key; {hint}"
    if error["type"] == "missing":
        return f"{head}: required, but not given"
    message = error["msg"].removeprefix("Value error, ")
    value = error.get("input")
    shown = "" if isinstance(value, dict | list) else f" (got {value!r})"
    return f"{head}: {message}{shown}"


def _known_keys(where: Location, root: type[BaseModel]) -> list[str]:
    model: Any = root
    for part in where:
        if isinstance(part, int):
            continue
        model = _section_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _section_in(annotation: Any) -> Any:
    """The Section class inside Optional[...] / list[...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for arg in getattr(annotation, "__args__", ()):
        found = _section_in(arg)
        if found is not None:
            return found
    return None


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe (for editors and for `aldriver schema`)."""
    return Recipe.model_json_schema()
