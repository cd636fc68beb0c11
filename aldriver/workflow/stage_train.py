"""Train: refine on all labels so far, and fit the detector that guards the new potential."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import AldriverError
from aldriver.core.records import dumps
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.stages import load_potential, publishing, seed_for
from aldriver.workflow.storing import labelled_frames, publish_potential, test_frames, write_predictions

if TYPE_CHECKING:
    from ase import Atoms

    from aldriver.core.recipe_train import Train
    from aldriver.potentials import Potential
    from aldriver.train import TrainResult
    from aldriver.workflow.progress import Progress


WORK = ".work-train"


def train_stage(campaign: Campaign, generation: int, index: int = 0) -> None:
    """``train/`` and, when training was accepted, ``potentials/<fingerprint>/`` with its detector.

    Checkpoints lie in a work directory beside it until the stage is published, so that a killed training goes on where
    it was. Without new labels, or with too few, nothing is trained and the reason is published.
    """
    if campaign.is_published(generation, "train"):
        return
    from aldriver.core.frames import write_frames

    work = _work_folder(campaign, generation)
    per_generation = labelled_frames(campaign, generation)
    known, valid, notes = split(campaign, per_generation)
    with publishing(campaign, "train", generation, campaign.stage(generation, "train")) as (tmp, progress):
        write_frames(tmp / "train.extxyz", known)
        write_frames(tmp / "valid.extxyz", valid)
        facts: dict[str, Any] = {"n_train": len(known), "n_valid": len(valid), "split": notes}
        reason = _why_not(per_generation, known, valid)
        if reason:
            facts |= {"accepted": False, "reason": reason, "fingerprint": None, "potential": None, "e0_shift": None}
            (tmp / "history.jsonl").touch()
        else:
            facts |= _train(campaign, generation, known, valid, work, tmp, progress)
        (tmp / "result.json").write_text(dumps(facts))
    shutil.rmtree(work, ignore_errors=True)


def _work_folder(campaign: Campaign, generation: int) -> Path:
    """Where a training with the recipe's settings keeps its checkpoints; those of other settings are removed.

    A checkpoint refuses other settings than its own: after a change of the recipe that was accepted in the middle of a
    training, the training starts anew.
    """
    recipe = campaign.recipe
    settings = dumps(
        {"train": recipe.train.model_dump(mode="json"), "seed": recipe.seed, "potential": recipe.potential}
    )
    work = campaign.generation(generation) / f"{WORK}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
    for other in campaign.generation(generation).glob(f"{WORK}*"):
        if other != work:
            shutil.rmtree(other, ignore_errors=True)
    return work


def split(campaign: Campaign, per_generation: list[list[Atoms]]) -> tuple[list[Atoms], list[Atoms], list[str]]:
    """Training and validation frames of all generations.

    Each generation's frames are split on their own (groups never span generations), so a frame stays on its side for
    good: what once validated is never trained on.
    """
    from aldriver.train import group_split

    known: list[Atoms] = []
    valid: list[Atoms] = []
    notes = []
    recipe = campaign.recipe
    for g, found in enumerate(per_generation, start=1):
        known += [f for f in found if f.info.get("origin") == "seed"]  # anchors: never held out
        frames = [f for f in found if f.info.get("origin") != "seed"]
        groups = {str(f.info.get("group")) for f in frames}
        if len(frames) < 2 or (len(groups) == 1 and valid):
            known += frames
            continue
        sides = group_split(
            frames, recipe.train.valid_fraction, seed_for(recipe.seed, "split", g), cut_single_group=True
        )
        known += [frames[i] for i in sides.train]
        valid += [frames[i] for i in sides.valid]
        notes.append(f"generation {g}: {sides.message}")
    return known, valid, notes


def _why_not(per_generation: list[list[Atoms]], known: list[Atoms], valid: list[Atoms]) -> str:
    if not per_generation[-1]:
        return "no new labels in this generation: nothing to train on"
    if not known or not valid:
        return f"{len(known) + len(valid)} labels are too few to train and validate on"
    return ""


def _train(
    campaign: Campaign,
    generation: int,
    known: list[Atoms],
    valid: list[Atoms],
    work: Path,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    from aldriver.train.attempts import attempt_settings, train_attempts

    recipe = campaign.recipe
    foundation = load_potential(campaign, campaign.potential(campaign.decision(0)["promoted"]), "train")
    first = 0 if recipe.train.start == "foundation" else generation - 1
    start = load_potential(campaign, campaign.potential(campaign.decision(first)["promoted"]), "train")
    progress.update(0, recipe.train.epochs, f"{len(known)} frames")

    def epoch(line: dict[str, Any]) -> None:
        progress.update(int(line["epoch"]), int(line["epochs"]), f"{len(known)} frames, {line['strategy']}")

    work.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "foundation": foundation,
        "on_epoch": epoch,
        "name": f"{campaign.name} generation {generation}",
    }
    seed = seed_for(recipe.seed, "train", generation)
    result, attempts = train_attempts(start, known, valid, recipe.train, work, seed=seed, **common)
    for k in range(len(attempts)):
        history = work / f"attempt-{k}" / "history.jsonl"
        last = k == len(attempts) - 1
        name = "history.jsonl" if last else f"history-attempt-{k}.jsonl"
        (out / name).write_text(history.read_text() if history.is_file() else "")
    members: list[Potential] = []
    committee: dict[str, Any] | None = None
    if result.accepted and "committee" in recipe.detect.signals:
        again = attempt_settings(recipe.train)[len(attempts) - 1]
        sides, size = (known, valid), recipe.detect.committee
        result, members, committee = _committee(result, start, sides, again, size, work, seed, common)
    facts = {
        "accepted": result.accepted,
        "committee": committee,
        "reason": _reason(result, attempts),
        "attempts": attempts,
        "e0_shift": result.e0_shift,
        "before": result.before,
        "after": result.after,
        "guards": result.guards,
        "best_epoch": result.best_epoch,
        "checks": result.checks,
        "trainable": result.trainable,
        "seconds": result.seconds,
        "cpu_s": result.cpu_s,
        "start": start.fingerprint,
        "strategy": result.strategy,
        "fingerprint": None,
        "potential": None,
    }
    if not result.accepted:
        return facts
    return facts | _publish(campaign, generation, start.fingerprint, result, members, known, valid, out, progress)


def _committee(
    first: TrainResult,
    start: Potential,
    sides: tuple[list[Atoms], list[Atoms]],
    settings: Train,
    size: int,
    work: Path,
    seed: int,
    common: dict[str, Any],
) -> tuple[TrainResult, list[Potential], dict[str, Any]]:
    """Refine again as the accepted potential was, with other seeds: the best, the others, their number.

    Raises
    ------
    AldriverError
        When fewer than two are fit for a committee.
    """
    from aldriver.train import train
    from aldriver.train.committee import choose

    results = {"member-0": first}
    for k in range(1, size):
        results[f"member-{k}"] = train(start, *sides, settings, work / f"member-{k}", seed=seed + k, **common)
    committee = choose(results)
    if len(committee.members) < 2:
        reasons = "; ".join(f"{name}: {why}" for name, why in committee.refused.items())
        raise AldriverError(
            f"{len(committee.members)} of {size} potentials are fit for a committee ({reasons}): train longer or with "
            "more frames, or remove committee from detect.signals"
        )
    best, *others = committee.members
    facts = {"size": len(committee.members), "refused": committee.refused}
    return best, [other.potential for other in others], facts


def _reason(result: TrainResult, attempts: list[dict[str, Any]]) -> str:
    """What decided it; of several attempts, what became of each."""
    if len(attempts) < 2:
        return result.reason
    return "; ".join(f"{attempt['strategy']}: {attempt['reason']}" for attempt in attempts)


def _publish(
    campaign: Campaign,
    generation: int,
    parent: str,
    result: TrainResult,
    members: list[Potential],
    known: list[Atoms],
    valid: list[Atoms],
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """The new potential with its detector; what it predicts on the test set (else on the validation frames)."""
    from aldriver.detect import Detector

    progress.update(note="fitting the detector")
    potential = result.potential
    detector = Detector.fit(known, potential, campaign.recipe.detect, heldout=valid, members=members)
    card = {
        "generation": generation,
        "name": potential.name,
        "parent": parent,
        "e0_shift": result.e0_shift,
        "n_train": len(known),
        "n_valid": len(valid),
        "validation": result.after,
        "strategy": result.strategy,
        "guards": result.guards,
    }
    folder = publish_potential(campaign, potential, detector, card)
    write_predictions(out / "predictions_test.npz", potential, test_frames(campaign) or valid, result.e0_shift)
    return {"fingerprint": potential.fingerprint, "potential": folder.relative_to(campaign.root).as_posix()}
