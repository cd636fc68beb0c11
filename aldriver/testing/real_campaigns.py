"""Two shipped recipes with real DFT, run as they are: do errors fall on DFT frames that are none of the campaign's?

For each recipe (``si``, ``al``): test cells (``real_cells.py``) labelled with the recipe's own `label` block, the
campaign by ``aldriver run``, the errors of the foundation and of every generation on those cells as ``aldriver
evaluate`` reckons them, E–V curve and vacancy against the same DFT (``real_dft.py``), and how far the settings of the
DFT are converged. Every part goes on where it was stopped: labels lie in stores, the campaign in its own directory.
Needs Quantum ESPRESSO. Results in ``docs/real_campaigns.json``, tables and figure on ``docs/real_campaigns.md``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.records import dumps, read_json
from aldriver.core.store import atomic_write, sha256_file
from aldriver.testing import real_cells, real_dft, real_page, runs
from aldriver.testing.real_cells import Classical, Plan

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe import Recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
GENERATIONS = 100
"""More than a recipe asks for."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A campaign and what it is tested on.

    Attributes
    ----------
    recipe
        File in ``recipes/``.
    a
        Lattice constant of its bulk cell, Å.
    lattice
        ASE's name of the crystal, for the cell of another size.
    plan
        Its test cells.
    variants
        Changes of the recipe's DFT settings whose effect is shown.
    """

    recipe: str
    element: str
    lattice: str
    a: float
    plan: Plan
    variants: dict[str, dict[str, Any]]


CASES = {
    "si": Case(
        recipe="si_vacancy_qe.yaml",
        element="Si",
        lattice="diamond",
        a=5.47,
        plan=Plan(
            classical=Classical(style="sw", file="Si.sw"),
            warm_K=(300.0, 800.0),
            hot_K=1500.0,
            other=(2, 1, 1),
            other_cubic=True,
        ),
        variants={"45 Ry": {"ecutwfc_Ry": 45.0}, "5×5×5 k-points": {"kpoints": (5, 5, 5)}},
    ),
    "al": Case(
        recipe="al_vacancy_qe.yaml",
        element="Al",
        lattice="fcc",
        a=3.97,
        plan=Plan(
            classical=Classical(style="eam/fs", file="Al_mm.eam.fs"),
            warm_K=(300.0, 600.0),
            hot_K=1100.0,
            other=(3, 3, 2),
            other_cubic=False,
        ),
        variants={"30 Ry": {"ecutwfc_Ry": 30.0}, "4×4×4 k-points": {"kpoints": (4, 4, 4)}},
    ),
}


def compute(name: str, data: Path | None, work: Path) -> dict[str, Any]:
    """One campaign and its tests."""
    from aldriver.core.recipe import load_recipe

    case = CASES[name]
    path = RECIPES / case.recipe
    recipe = load_recipe(path)
    work.mkdir(parents=True, exist_ok=True)
    frames = _test_frames(case, recipe, path, work)
    campaign = work / "campaign"
    _aldriver("run", str(path), "--dir", str(campaign), json_to=work / "run.json")
    return {
        "recipe": case.recipe,
        "foundation": recipe.potential,
        "state": read_json(work / "run.json")["state"],
        "dft": _settings(recipe),
        "frames": real_cells.classes(frames),
        "generations": generations(campaign, work / "test" / "dataset.extxyz", work / "errors"),
        "properties": _properties(case, recipe, campaign, work),
        "convergence": _convergence(case, recipe, frames, work),
        "cost": cost(campaign) | {"test_dft_cpu_s": _dft_cpu(work / "test")},
    }


def _test_frames(case: Case, recipe: Recipe, path: Path, work: Path) -> list[Atoms]:
    """Make the test cells once, and label them with the recipe's own settings."""
    from ase.build import bulk as crystal

    from aldriver.core.frames import read_frames, write_frames
    from aldriver.core.systems import build_systems

    cells = work / "test_cells.extxyz"
    if not cells.is_file():
        other = crystal(case.element, case.lattice, a=case.a, cubic=case.plan.other_cubic).repeat(case.plan.other)
        write_frames(work / "making.extxyz", real_cells.make_cells(case.plan, build_systems(recipe)[0], other))
        (work / "making.extxyz").rename(cells)
    _aldriver("label", "run", str(cells), "--spec", str(path), "--out", str(work / "test"), json_to=work / "test.json")
    return read_frames(work / "test" / "dataset.extxyz", labelled=True)


def generations(campaign: Path, dataset: Path, out: Path) -> list[dict[str, Any]]:
    """Foundation and generations: labels so far, errors on the test cells by class, decision, audit of the detector."""
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for generation in range(GENERATIONS):
        stage = campaign / f"generation-{generation:03d}"
        if not (stage / "gate" / "decision.json").is_file():
            break
        decision = read_json(stage / "gate" / "decision.json")
        trained = read_json(stage / "train" / "result.json")
        row = {
            "generation": generation,
            "labels": decision.get("labels", 0),
            "decision": decision["decision"],
            "reason": decision["reason"],
            "accepted": trained["accepted"],
            "audit": decision.get("audit"),
            "held_out": _held_out(stage),
            "errors": None,
        }
        if trained["accepted"]:
            potential = campaign / "potentials" / trained["fingerprint"]
            row["potential"] = trained["fingerprint"]
            row["errors"] = _evaluated(potential, dataset, out / f"{trained['fingerprint']}.json")
        found.append(row)
    return found


def _held_out(stage: Path) -> dict[str, Any] | None:
    """The campaign's own errors on its validation frames."""
    path = stage / "benchmark" / "evaluation.json"
    return read_json(path).get("valid") if path.is_file() else None


def _evaluated(potential: Path, dataset: Path, kept: Path) -> dict[str, Any]:
    if not kept.is_file():
        _aldriver("evaluate", str(potential), str(dataset), json_to=kept)
    errors = dict(read_json(kept))
    for key in ("potential", "frames", "elements", "compositions"):
        errors.pop(key, None)
    return errors


def _properties(case: Case, recipe: Recipe, campaign: Path, work: Path) -> dict[str, Any]:
    """E–V curve and vacancy by DFT, the foundation and each generation: same cell, same steps."""
    from aldriver import load
    from aldriver.core.systems import build_systems

    bulk = build_systems(recipe)[0]
    found: dict[str, Any] = {}
    folder = work / "properties"
    folder.mkdir(exist_ok=True)

    def kept(name: str, make: Any) -> None:
        path = folder / f"{name}.json"
        if not path.is_file():
            atomic_write(path, dumps(asdict(real_dft.properties(make(), bulk, case.a))))
        found[name] = read_json(path)

    kept("dft", lambda: real_dft.Labelled(recipe.label, [case.element], folder / "labels"))
    found["dft"]["cpu_s"] = _dft_cpu(folder / "labels")
    for generation in range(GENERATIONS):
        result = campaign / f"generation-{generation:03d}" / "train" / "result.json"
        if not result.is_file():
            break
        trained = read_json(result)
        if trained["accepted"]:
            potential = campaign / "potentials" / trained["fingerprint"]
            kept(f"generation-{generation}", lambda potential=potential: load(potential))
    return found


def _convergence(case: Case, recipe: Recipe, frames: list[Atoms], work: Path) -> dict[str, Any]:
    path = work / "convergence.json"
    if not path.is_file():
        frame = [f for f in frames if f.info["group"] == "vacancy"][-1]
        store = work / "convergence"
        atomic_write(path, dumps(real_dft.convergence(recipe.label, case.variants, frame, store)))
    return dict(read_json(path))


def cost(campaign: Path) -> dict[str, Any]:
    """CPU and wall seconds of a campaign's tasks by stage, its DFT apart; labels and how they ended."""
    events = [json.loads(line) for line in (campaign / "ledger.jsonl").read_text().splitlines()]
    stages: dict[str, dict[str, float]] = {}
    for event in events:
        if event["event"] == "published":
            row = stages.setdefault(event["stage"], {"cpu_s": 0.0, "seconds": 0.0})
            row["cpu_s"] += event["cpu_s"]
            row["seconds"] += event["seconds"]
    labels = [event for event in events if event["event"] == "label"]
    return {
        "stages": stages,
        "labels": len(labels),
        "labels_failed": sum(event["status"] != "ok" for event in labels),
        "dft_cpu_s": sum(event["cpu_s"] or 0.0 for event in labels if not event["cached"]),
    }


def _dft_cpu(store: Path) -> float:
    """CPU seconds of all labels of a store."""
    return float(sum(read_json(path)["cpu_s"] for path in store.glob("*/label.json")))


def _settings(recipe: Recipe) -> dict[str, Any]:
    espresso = recipe.label.espresso
    assert espresso is not None
    return espresso.model_dump(mode="json", exclude_none=True, exclude={"pseudo_dir", "command"})


def _aldriver(*arguments: str, json_to: Path) -> None:
    """Run a command of aldriver in a process of its own, as a user does; its progress is shown."""
    start = "import sys; from aldriver.cli.main import main; main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", start, *arguments, "--json", str(json_to)], check=True)


def study() -> runs.Study:
    """The study, for :func:`aldriver.testing.runs.main`."""
    return runs.Study(
        name="real_campaigns",
        what=__doc__ or "",
        constants={
            "cells": real_cells.CONSTANTS,
            "properties": real_dft.CONSTANTS,
            "cases": {
                name: asdict(case) | {"recipe_sha256": sha256_file(RECIPES / case.recipe)}
                for name, case in CASES.items()
            },
        },
        runs=tuple(CASES),
        compute=compute,
        summary=real_page.summary,
        sections=real_page.sections,
        figure=real_page.draw,
    )


if __name__ == "__main__":
    raise SystemExit(runs.main(study()))
