"""Generation 0: the reference's truth and test set, and the foundation with its first detector.

The foundation's own numbers are measured by the same stage as every generation's (``stage_benchmark.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import AldriverError
from aldriver.core.records import PropertyRecord, dumps
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.stages import load_potential, publishing, seed_for
from aldriver.workflow.storing import publish_potential, test_frames, write_predictions

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.workflow.progress import Progress

COPIES, HELD_OUT = 12, 8
"""Perturbed copies of each system the first detector is fitted and calibrated on."""
RATTLE_A, STRAIN = 0.05, 0.02
"""Thermal displacements of a metal near room temperature, and strains a foundation potential surely knows."""


def reference_stage(campaign: Campaign, generation: int, index: int = 0) -> None:
    """``reference/``: what to come near to (``records.json``), and the independent ``test.extxyz`` if there is one."""
    final = campaign.stage(0, "reference")
    if campaign.is_published(0, "reference"):
        return
    from aldriver.benchmark.gate import check_rules
    from aldriver.benchmark.suite import units
    from aldriver.core.frames import write_frames

    check_rules(campaign.recipe.gate, [name for _, name in units(campaign.recipe.benchmark, asked_for=True)])
    with publishing(campaign, "reference", 0, final) as (tmp, progress):
        (tmp / "records.json").write_text(dumps(_reference_records(campaign, progress)))
        frames = _test_frames(campaign, progress)
        if frames:
            write_frames(tmp / "test.extxyz", frames)


def baseline_stage(campaign: Campaign, generation: int, index: int = 0) -> None:
    """``train/`` of generation 0: the foundation as a bundle, with a detector of perturbed copies of the systems."""
    if campaign.is_published(0, "train"):
        return
    from aldriver.detect import Detector

    recipe = campaign.recipe
    with publishing(campaign, "train", 0, campaign.stage(0, "train")) as (tmp, progress):
        progress.update(note="loading the foundation", total=3)
        foundation = load_potential(campaign, recipe.potential, "train")
        known, heldout = _copies(campaign, 0, COPIES), _copies(campaign, COPIES, HELD_OUT)
        foundation.check_elements(known)
        progress.update(1, note="fitting the first detector")
        detector = Detector.fit(known, foundation, recipe.detect.without_committee(), heldout=heldout)
        card = {"generation": 0, "name": foundation.name, "parent": None, "e0_shift": None}
        folder = publish_potential(campaign, foundation, detector, card)
        progress.update(2, note="reference energies")
        shift = _foundation_shift(campaign, foundation, tmp)
        result = {
            "accepted": True,
            "reason": "the foundation",
            "fingerprint": foundation.fingerprint,
            "potential": folder.relative_to(campaign.root).as_posix(),
            "e0_shift": shift,
            "n_train": 0,
            "n_valid": 0,
        }
        (tmp / "result.json").write_text(dumps(result))


def _foundation_shift(campaign: Campaign, foundation: Any, out: Path) -> dict[str, float] | None:
    """Predictions on the test set, if it is there already, and the shift that brings its energies to one scale."""
    from aldriver.train.energies import energy_shift

    frames = test_frames(campaign)
    if not frames:
        return None
    shift = energy_shift(frames, foundation, campaign.recipe.train)
    write_predictions(out / "predictions_test.npz", foundation, frames, shift)
    return shift


def _copies(campaign: Campaign, first: int, count: int) -> list[Atoms]:
    from aldriver.core.systems import build_systems
    from aldriver.explore.perturb import rattle, strain

    copies = []
    for system in build_systems(campaign.recipe):
        for i in range(first, first + count):
            seed = seed_for(campaign.recipe.seed, "copies", system.info["system"], i)
            amount = STRAIN * (2.0 * (seed % 1001) / 1000.0 - 1.0)
            copy = rattle(strain(system, amount), RATTLE_A, seed=seed)
            copy.info = {"system": system.info["system"], "group": f"copy-{system.info['system']}-{i}"}
            copies.append(copy)
    return copies


def _reference_records(campaign: Campaign, progress: Progress) -> list[PropertyRecord]:
    recipe = campaign.recipe
    if recipe.benchmark.reference_file is not None:
        from aldriver.benchmark.comparison import read_candidate

        return list(read_candidate(recipe.benchmark.reference_file).records)
    if recipe.benchmark.reference:
        from aldriver.benchmark.suite import units

        unit = units(recipe.benchmark)
        return [
            PropertyRecord(property=name, case=case, value=value, unit=unit.get((case, name), ""), protocol="recipe")
            for case, values in recipe.benchmark.reference.items()
            for name, value in values.items()
        ]
    if recipe.label.engine != "calculator" or recipe.label.reference is None:
        return []
    from aldriver.benchmark.suite import run_suite

    done = 0

    def report(record: PropertyRecord) -> None:
        nonlocal done
        done += 1
        progress.update(done, note=f"reference: {record.property} of {record.case}")

    reference = load_potential(campaign, recipe.label.reference, "reference")
    return run_suite(reference, recipe.benchmark, cache_dir=campaign.cache, on_record=report)


def _test_frames(campaign: Campaign, progress: Progress) -> list[Atoms]:
    """Labelled frames of the recipe's file, or of MD with the reference potential itself."""
    from aldriver.core.frames import read_frames
    from aldriver.core.systems import build_systems

    recipe = campaign.recipe
    if recipe.test is None:
        return []
    if recipe.test.file is not None:
        return read_frames(recipe.test.file, labelled=True)
    assert recipe.label.reference is not None
    reference = load_potential(campaign, recipe.label.reference, "reference")
    frames: list[Atoms] = []
    for system in build_systems(recipe):
        for temperature in recipe.test.temperatures_K:
            progress.update(note=f"test set: {system.info['system']} at {temperature:g} K")
            frames += _test_walker(campaign, reference, system, temperature)
    return frames


def _test_walker(campaign: Campaign, reference: Any, system: Atoms, temperature: float) -> list[Atoms]:
    from aldriver.explore import HealthLimits, MDProtocol, run_walker

    recipe = campaign.recipe
    assert recipe.test is not None
    name = f"{system.info['system']}-{temperature:g}K"
    protocol = MDProtocol(
        ensemble="nvt",
        temperature_K=temperature,
        steps=recipe.test.steps,
        timestep_fs=recipe.explore.timestep_fs,
        sample_every=max(1, recipe.test.steps // (recipe.test.frames_per_walker + 1)),
        seed=seed_for(recipe.seed, "test", name),
    )
    health = HealthLimits(**recipe.explore.health.model_dump())
    result = run_walker(reference, system, protocol, engine=recipe.explore.engine, health=health, group=f"test-{name}")
    frames = result.frames[-recipe.test.frames_per_walker :]
    if len(frames) < recipe.test.frames_per_walker:
        raise AldriverError(
            f"the test set's MD of {name} with the reference ended early ({result.reason}: {result.message}); "
            "lower test.temperatures_K or check the system"
        )
    for frame in frames:
        frame.info |= {"system": system.info["system"], "temperature_K": temperature}
        frame.arrays.pop("momenta", None)
    return frames
