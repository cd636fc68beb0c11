"""What a generation's labels say of the detector that chose them, and the detector's new calibration when they can.

The statistics are ``detect/audit.py``'s; the gate stage publishes what is found here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.records import jsonable, read_json
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.inbox import ORIGIN
from aldriver.workflow.stages import load_potential
from aldriver.workflow.storing import card, labelled_frames

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from aldriver.core.recipe_detect import Detect
    from aldriver.detect import Detector
    from aldriver.potentials import Potential


def promoted_pair(campaign: Campaign, generation: int) -> tuple[Potential, Detector]:
    """The potential promoted after a generation, and its detector in its latest calibration."""
    from aldriver.detect import Detector

    folder = campaign.potential(campaign.decision(generation)["promoted"])
    potential = load_potential(campaign, folder, "explore")
    newer = campaign.stage(generation, "gate") / "detector"
    return potential, Detector.load(newer if newer.is_dir() else folder / "detector", potential)


def promise_of(detector: Detector) -> dict[str, Any]:
    """What `status` and the report say of a detector: outcome, sentences, tolerance, miss rate."""
    calibration = detector.calibration
    assert calibration is not None  # a campaign's detectors are calibrated when they are made
    return {
        "outcome": calibration.pooled.outcome,
        "sentences": calibration.sentences(),
        "tolerance_meV_A": detector.settings.tolerance_meV_A,
        "miss_rate": detector.settings.miss_rate,
    }


def drift_of(detector: Detector, scores: NDArray[np.float64]) -> dict[str, Any] | None:
    """Drift of a generation's candidates against the detector's calibration, in a sentence."""
    from aldriver.detect.audit import drift

    found = drift(scores, detector.calibration_scores.get("score", np.zeros(0)))
    if found is None:
        return None
    what = "drift: recalibrate, the candidates score unlike the calibration frames" if found.drifted else "no drift"
    return {**jsonable(found), "sentence": f"{what} (Kolmogorov–Smirnov distance {found.distance:.2f})"}


def audited(campaign: Campaign, generation: int) -> dict[str, Any] | None:
    """Measured miss rate and false alarms of the detector that guarded a generation, alone and with those before.

    None in a generation without labels, or where they were not selected.
    """
    from aldriver.detect.audit import Counts, audit

    frames = labelled_frames(campaign, generation)[-1]
    if not frames or not campaign.is_published(generation, "select"):
        return None
    selection = read_json(campaign.stage(generation, "select") / "selection.json")
    potential, detector = promoted_pair(campaign, generation - 1)
    origins = np.array([str(a.info.get("origin")) for a in frames])
    ratios = np.array([float(a.info.get("ratio", 0.0)) for a in frames])
    bad = force_errors(potential, frames, detector.settings) > detector.settings.tolerance_meV_A / 1000.0
    drawn, flagged = origins == "audit", (ratios > 1.0) & (origins != ORIGIN)  # the walkers' own, not a monitor's
    counts = Counts(
        left=int(selection["n_candidates"]) - int(selection["n_flagged"]) - _refused(selection),
        flagged=int(selection["n_flagged"]),
        audited=int(drawn.sum()),
        audited_bad=int(bad[drawn].sum()),
        labelled=int(flagged.sum()),
        labelled_bad=int(bad[flagged].sum()),
    )
    before = [Counts(**found["counts"]) for g in range(1, generation) if (found := audit_of(campaign, g))]
    now, ever = audit(counts), audit(Counts.summed([*before, counts]))
    return {
        **jsonable(now),
        "sentence": now.sentence,
        "so_far": {**jsonable(ever), "sentence": ever.sentence},
        "tolerance_meV_A": detector.settings.tolerance_meV_A,
        "miss_rate_allowed": detector.settings.miss_rate,
    }


def audit_of(campaign: Campaign, generation: int) -> dict[str, Any] | None:
    """What :func:`audited` found when that generation was decided on."""
    found = campaign.decision(generation).get("audit")
    return dict(found) if found else None


def force_errors(potential: Potential, frames: list[Atoms], settings: Detect) -> NDArray[np.float64]:
    """Force error of each labelled frame, eV/Å, as the recipe's ``detect.error`` says."""
    from aldriver.core.frames import label_of
    from aldriver.detect.promise import Labelled

    predictions = potential.evaluate(frames, stress=False)
    differences = [label_of(a, "forces") - p.forces for a, p in zip(frames, predictions, strict=True)]
    names = [""] * len(frames)
    return Labelled.of(differences, names, names, settings).errors


def recalibrated(campaign: Campaign, generation: int, fingerprint: str, out: Path) -> dict[str, Any] | None:
    """Save the promoted potential's detector, calibrated on all labels that potential was never trained on.

    For a generation that was not promoted: its labels are new to the potential that goes on, and the detector knows
    more with them. Returns what it promises now; None when there is nothing to calibrate with.
    """
    from aldriver.core.frames import read_frames
    from aldriver.detect import Detector

    folder = campaign.potential(fingerprint)
    since = int(card(campaign, fingerprint)["generation"])
    unseen = [a for one in labelled_frames(campaign, generation)[since:] for a in one]
    path = campaign.stage(since, "train") / "valid.extxyz"
    if since > 0 and path.is_file():
        unseen += read_frames(path, labelled=True)
    if not unseen:
        return None
    potential = load_potential(campaign, folder, "train")
    detector = Detector.load(folder / "detector", potential)
    detector.calibrate(unseen, potential)
    detector.save(out)
    return promise_of(detector)


def _refused(selection: dict[str, Any]) -> int:
    reasons = selection["reasons"]
    return int(reasons.get("quarantined", 0)) + int(reasons.get("unphysical", 0))
