"""What a generation changed, from what its stages published: the numbers behind the rule that stops a campaign.

The statistics are ``benchmark/settled.py``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aldriver.core.records import read_json
from aldriver.workflow.campaign import Campaign
from aldriver.workflow.stages import load_potential
from aldriver.workflow.storing import card, records_of, test_frames

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from aldriver.benchmark.settled import Coverage, Step

PROMISING = ("certified", "accurate")


def last_step(campaign: Campaign, generation: int, promoted: str, new: str | None) -> Step:
    """From the promoted potential to the one of this generation (None when none was accepted)."""
    from aldriver.benchmark.settled import step

    since = int(card(campaign, promoted)["generation"])
    return step(
        None if new is None else _errors(campaign, generation, since, promoted, new),
        _coverage(campaign, generation),
        (records_of(campaign, since, "benchmark"), records_of(campaign, generation, "benchmark")),
    )


def _errors(
    campaign: Campaign, generation: int, since: int, promoted: str, new: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Mean squared force error of each test frame (else validation frame): promoted, new."""
    if test_frames(campaign):
        paths = [campaign.stage(g, "train") / "predictions_test.npz" for g in (since, generation)]
        if all(path.is_file() for path in paths):
            before, after = (_by_frame(np.load(path)) for path in paths)
            return (before, after) if len(before) == len(after) else None
    from aldriver.core.frames import read_frames

    frames = test_frames(campaign) or read_frames(campaign.stage(generation, "train") / "valid.extxyz", labelled=True)
    if not frames:
        return None
    before, after = (_measured(campaign, fingerprint, frames) for fingerprint in (promoted, new))
    return before, after


def _by_frame(arrays: Any) -> NDArray[np.float64]:
    squared = np.square(arrays["forces_ref"] - arrays["forces_pred"]).mean(axis=1)
    ends = np.cumsum(arrays["n_atoms"])[:-1]
    return np.array([part.mean() for part in np.split(squared, ends)])


def _measured(campaign: Campaign, fingerprint: str, frames: list[Atoms]) -> NDArray[np.float64]:
    from aldriver.core.frames import label_of

    potential = load_potential(campaign, campaign.potential(fingerprint), "train")
    predictions = potential.evaluate(frames, stress=False)
    return np.array(
        [np.square(label_of(a, "forces") - p.forces).mean() for a, p in zip(frames, predictions, strict=True)]
    )


def _coverage(campaign: Campaign, generation: int) -> tuple[Coverage, Coverage] | None:
    from aldriver.benchmark.settled import Coverage

    found = []
    for g in (generation - 1, generation):
        path = campaign.stage(g, "select") / "selection.json"
        if not path.is_file():
            return None
        selection = read_json(path)
        outcome = (selection.get("promise") or {}).get("outcome")
        found.append(
            Coverage(
                candidates=int(selection["n_candidates"]),
                flagged=int(selection["n_flagged"]),
                promised=outcome in PROMISING,
            )
        )
    return found[0], found[1]
