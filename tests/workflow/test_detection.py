"""What labels say of the detector that chose them: audits, recalibration, drift; on published files, without MD."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aldriver.core.frames import frame_hash, with_labels, write_frames
from aldriver.core.recipe_detect import Detect
from aldriver.core.records import dumps
from aldriver.core.store import publish
from aldriver.detect import Detector
from aldriver.workflow.detection import audited, drift_of, force_errors, promise_of, promoted_pair, recalibrated
from aldriver.workflow.storing import publish_potential


def rattled(cell: Atoms, count: int, seed: int, amount: float) -> list[Atoms]:
    frames = []
    for k in range(count):
        atoms = cell.copy()
        atoms.rattle(amount, seed=seed + k)
        frames.append(atoms)
    return frames


def labelled(frames: list[Atoms], potential, offs: list[float], **info) -> list[Atoms]:
    """With forces off by `offs` eV/Å on every atom."""
    made = []
    for i, (a, p, off) in enumerate(zip(frames, potential.evaluate(frames), offs, strict=True)):
        noise = np.random.default_rng(i).normal(size=(len(a), 3))
        noise *= off / np.linalg.norm(noise, axis=1, keepdims=True)
        found = with_labels(a, energy=p.energy, forces=p.forces + noise, frame_id=frame_hash(a), group=f"run {i}")
        found.info |= {k: v[i] for k, v in info.items()}
        made.append(found)
    return made


@pytest.fixture
def guarded(campaign, chgnet020, fe_cell):
    """A campaign whose foundation guards generation 1: 30 candidates, 6 of them flagged; 4 audits, 1 of them bad."""
    settings = Detect(signals=["soap_q"], soap={"n_max": 2, "l_max": 1}, tolerance_meV_A=100.0)
    known, held = rattled(fe_cell, 6, 0, 0.03), rattled(fe_cell, 6, 50, 0.03)
    detector = Detector.fit(known, chgnet020, settings, heldout=held)
    publish_potential(campaign, chgnet020, detector, {"generation": 0})
    with publish(campaign.stage(0, "gate")) as tmp:
        (tmp / "decision.json").write_text(dumps({"promoted": chgnet020.fingerprint, "decision": "promote"}))
    origins = ["audit"] * 4 + ["flagged"] * 3
    frames = labelled(
        rattled(fe_cell, 7, 100, 0.05),
        chgnet020,
        [0.02, 0.05, 0.3, 0.04, 0.5, 0.4, 0.03],
        origin=origins,
        ratio=[0.5] * 4 + [2.0] * 3,
    )
    with publish(campaign.stage(1, "select")) as tmp:
        facts = {"n_candidates": 30, "n_flagged": 6, "reasons": {"quarantined": 2, "unphysical": 1}}
        (tmp / "selection.json").write_text(dumps(facts))
    with publish(campaign.stage(1, "label")) as tmp:
        write_frames(tmp / "dataset.extxyz", frames)
    return campaign


def test_an_audit_counts_what_the_labels_say(guarded):
    found = audited(guarded, 1)
    assert found["counts"] == {
        "left": 30 - 6 - 3,
        "flagged": 6,
        "audited": 4,
        "audited_bad": 1,
        "labelled": 3,
        "labelled_bad": 2,
    }
    p, q = 1 / 4, 2 / 3
    assert found["miss_rate"] == pytest.approx(p * 21 / (p * 21 + q * 6))
    assert found["so_far"]["counts"] == found["counts"]
    assert found["tolerance_meV_A"] == 100.0 and "1 of 4 audit labels" in found["sentence"]


def test_audits_add_up_over_generations(guarded, monkeypatch):
    first = audited(guarded, 1)
    monkeypatch.setattr("aldriver.workflow.detection.audit_of", lambda campaign, g: first)
    monkeypatch.setattr("aldriver.workflow.detection.promoted_pair", lambda campaign, g: promoted_pair(campaign, 0))
    for stage, name in (("select", "selection.json"), ("label", "dataset.extxyz")):
        with publish(guarded.stage(2, stage)) as tmp:
            (tmp / name).write_bytes((guarded.stage(1, stage) / name).read_bytes())
    second = audited(guarded, 2)
    assert second["counts"] == first["counts"]
    assert second["so_far"]["counts"] == {k: 2 * v for k, v in first["counts"].items()}


def test_a_held_generation_recalibrates_the_detector_that_goes_on(guarded, chgnet020, fe_cell):
    before = promoted_pair(guarded, 0)[1]
    assert promise_of(before)["outcome"] == "quantile"
    with publish(guarded.stage(1, "gate")) as tmp:
        promise = recalibrated(guarded, 1, chgnet020.fingerprint, tmp / "detector")
        (tmp / "decision.json").write_text(dumps({"promoted": chgnet020.fingerprint, "decision": "hold"}))
    assert promise["outcome"] == "uncertified" and promise["sentences"][0].startswith("uncertified: 3 of 7")
    after = promoted_pair(guarded, 1)[1]
    assert after.calibration.pooled.frames == 7  # all labels: the foundation was trained on none of them
    assert all(v.flagged for v in after.score(rattled(fe_cell, 2, 7, 0.01), chgnet020))


def test_nothing_is_said_without_labels(guarded):
    with publish(guarded.stage(2, "label")) as tmp:
        write_frames(tmp / "dataset.extxyz", [])
    assert audited(guarded, 2) is None


def test_drift_is_said_in_a_sentence(guarded):
    detector = promoted_pair(guarded, 0)[1]
    own = detector.calibration_scores["score"]
    assert drift_of(detector, own)["sentence"].startswith("no drift")
    assert drift_of(detector, 1000 * np.tile(own, 10))["sentence"].startswith("drift: recalibrate")
    assert drift_of(detector, np.zeros(0)) is None


def test_force_errors_are_those_of_the_frames(guarded, chgnet020, fe_cell):
    frames = labelled(rattled(fe_cell, 3, 1, 0.05), chgnet020, [0.1, 0.2, 0.3])
    for kind in ("rms", "max"):
        found = force_errors(chgnet020, frames, Detect(error=kind))
        assert found == pytest.approx([0.1, 0.2, 0.3], rel=1e-4)
