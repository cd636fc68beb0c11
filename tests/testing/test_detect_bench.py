"""The detection bench: its splits, and what it makes of scored frames (the trainings themselves take an hour)."""

from __future__ import annotations

import numpy as np
import pytest

from aldriver.core.errors import AldriverError
from aldriver.core.frames import frame_hash, label_of, read_frames
from aldriver.core.recipe_detect import Detect
from aldriver.testing import detect_bench as bench
from aldriver.testing import detect_page
from aldriver.testing.detect_scored import EXACT, FOLDS, FUSED, SAMPLED, SIZE, Scored, complete, coverage, ranking


def scored(seed=0, frames=60, atoms=12, inputs=6):
    """Errors grow with how far out an atom is, which every signal but one sees; the force's size knows nothing."""
    rng = np.random.default_rng(seed)
    n = frames * atoms
    far = np.repeat(rng.lognormal(0.0, 0.7, frames), atoms) * rng.lognormal(0.0, 0.3, n)
    names = {*(s for s in Detect().signals), *bench.SIGNALS, "committee"}
    signals = {name: far * rng.lognormal(0.0, 0.2, n) for name in sorted(names - {EXACT})}
    signals[SIZE] = rng.lognormal(size=n)
    direction = rng.normal(size=(n, 3))
    layer = rng.normal(size=(n, 3, inputs)) * far[:, None, None]
    return Scored(
        sizes=np.full(frames, atoms),
        kinds=np.array(["hot"] * frames),
        differences=0.1 * far[:, None] * direction,
        signals=signals,
        layer=layer.astype(np.float32),
        known_layer=rng.normal(size=(atoms, 3, inputs)).astype(np.float32),
        typical=dict.fromkeys(signals, 1.0),
    )


@pytest.mark.parametrize("element", bench.ELEMENTS)
def test_no_frame_is_on_two_sides_and_nothing_hot_is_trained_on(element, shared_data):
    frames = [f for file in bench.FILES[element] for f in read_frames(shared_data / file, labelled=True)]
    known, valid, held_out = bench.sides(frames, seed=1)
    names = [{frame_hash(f) for f in side} for side in (known, valid, held_out)]
    assert sum(map(len, names)) == len(set.union(*names)) == len(known) + len(valid) + len(held_out)
    assert {f.info["kind"] for f in known + valid} == {"Elastic", "cool"}
    assert {f.info["kind"] for f in held_out} == set(bench.HELD_OUT)
    assert len(known) == sum(bench.KNOWN.values()) and len(held_out) == sum(bench.HELD_OUT.values())

    def size(frame):
        return np.sqrt(np.mean(label_of(frame, "forces") ** 2))

    assert max(size(f) for f in known if f.info["kind"] == "cool") <= min(
        size(f) for f in held_out if f.info["kind"] == "hot"
    )
    again = bench.sides(frames[::-1], seed=1)
    assert {frame_hash(f) for f in again[0]} == names[0]
    assert {frame_hash(f) for f in bench.sides(frames, seed=2)[0]} != names[0]


def test_scored_frames_come_back_from_their_file(tmp_path):
    found = scored()
    found.save(tmp_path / "scored.npz")
    back = Scored.load(tmp_path / "scored.npz")
    assert back.typical == found.typical and back.signals.keys() == found.signals.keys()
    assert np.array_equal(back.errors, found.errors) and np.array_equal(back.layer, found.layer)


def test_what_is_fitted_for_a_frame_never_saw_its_error():
    """With the errors of one frame changed, only the values of the *other* folds' frames may change."""
    found = scored()
    before = complete(found, seed=3)
    fold = np.random.default_rng(3).permutation(len(found.sizes)) % FOLDS
    i = int(np.flatnonzero(fold == 2)[0])
    found.by_frame(found.differences)[i][:] *= 50.0
    after = complete(found, seed=3)
    for name in (EXACT, SAMPLED, "fused: features", "fused: soap"):
        same = [np.array_equal(a, b) for a, b in zip(before[name], after[name], strict=True)]
        assert all(same[k] for k in np.flatnonzero(fold == 2)), name
        assert not any(same[k] for k in np.flatnonzero(fold != 2)), name


def test_ranking_tells_a_signal_that_knows_from_one_that_does_not():
    found = ranking(scored(), seed=0, resamples=50)
    assert set(FUSED) | {EXACT, SAMPLED, SIZE, "committee", *bench.SIGNALS} <= set(found)
    knows, nothing = found["feature_distance"], found[SIZE]
    assert knows["atoms"]["value"] > 0.8 > 0.65 > nothing["atoms"]["value"]
    assert knows["frames"]["rms"]["value"] > 0.9 and abs(nothing["rank_atoms"]) < 0.2
    assert found["fused: features"]["rank_atoms"] >= knows["rank_atoms"] - 0.02


def test_promises_hold_on_average_over_random_halves():
    for one in coverage(scored(frames=100), seed=0, splits=40):
        assert sum(one["outcomes"].values()) == 40
        if one["outcomes"].get("certified"):
            assert one["promised"] <= one["asked"] + 1e-12
            assert one["miss_rate"] == pytest.approx(one["promised"], abs=0.04)
            assert 0.0 <= one["false_alarms"] < 1.0


def test_the_page_says_what_does_not_hold():
    found = {"element": "Si", "n_frames": 60, "n_atoms": 720, "rmse_meV_A": 1.0, "cpu_s": 6.0}
    found |= {"error_by_kind_eV_A": {"hot": 0.2}, "ranking": ranking(scored(), seed=0, resamples=20)}
    found |= {"coverage": coverage(scored(), seed=0, splits=4)}
    costs = {"costs": {"step_ms": 10.0, "feature_distance": 0.02}, "cpu_s": 1.0}
    texts = detect_page.sections([found, costs])
    assert texts.keys() == {"verdict", "ranking", "elements", "coverage", "costs"} and all(texts.values())
    assert "better on each element" in detect_page.verdict([found], None).splitlines()[-1]
    worse = dict(found, ranking={**found["ranking"], detect_page.DEFAULT: found["ranking"][SIZE]})
    assert "not better for Si (frames" in detect_page.verdict([worse], None)
    for text in texts.values():
        widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
        assert len(widths) <= 1 or "ranking" not in text


def test_a_committee_that_cannot_be_trained_is_an_error(monkeypatch, tmp_path, shared_data):
    import aldriver.potentials
    import aldriver.train
    from aldriver.train import TrainResult

    result = TrainResult(
        potential=None,
        accepted=False,
        reason="no better",
        history=[],
        e0_shift=None,
        before={},
        after={"loss": 1.0},
        seconds=0.0,
    )
    monkeypatch.setattr(aldriver.potentials, "load", lambda ref: None)
    monkeypatch.setattr(aldriver.train, "train", lambda *args, **kwargs: result)
    with pytest.raises(AldriverError, match="of 6 trainings only 0 make a committee"):
        bench.compute("Mo-0", shared_data, tmp_path)
