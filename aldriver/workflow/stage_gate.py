"""Gate: the decision on a generation, from what its stages published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aldriver.core.records import dumps, jsonable, read_json
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.detection import audited, recalibrated
from aldriver.workflow.stages import publishing
from aldriver.workflow.storing import card, labelled_frames, records_of

if TYPE_CHECKING:
    from aldriver.benchmark.gate import GenerationScore


def gate_stage(campaign: Campaign, generation: int, index: int = 0) -> None:
    """``gate/decision.json``: promote, hold or roll back, whether to stop, and the numbers that decided it.

    With it what the labels say of the detector; and, of a generation that is not promoted, ``gate/detector``: the
    promoted potential's detector, calibrated on the labels that are new to it.
    """
    if campaign.is_published(generation, "gate"):
        return
    with publishing(campaign, "gate", generation, campaign.stage(generation, "gate")) as (tmp, _):
        decision = _baseline(campaign) if generation == 0 else _decide(campaign, generation)
        if generation > 0:
            decision["audit"] = audited(campaign, generation)
            if decision["decision"] != "promote":
                decision["recalibrated"] = recalibrated(campaign, generation, decision["promoted"], tmp / "detector")
        (tmp / "decision.json").write_text(dumps(decision))
    campaign.ledger.append("decision", **decision)


def _baseline(campaign: Campaign) -> dict[str, Any]:
    """The foundation is what there is; it may already be good enough."""
    fingerprint = read_json(campaign.stage(0, "train") / "result.json")["fingerprint"]
    test = read_json(campaign.stage(0, "benchmark") / "evaluation.json").get("test") or {}
    error, target = test.get("forces_rmse_meV_A"), campaign.recipe.stop.force_rmse_meV_A
    enough = error is not None and target is not None and error <= target
    return {
        "generation": 0,
        "decision": "promote",
        "reason": "the foundation: where the campaign starts",
        "stop": enough,
        "stop_reason": f"the foundation's force error, {error:.4g} meV/Å, is below the target" if enough else "",
        "numbers": {"force_rmse_meV_A": error},
        "fingerprint": fingerprint,
        "promoted": fingerprint,
    }


def _decide(campaign: Campaign, generation: int) -> dict[str, Any]:
    from aldriver.benchmark.gate import decide
    from aldriver.benchmark.settled import stop_reason
    from aldriver.workflow.steps import last_step

    recipe = campaign.recipe
    before = campaign.decision(generation - 1)["promoted"]
    trained = read_json(campaign.stage(generation, "train") / "result.json")
    labels = sum(len(frames) for frames in labelled_frames(campaign, generation))
    step = last_step(campaign, generation, before, trained["fingerprint"])
    decision = decide(
        _score(campaign, generation, trained),
        _promoted_score(campaign, generation, before),
        records_of(campaign, 0, "reference"),
        recipe.gate,
        recipe.stop,
        generation,
        labels,
        settled=stop_reason(step, campaign.decision(generation - 1).get("step")),
    )
    return {
        "generation": generation,
        "decision": decision.decision,
        "reason": decision.reason,
        "stop": decision.stop,
        "stop_reason": decision.stop_reason,
        "numbers": decision.numbers,
        "step": {**jsonable(step), "settled": step.settled},
        "labels": labels,
        "fingerprint": trained["fingerprint"],
        "promoted": trained["fingerprint"] if decision.decision == "promote" else before,
    }


def _score(campaign: Campaign, generation: int, trained: dict[str, Any]) -> GenerationScore:
    from aldriver.benchmark.gate import GenerationScore

    evaluation = read_json(campaign.stage(generation, "benchmark") / "evaluation.json")
    return GenerationScore(
        name=f"generation {generation}",
        evaluation=evaluation["test"] or evaluation["valid"] or {},
        held_out=_held_out(campaign),
        records=records_of(campaign, generation, "benchmark"),
        accepted=trained["accepted"],
        reason=trained["reason"],
    )


def _promoted_score(campaign: Campaign, generation: int, fingerprint: str) -> GenerationScore:
    """The promoted potential, on the test set, else on this generation's validation frames."""
    from aldriver.benchmark.gate import GenerationScore

    since = int(card(campaign, fingerprint)["generation"])
    test = read_json(campaign.stage(since, "benchmark") / "evaluation.json").get("test")
    valid = read_json(campaign.stage(generation, "benchmark") / "evaluation.json").get("promoted_valid")
    return GenerationScore(
        name="the foundation" if since == 0 else f"generation {since}",
        evaluation=test or valid or {},
        held_out=_held_out(campaign),
        records=records_of(campaign, since, "benchmark"),
    )


def _held_out(campaign: Campaign) -> str:
    has_test = (campaign.stage(0, "reference") / "test.extxyz").is_file()
    return "test set" if has_test else "validation frames"
