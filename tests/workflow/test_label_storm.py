"""VASP labels end to end through FireWorks, with the stand-in: faults of every kind, and workers killed in the middle."""

from __future__ import annotations

from collections import Counter

import pytest

from aldriver.testing.label_storm import BAD, EXPECTED, MENDED, faults_of, frames_of, prepare, report, storm

pytest.importorskip("custodian", reason="custodian, which runs VASP, is not installed")
FRAMES = 12


def test_faults_are_a_share_of_the_frames_and_of_every_kind():
    faults = faults_of(200, 0.2)
    counts = Counter(faults)
    assert sum(counts[f] for f in BAD) == 40
    assert all(counts[f] == 8 for f in BAD) and all(counts[f] >= 2 for f in MENDED)
    assert set(faults) <= set(EXPECTED)
    assert len({f.info["frame_id"] for f in frames_of(200, 1)}) == 200


@pytest.mark.slow
def test_every_good_frame_has_one_label_and_every_bad_one_its_reason(database, tmp_path):
    frames, faults = frames_of(FRAMES, 1), faults_of(FRAMES, 0.45)
    assert set(faults) == {"ok", *BAD, *MENDED}
    campaign = prepare(tmp_path / "storm", frames, faults, silence_s=20, workers=2)
    assert storm(campaign, limit_s=1500)["kills"] == 2
    assert report(campaign, frames, faults)["problems"] == []
