"""Explore: one walker of a generation, with the promoted potential and its detector watching."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.errors import InputError, StoreError
from aldriver.core.records import dumps, read_json
from aldriver.core.store import is_published
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.detection import promoted_pair
from aldriver.workflow.stages import publishing, seed_for

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe import Recipe
    from aldriver.detect import Detector
    from aldriver.explore import MDProtocol, WalkerResult
    from aldriver.potentials import Potential
    from aldriver.workflow.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Walker:
    """One of the recipe's walkers: system × temperature × strain."""

    index: int
    system: int
    name: str
    temperature_K: float
    strain: float


def walkers(recipe: Recipe) -> list[Walker]:
    """All walkers of a generation, always in the same order."""
    found: list[Walker] = []
    for s, system in enumerate(recipe.systems):
        for temperature in recipe.explore.temperatures_K:
            for strain in recipe.explore.strains:
                walker = Walker(index=len(found), system=s, name=system.name, temperature_K=temperature, strain=strain)
                found.append(walker)
    return found


def explore_stage(campaign: Campaign, generation: int, index: int) -> None:
    """``explore/walker-NNN/``: frames, scores and vectors of one walker, and the reason for which it ended.

    A walker that cannot run is published with the reason ``error``: the others go on without it. Checkpoint, log and
    dump lie in a work directory until then, so that a killed walker goes on where it was saved.
    """
    final = campaign.walker(generation, index)
    if is_published(final):
        return
    walker = walkers(campaign.recipe)[index]
    potential, detector = promoted_pair(campaign, generation - 1)
    start, origin = _start(campaign, generation, walker)
    work = _work(campaign, generation, index)
    with publishing(campaign, "explore", generation, final, index=index) as (tmp, progress):
        try:
            result = _walk(campaign, generation, walker, start, potential, detector, progress)
            vectors = detector.frame_vectors(result.frames, potential=potential) if result.frames else np.zeros((0, 0))
        except (StoreError, MemoryError):
            raise
        except Exception as error:
            _write_failure(tmp, walker, generation, start, f"{type(error).__name__}: {error}")
        else:
            _write(tmp, walker, generation, result, vectors, origin)
        _take_files(work, tmp)
    shutil.rmtree(work, ignore_errors=True)


def _work(campaign: Campaign, generation: int, index: int) -> Path:
    return campaign.generation(generation) / f".work-explore-{index:03d}"


def _take_files(work: Path, out: Path) -> None:
    """Copy what LAMMPS wrote (log, dumps) beside the result."""
    for file in sorted((work / "files").glob("*")):
        shutil.copy2(file, out / file.name)


def publish_failure(campaign: Campaign, generation: int, index: int, message: str) -> None:
    """Publish a walker without frames: its process died each time it was tried."""
    walker = walkers(campaign.recipe)[index]
    start, _ = _start(campaign, generation, walker)
    if not is_published(campaign.walker(generation, index)):
        with publishing(campaign, "explore", generation, campaign.walker(generation, index), index=index) as (tmp, _p):
            _write_failure(tmp, walker, generation, start, message)
            _take_files(_work(campaign, generation, index), tmp)
    shutil.rmtree(_work(campaign, generation, index), ignore_errors=True)


def _start(campaign: Campaign, generation: int, walker: Walker) -> tuple[Atoms, str]:
    """Where a walker starts: where it ended healthily in the last generation, else at its (strained, rattled) cell."""
    from aldriver.core.frames import read_frames
    from aldriver.core.systems import build_system
    from aldriver.explore.perturb import rattle, strain

    recipe = campaign.recipe
    before = campaign.walker(generation - 1, walker.index)
    if recipe.explore.continue_walkers and generation > 1 and is_published(before):
        result = read_json(before / "result.json")
        same = all(result.get(k) == getattr(walker, k) for k in ("temperature_K", "strain")) and (
            result.get("system") == walker.name
        )
        if result["reason"] == "completed" and same:
            return read_frames(before / "last.extxyz")[0], "the last frame of the previous generation"
    atoms = build_system(recipe.systems[walker.system], seed=recipe.seed)
    if walker.strain:
        atoms = strain(atoms, walker.strain)
    if recipe.explore.rattle_A:
        atoms = rattle(atoms, recipe.explore.rattle_A, seed=seed_for(recipe.seed, "rattle", generation, walker.index))
    return atoms, "the start cell"


def _walk(
    campaign: Campaign,
    generation: int,
    walker: Walker,
    start: Atoms,
    potential: Potential,
    detector: Detector,
    progress: Progress,
) -> WalkerResult:
    from aldriver.explore import HealthLimits, run_walker

    recipe = campaign.recipe
    e = recipe.explore
    protocol = _protocol(recipe, walker, seed_for(recipe.seed, "walker", generation, walker.index))
    work = _work(campaign, generation, walker.index)
    if recipe.resources.threads is None:
        _settle_threads(potential, start)

    def sampled(frame: Atoms, scores: dict[str, float]) -> None:
        progress.update(frame.info["step"], e.steps, f"{walker.name} at {walker.temperature_K:g} K")

    progress.update(0, e.steps)
    return run_walker(
        potential,
        start,
        protocol,
        engine=e.engine,
        health=HealthLimits(**e.health.model_dump()),
        scorer=detector.scorer(potential),
        on_sample=sampled,
        group=_group(generation, walker),
        out=work / "files",
        checkpoint=work / "checkpoint",
        checkpoint_every=e.checkpoint_every,
    )


def _settle_threads(potential: Potential, start: Atoms) -> None:
    """Give a network on the CPU as many threads of this worker's share as make it faster."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or torch.get_num_threads() == 1 or getattr(potential, "device", None) != torch.device("cpu"):
        return
    from aldriver.potentials.threads import settle_threads

    stepper, cell = potential.stepper(start), np.asarray(start.cell)
    settle_threads(lambda: stepper(start.positions, cell))


def _protocol(recipe: Recipe, walker: Walker, seed: int) -> MDProtocol:
    from aldriver.explore import MDProtocol, Swaps

    e = recipe.explore
    return MDProtocol(
        precision=e.precision,
        ensemble=e.ensemble,
        thermostat=e.thermostat,
        temperature_K=walker.temperature_K,
        temperature_end_K=e.temperature_end_K,
        pressure_GPa=e.pressure_GPa,
        pressure_end_GPa=e.pressure_end_GPa,
        flexible=e.flexible,
        deform_per_ps={str(k): rate for k, rate in e.deform_per_ps.items()},
        swaps=None if e.swaps is None else Swaps(**e.swaps.model_dump() | {"pairs": tuple(e.swaps.pairs)}),
        steps=e.steps,
        timestep_fs=e.timestep_fs,
        sample_every=e.sample_every,
        seed=seed,
        tdamp_fs=e.tdamp_fs,
        pdamp_fs=e.pdamp_fs,
        rescale=e.temperature_end_K is not None,  # a walker goes on at the end of the last generation's ramp
        thermo_every=e.thermo_every,
        dump_every=e.dump_every,
        compress=e.dump_gz,
        lammps_input=None if e.lammps_input is None else e.lammps_input.read_text(),
    )


def _group(generation: int, walker: Walker) -> str:
    return f"g{generation:03d}-w{walker.index:03d}"


def _facts(walker: Walker, generation: int) -> dict[str, Any]:
    return {
        "system": walker.name,
        "temperature_K": walker.temperature_K,
        "strain": walker.strain,
        "group": _group(generation, walker),
        "generation": generation,
        "walker": walker.index,
    }


def _write(
    tmp: Path, walker: Walker, generation: int, result: WalkerResult, vectors: np.ndarray[Any, Any], origin: str
) -> None:
    from aldriver.core.frames import write_frames

    facts = _facts(walker, generation)
    for frame in result.frames:
        frame.info |= {k: facts[k] for k in ("system", "generation", "walker")}
    write_frames(tmp / "frames.extxyz", result.frames)
    write_frames(tmp / "last.extxyz", [result.last])
    signals = sorted({k for scores in result.scores for k in scores})
    arrays: dict[str, Any] = {
        k: np.array([scores.get(k, np.nan) for scores in result.scores], dtype=float) for k in signals
    }
    arrays["step"] = np.array([frame.info["step"] for frame in result.frames], dtype=int)
    np.savez_compressed(tmp / "scores.npz", **arrays)
    np.savez_compressed(tmp / "vectors.npz", vectors=vectors)
    outcome = {"reason": result.reason, "message": result.message, "steps_done": result.steps_done}
    outcome |= {
        "swaps": list(result.swaps),
        "seconds": result.seconds,
        "n_frames": len(result.frames),
        "started_from": origin,
    }
    (tmp / "result.json").write_text(dumps(outcome | facts))


def _write_failure(tmp: Path, walker: Walker, generation: int, start: Atoms, message: str) -> None:
    from aldriver.core.frames import write_frames

    write_frames(tmp / "frames.extxyz", [])
    write_frames(tmp / "last.extxyz", [start])
    np.savez_compressed(tmp / "scores.npz", ratio=np.zeros(0), step=np.zeros(0, dtype=int))
    np.savez_compressed(tmp / "vectors.npz", vectors=np.zeros((0, 0)))
    outcome = {"reason": "error", "message": message, "steps_done": 0, "seconds": 0.0, "n_frames": 0}
    (tmp / "result.json").write_text(json.dumps(outcome | _facts(walker, generation)))


def check_walkers(campaign: Campaign, generation: int) -> list[dict[str, Any]]:
    """Results of all walkers of a generation.

    Raises
    ------
    InputError
        When not a single one could run.
    """
    results = [read_json(campaign.walker(generation, w.index) / "result.json") for w in walkers(campaign.recipe)]
    if all(r["reason"] == "error" for r in results):
        raise InputError(f"no walker of generation {generation} could run; the first one: {results[0]['message']}")
    return results
