"""What a surrogate of a campaign learns from: other trajectories than it is judged by, and made cells."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from aldriver.core.frames import frame_hash, write_frames
from aldriver.core.records import dumps
from aldriver.core.store import publish
from aldriver.workflow import distil


def explored(campaign, generation, walkers, frames=8):
    for index in range(walkers):
        with publish(campaign.walker(generation, index)) as folder:
            cells = []
            for k in range(frames):
                atoms = bulk("Fe", "bcc", a=2.85 + 0.001 * k, cubic=True)
                atoms.info = {"group": f"g{generation}-w{index}", "step": k}
                cells.append(atoms)
            write_frames(folder / "frames.extxyz", cells)


@pytest.fixture
def frontier(campaign, monkeypatch):
    monkeypatch.setattr(type(campaign), "frontier", lambda self: (2, True))
    return campaign


def test_walkers_held_out_are_held_out_in_all_generations(frontier):
    for generation in (1, 2):
        explored(frontier, generation, 8)
    learn, heldout = distil._trajectories(frontier)
    assert {a.info["group"] for a in heldout} == {"g1-w3", "g1-w7", "g2-w3", "g2-w7"}
    assert len(learn) == 96 and not {a.info["group"] for a in learn} & {a.info["group"] for a in heldout}


def test_few_walkers_are_judged_by_their_last_quarter(frontier):
    explored(frontier, 1, 2)
    learn, heldout = distil._trajectories(frontier)
    assert [a.info["step"] for a in learn] == [*range(6), *range(6)]
    assert [a.info["step"] for a in heldout] == [6, 7, 6, 7]


def test_made_cells_are_reproducible_and_span_strains_and_vacancies(campaign):
    cells = distil.made_cells(campaign, 40)
    assert [frame_hash(a) for a in cells] == [frame_hash(a) for a in distil.made_cells(campaign, 40)]
    volumes = np.array([a.get_volume() / len(a) for a in cells if len(a) <= distil.SMALL])
    assert np.ptp(volumes) / volumes.mean() > 0.1
    full = max(map(len, cells))
    assert full - 1 in set(map(len, cells))


def test_frames_that_stand_for_all_are_spread():
    """Three tight heaps of vectors, three frames wanted: one of each; a frame that cannot be described is left out."""

    class Detector:
        def frame_vectors(self, frames, potential):
            random = np.random.default_rng(0)
            rows = np.array([[10.0 * (i % 3), 0.0] for i in range(len(frames))]) + 0.01 * random.normal(
                size=(len(frames), 2)
            )
            rows[5] = np.nan
            return rows

    frames = [bulk("Fe", cubic=True) for _ in range(30)]
    for i, atoms in enumerate(frames):
        atoms.info["i"] = i
    picked = [a.info["i"] for a in distil.spread(frames, 3, Detector(), None, 7)]
    assert sorted(i % 3 for i in picked) == [0, 1, 2] and 5 not in picked
    assert distil.spread(frames, 30, Detector(), None, 7) == frames


def test_facts_of_a_card(frontier):
    """Sums of the very files, the reference beside each value, nothing that did not converge."""
    import hashlib

    with publish(frontier.stage(2, "train")) as folder:
        (folder / "result.json").write_text('{"fingerprint": "abc"}')
        (folder / "train.extxyz").write_text("data")
    for generation, stage, value in ((0, "reference", 2.0), (2, "benchmark", 2.5)):
        records = [
            {"property": "c11", "case": "bcc-Fe", "value": value, "unit": "GPa", "converged": True},
            {"property": "c44", "case": "bcc-Fe", "value": value, "unit": "GPa", "converged": generation == 0},
        ]
        with publish(frontier.stage(generation, stage)) as folder:
            (folder / "records.json").write_text(dumps(records))
    facts = distil.campaign_facts(frontier.root, "abc")
    assert facts["data_sha256"] == {"train.extxyz": hashlib.sha256(b"data").hexdigest()}
    assert facts["benchmark"]["bcc-Fe/c11"] == {"value": 2.5, "unit": "GPa", "reference": 2.0}
    assert facts["benchmark"]["bcc-Fe/c44"]["value"] is None
    assert distil.campaign_facts(frontier.root, "other") == {}
