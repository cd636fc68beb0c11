"""Benchmark: the suite and the held-out errors of a generation's potential; relaxations for it by several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aldriver.core.records import PropertyRecord, dumps, read_json
from aldriver.core.store import is_published
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.stages import load_potential, publishing
from aldriver.workflow.storing import card, test_frames

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.potentials import Potential


def relax_stage(campaign: Campaign, generation: int, index: int = 0) -> None:
    """``relax/helper-<index>/made.json``: relaxations of the suite, made beside the other helpers until all are there.

    They themselves go into the campaign's benchmark store, from which :func:`benchmark_stage` takes them.
    """
    final, settings = campaign.helper(generation, index), campaign.recipe.benchmark
    if is_published(final):
        return
    trained = read_json(campaign.stage(generation, "train") / "result.json")
    with publishing(campaign, "relax", generation, final, index=index) as (tmp, progress):
        records: list[PropertyRecord] = []
        if trained["accepted"]:
            from aldriver.benchmark.suite import run_suite

            records = run_suite(
                load_potential(campaign, campaign.potential(trained["fingerprint"]), "relax"),
                settings,
                cache_dir=campaign.cache,
                on_relaxation=lambda done, total, slot: progress.update(done, total, note=slot),
                worker=index,
                workers=settings.helpers,
            )
        (tmp / "made.json").write_text(dumps({"records": len(records)}))


def benchmark_stage(campaign: Campaign, generation: int, index: int = 0) -> None:
    """``benchmark/``: ``records.json``, and ``evaluation.json`` with ``test``, ``valid`` and ``promoted_valid``.

    The last is the promoted potential on the same validation frames, for a gate without a test set. A generation whose
    training was not accepted has nothing to benchmark, and says so.
    """
    if campaign.is_published(generation, "benchmark"):
        return
    trained = read_json(campaign.stage(generation, "train") / "result.json")
    with publishing(campaign, "benchmark", generation, campaign.stage(generation, "benchmark")) as (tmp, progress):
        records: list[PropertyRecord] = []
        evaluation: dict[str, Any] = {"test": None, "valid": None, "promoted_valid": None}
        if trained["accepted"]:
            from aldriver.benchmark.suite import run_suite

            potential = load_potential(campaign, campaign.potential(trained["fingerprint"]), "benchmark")
            progress.update(note="held-out errors")
            evaluation |= _errors(campaign, generation, potential, trained["e0_shift"])

            records = run_suite(
                potential,
                campaign.recipe.benchmark,
                cache_dir=campaign.cache,
                on_record=lambda record: progress.update(note=f"{record.property} of {record.case}"),
                on_relaxation=lambda done, total, slot: progress.update(done, total, note=slot),
            )
        else:
            evaluation["reason"] = trained["reason"]
        (tmp / "records.json").write_text(dumps(records))
        (tmp / "evaluation.json").write_text(dumps(evaluation))


def _errors(
    campaign: Campaign, generation: int, potential: Potential, shift: Mapping[str, float] | None
) -> dict[str, Any]:
    from aldriver.core.frames import read_frames

    found: dict[str, Any] = {"test": _evaluated(potential, test_frames(campaign), shift)}
    path = campaign.stage(generation, "train") / "valid.extxyz"
    valid = read_frames(path, labelled=True) if generation > 0 and path.is_file() else []
    if valid:
        found["valid"] = _evaluated(potential, valid, shift)
        fingerprint = campaign.decision(generation - 1)["promoted"]
        promoted = load_potential(campaign, campaign.potential(fingerprint), "benchmark")
        found["promoted_valid"] = _evaluated(promoted, valid, card(campaign, fingerprint).get("e0_shift") or shift)
    return found


def _evaluated(potential: Potential, frames: list[Atoms], shift: Mapping[str, float] | None) -> dict[str, Any] | None:
    from aldriver.benchmark.evaluate import evaluate

    return dict(evaluate(potential, frames, e0_shift=shift)) if frames else None
