"""Frames that monitors flagged reach the next generation: once, if today's detector flags them, unlike each other."""

from __future__ import annotations

import pytest
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.core.frames import frame_hash, write_frames
from aldriver.core.recipe_detect import Detect
from aldriver.detect import Detector
from aldriver.workflow.inbox import INBOX, Inbox, from_inbox, waiting


def cell(amplitude: float, seed: int, symbol: str = "Fe"):
    atoms = bulk(symbol, "bcc", a=2.84, cubic=True) * (2, 2, 2)
    atoms.rattle(amplitude, seed=seed)
    atoms.info = {"frame_id": frame_hash(atoms), "group": "monitor-run", "step": seed, "origin": "monitor"}
    return atoms


@pytest.fixture(scope="module")
def detector(eam_fe):
    settings = Detect.model_validate({"signals": ["soap_q"], "soap": {"n_max": 3, "l_max": 2}})
    known, heldout = [cell(0.1, k) for k in range(8)], [cell(0.1, 50 + k) for k in range(24)]
    return Detector.fit(known, eam_fe, settings, heldout=heldout)


def chosen(campaign, detector, potential, *, budget=10, generation=1, known=(), core_hours=None, cost=None):
    return from_inbox(
        campaign,
        generation,
        potential=potential,
        detector=detector,
        known=list(known),
        budget=budget,
        core_hours=core_hours,
        cost=cost,
        seed=1,
    )


def test_a_frame_lies_in_the_inbox_once_and_foreign_elements_do_not(campaign):
    inbox = Inbox(campaign.root)
    frame = cell(0.5, 1)
    assert inbox.put(frame) == "" and inbox.put(frame) == ""
    assert "no Cu" in inbox.put(cell(0.5, 1, "Cu"))
    (file,) = (campaign.root / INBOX).iterdir()
    (read,) = waiting(campaign, 1)
    assert file.stem == read.info["frame_id"] == frame.info["frame_id"] == frame_hash(read)
    with pytest.raises(InputError, match="not a campaign"):
        Inbox(campaign.root / INBOX)


def test_worst_first_no_twins_half_of_the_budget(campaign, detector, eam_fe):
    inbox = Inbox(campaign.root)
    assert chosen(campaign, detector, eam_fe) == ([], 0.0)
    wild = [cell(0.4 + 0.02 * k, 10 + k) for k in range(6)]
    twin = wild[5].copy()
    twin.positions += 0.002
    twin.info["frame_id"] = frame_hash(twin)
    calm = cell(0.05, 3)
    for frame in [*wild, twin, calm]:
        inbox.put(frame)
    frames, hours = chosen(campaign, detector, eam_fe, budget=20)
    ids = {frame.info["frame_id"] for frame in frames}
    assert len(frames) == len(ids) == 6 and calm.info["frame_id"] not in ids and hours == 0.0
    ratios = [one.ratio for one in detector.score([*wild, twin], eam_fe)]
    assert frames[0].info["ratio"] == pytest.approx(max(ratios))
    assert all(f.info["origin"] == "monitor" and f.info["generation"] == 1 and f.info["ratio"] > 1 for f in frames)
    assert len(chosen(campaign, detector, eam_fe, budget=5)[0]) == 3  # half, rounded up
    assert chosen(campaign, detector, eam_fe, budget=0) == ([], 0.0)
    assert len(chosen(campaign, detector, eam_fe, budget=20, known=wild)[0]) == 0  # labelled already


def test_core_hours_are_shared_too(campaign, detector, eam_fe):
    import numpy as np

    inbox = Inbox(campaign.root)
    for k in range(6):
        inbox.put(cell(0.4 + 0.02 * k, 10 + k))
    frames, hours = chosen(
        campaign, detector, eam_fe, budget=20, core_hours=8.0, cost=lambda found: np.full(len(found), 2.0)
    )
    assert len(frames) == 2 and hours == pytest.approx(4.0)


def test_what_an_earlier_generation_took_is_not_offered_again(campaign, detector, eam_fe):
    inbox = Inbox(campaign.root)
    first, second = cell(0.5, 1), cell(0.5, 2)
    inbox.put(first)
    inbox.put(second)
    folder = campaign.stage(1, "select")
    folder.mkdir(parents=True)
    write_frames(folder / "selected.extxyz", [first])
    assert {f.info["frame_id"] for f in chosen(campaign, detector, eam_fe)[0]} == {
        first.info["frame_id"],
        second.info["frame_id"],
    }
    assert [f.info["frame_id"] for f in chosen(campaign, detector, eam_fe, generation=2)[0]] == [
        second.info["frame_id"]
    ]
    inbox.put(first)  # the monitor was started again
    assert len(chosen(campaign, detector, eam_fe, generation=2)[0]) == 1
