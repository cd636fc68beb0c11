from __future__ import annotations

import json
import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from detect_helpers import ALL_SIGNALS, SOAP_ONLY, DensityPotential, auroc, iron_frames, rattled
from scipy.spatial.transform import Rotation

from aldriver.core.errors import InputError
from aldriver.core.recipe_detect import Detect
from aldriver.detect import Detector
from aldriver.detect.calibrate import threshold


@pytest.fixture(scope="module")
def iron() -> dict[str, list[Atoms]]:
    return iron_frames()


@pytest.fixture(scope="module")
def stub() -> DensityPotential:
    return DensityPotential()


@pytest.fixture(scope="module")
def detector(iron, stub) -> Detector:
    return Detector.fit(iron["cool"], stub, ALL_SIGNALS, heldout=iron["held"])


@pytest.fixture(scope="module")
def soap_detector(iron) -> Detector:
    return Detector.fit(iron["cool"], None, SOAP_ONLY, heldout=iron["held"])


def ratios(detector: Detector, frames: list[Atoms], potential=None) -> np.ndarray:
    return np.array([s.ratio for s in detector.score(frames, potential)])


def test_hot_and_vacancy_frames_are_stranger_than_cool_ones(soap_detector, iron):
    fresh, hot, vacancy = (soap_detector.score(iron[k]) for k in ("fresh", "hot", "vacancy"))
    for signal in ("soap_q", "soap_t2"):
        cool = [s.values[signal] for s in fresh]
        assert auroc(cool, [s.values[signal] for s in hot]) > 0.95
        assert auroc(cool, [s.values[signal] for s in vacancy]) > 0.95
    assert np.mean([s.flagged for s in hot]) > 0.8
    assert all(s.flagged for s in vacancy)


def test_each_signal_keeps_its_false_alarm_rate_on_fresh_runs(detector, iron, stub):
    """Runs of few, correlated frames scatter widely: fresh cool frames may not exceed the thresholds wholesale."""
    scores = detector.score(iron["fresh"], stub)
    for signal, limit in detector.thresholds.items():
        assert np.mean([s.values[signal] > limit.value for s in scores]) <= 0.25
    assert all(s.ratio == max(v / detector.thresholds[k].value for k, v in s.values.items()) for s in scores)


def test_false_alarm_rate_on_exchangeable_frames(stub):
    """Independent rattled cells: over many held-out sets the rate of each signal is 1 − rank/(n + 1)."""
    frames = rattled(900)
    detector = Detector.fit(
        frames[:100], stub, ALL_SIGNALS.model_copy(update={"quantile": 0.9}), heldout=frames[100:150]
    )
    values = {k: np.array([s.values[k] for s in detector.score(frames[150:], stub)]) for k in detector.thresholds}
    rng = np.random.default_rng(0)
    for signal, pool in values.items():
        alarms = []
        for _ in range(400):
            drawn = rng.permutation(pool)
            alarms.append(np.mean(drawn[49:] > threshold(drawn[:49], 0.9).value))
        assert np.mean(alarms) == pytest.approx(0.1, abs=0.015), signal


def test_the_vacancy_is_found_where_it_is(soap_detector, iron):
    """In a large cool cell the strangest atoms are the neighbours of the empty site."""
    cell = bulk("Fe", "bcc", a=2.87, cubic=True) * (4, 4, 4)
    site = cell.positions[40].copy()
    del cell[40]
    cell.rattle(0.03, seed=2)
    score = soap_detector.score([cell])[0]
    probe = cell + Atoms("Fe", positions=[site])
    distance = probe.get_distances(len(probe) - 1, range(len(cell)), mic=True)
    nearest = set(np.argsort(distance)[:14])
    assert set(np.argsort(score.atoms["soap_q"])[-8:]) <= nearest
    assert score.means["soap_q"] < 0.5 * score.values["soap_q"]
    assert f"{cell.get_chemical_symbols()[0]}" in score.reason


def test_scores_do_not_depend_on_frame_orientation_or_atom_order(detector, iron, stub):
    atoms = iron["hot"][3]
    turn = Rotation.random(rng=5).as_matrix()
    order = np.random.default_rng(1).permutation(len(atoms))
    moved = atoms[order]
    moved.set_cell(atoms.cell @ turn.T)
    moved.positions = atoms.positions[order] @ turn.T + [5.0, -2.0, 0.7]
    a, b = detector.score([atoms, moved], stub)
    for signal in a.values:
        assert np.allclose(a.atoms[signal][order], b.atoms[signal], rtol=1e-4)
    va, vb = detector.frame_vectors([atoms, moved])
    assert np.linalg.norm(va - vb) < 1e-4 * np.linalg.norm(va)


def test_a_score_does_not_depend_on_its_batch(detector, iron, stub):
    frames = iron["fresh"][:5]
    together = ratios(detector, frames, stub)
    assert np.array_equal(together, [ratios(detector, [f], stub)[0] for f in frames])
    features = stub.features(frames)
    assert np.array_equal(together, [s.ratio for s in detector.score(frames, features=features)])


def test_a_new_element_is_extrapolation_with_a_reason(detector, iron, stub):
    atoms = iron["held"][0].copy()
    atoms.symbols[4] = "Cu"
    score = detector.score([atoms], stub)[0]
    assert math.isinf(score.ratio) and score.flagged and score.finite
    assert "Cu is new" in score.reason
    for values in score.atoms.values():
        assert math.isinf(values[4]) and np.isfinite(np.delete(values, 4)).all()
    assert np.isfinite(detector.frame_vectors([atoms])).all()
    atoms.symbols[4] = "W"  # not even the potential knows it
    score = detector.score([atoms], stub)[0]
    assert math.isinf(score.ratio) and score.flagged and "W is new" in score.reason


def test_frames_that_are_not_numbers_are_quarantined(detector, iron, stub):
    broken = iron["held"][0].copy()
    broken.positions[2] = np.nan
    collapsed = iron["held"][0].copy()
    collapsed.set_cell(collapsed.cell * 0.2, scale_atoms=True)
    scores = detector.score([broken, collapsed, iron["held"][1]], stub)
    for score in scores[:2]:
        assert not score.finite and not score.flagged and math.isnan(score.ratio) and score.reason
    assert scores[2].finite
    vectors = detector.frame_vectors([broken, iron["held"][1]])
    assert np.isnan(vectors[0]).all() and np.isfinite(vectors[1]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_numbers_are_quarantined(detector, iron, stub, bad):
    features = stub.features(iron["held"][:1])
    features[0][5, 2] = bad
    score = detector.score(iron["held"][:1], features=features)[0]
    assert not score.finite and not score.flagged and "features" in score.reason


def test_soap_is_computed_only_when_asked_for(iron, stub, monkeypatch):
    import aldriver.detect.descriptors as descriptors

    monkeypatch.setattr(descriptors.SoapDescriptor, "rows", lambda *_: pytest.fail("SOAP was computed"))
    settings = Detect(signals=["feature_distance"])
    detector = Detector.fit(iron["cool"], stub, settings, heldout=iron["held"])
    cool, hot = ratios(detector, iron["fresh"], stub), ratios(detector, iron["hot"], stub)
    assert auroc(cool, hot) > 0.95
    vectors = detector.frame_vectors(iron["hot"], stub.features(iron["hot"]))
    assert vectors.shape == (len(iron["hot"]), 2 * len(stub.widths)) and np.isfinite(vectors).all()


def test_features_are_not_asked_for_without_need(iron):
    counting = DensityPotential()
    Detector.fit(iron["cool"][:5], counting, SOAP_ONLY, heldout=iron["held"][:5])
    assert counting.calls == 0


def test_scorer_for_a_running_md(detector, iron, stub):
    score = detector.scorer(stub)
    atoms = iron["hot"][0]
    prediction = stub.evaluate([atoms], features=True)[0]
    out = score(atoms, prediction)
    expected = detector.score([atoms], stub)[0]
    assert set(out) == {"soap_q", "soap_t2", "feature_distance", "score", "ratio", "unphysical"}
    assert out["ratio"] == expected.ratio and out["soap_q"] == expected.values["soap_q"]
    assert score(atoms, stub.evaluate([atoms])[0]) == out  # no features in the prediction: the potential is asked


def test_vectors_tell_alike_frames_from_different_ones(soap_detector, iron):
    base = iron["fresh"][0]
    twin = base.copy()
    twin.rattle(1e-3, seed=0)
    vectors = soap_detector.frame_vectors([base, twin, iron["fresh"][-1], iron["vacancy"][0], base * (2, 1, 1)])
    near, run, vacancy, repeated = np.linalg.norm(vectors[1:] - vectors[0], axis=1)
    assert repeated < 1e-4 < near < 0.1 * run < vacancy
    cool = soap_detector.frame_vectors(iron["cool"])
    assert np.var(cool, axis=0).sum() == pytest.approx(1.0)


def test_few_atoms_of_a_solute_are_safe(iron, stub):
    frames = [a.copy() for a in iron["cool"]]
    frames[0].symbols[3] = "Cu"  # one atom of copper in all
    held = [a.copy() for a in iron["held"]]
    held[1].symbols[7] = "Cu"
    detector = Detector.fit(frames, stub, ALL_SIGNALS, heldout=held)
    scores = detector.score([*iron["fresh"][:3], held[1]], stub)
    assert all(s.finite and math.isfinite(s.ratio) for s in scores)
    assert detector.frame_vectors(frames[:2]).shape == (2, 2 * 2 * 952)


def test_large_fits_take_every_nth_atom(iron, monkeypatch):
    import aldriver.detect.novelty as novelty

    whole = Detector.fit(iron["cool"], None, SOAP_ONLY, heldout=iron["held"])
    monkeypatch.setattr(novelty, "MAX_ROWS", 250)
    thinned = Detector.fit(iron["cool"], None, SOAP_ONLY, heldout=iron["held"])
    assert thinned.novelty.subspaces["Fe"].rows == 240  # 720 atoms, every third
    assert len(thinned.train_scores["soap_q"]) == len(iron["cool"])
    a, b = (ratios(d, iron["hot"]) for d in (whole, thinned))
    assert np.corrcoef(a, b)[0, 1] > 0.8


def test_saved_and_loaded_it_says_the_same(detector, iron, stub, tmp_path):
    detector.save(tmp_path / "detector")
    again = Detector.load(tmp_path / "detector", stub)
    assert np.array_equal(ratios(again, iron["hot"], stub), ratios(detector, iron["hot"], stub))
    assert np.array_equal(again.frame_vectors(iron["hot"]), detector.frame_vectors(iron["hot"]))
    assert again.thresholds == detector.thresholds and again.settings == detector.settings
    for name in ("train_scores", "heldout_scores"):
        stored = np.load(tmp_path / "detector" / f"{name}.npz", allow_pickle=False)
        assert set(stored.files) == set(ALL_SIGNALS.signals)
        assert np.array_equal(stored["soap_q"], getattr(detector, name)["soap_q"])
    config = json.loads((tmp_path / "detector" / "config.json").read_text())
    assert config["thresholds"]["soap_q"]["frames"] == len(iron["held"])
    assert config["potential"] == {"name": "stub", "fingerprint": stub.fingerprint}
    detector.save(tmp_path / "again")
    for path in (tmp_path / "detector").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_another_potential_is_refused(detector, iron, tmp_path):
    detector.save(tmp_path)
    other = DensityPotential(fingerprint="f" * 16)
    for attempt in (
        lambda: Detector.load(tmp_path, other),
        lambda: detector.score(iron["hot"][:1], other),
        lambda: detector.scorer(other),
        lambda: detector.calibrate(iron["held"], other),
    ):
        with pytest.raises(InputError, match="belongs to the potential stub"):
            attempt()
    assert Detector.load(tmp_path).fingerprint == detector.fingerprint


@pytest.mark.parametrize("name", ["models.npz", "train_scores.npz", "config.json"])
@pytest.mark.parametrize("how", ["edited", "missing", "cut"])
def test_damaged_files_are_refused(detector, stub, tmp_path, name, how):
    detector.save(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif name == "config.json":
        config = json.loads(data)
        config["thresholds"]["soap_q"]["value"] *= 10
        path.write_text(json.dumps(config))
    else:
        path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    with pytest.raises(InputError, match=str(tmp_path)):
        Detector.load(tmp_path, stub)


def test_what_cannot_be_fitted_is_refused_in_plain_words(iron, stub, eam_fe):
    broken = iron["cool"][0].copy()
    broken.positions[0] = np.nan
    with pytest.raises(InputError, match="at least one frame"):
        Detector.fit([], stub, SOAP_ONLY)
    with pytest.raises(InputError, match="frame 1"):
        Detector.fit([iron["cool"][0], broken], stub, ALL_SIGNALS)
    with pytest.raises(InputError, match="remove feature_distance"):
        Detector.fit(iron["cool"], eam_fe, ALL_SIGNALS)
    with pytest.raises(InputError, match="features"):
        Detector.fit(iron["cool"], None, ALL_SIGNALS)
    with pytest.raises(InputError, match="shape"):
        Detector.fit(iron["cool"][:1], None, ALL_SIGNALS, features=[np.zeros((3, 2))])
    uncalibrated = Detector.fit(iron["cool"][:5], stub, SOAP_ONLY)
    for attempt in (lambda: uncalibrated.score(iron["hot"]), uncalibrated.scorer):
        with pytest.raises(InputError, match="calibrate"):
            attempt()
    copper = [a.copy() for a in iron["held"][:2]]
    copper[0].symbols[0] = "Cu"
    with pytest.raises(InputError, match="element"):
        uncalibrated.calibrate(copper)
    uncalibrated.calibrate(iron["held"][:3])
    assert "too few held-out frames" in uncalibrated.thresholds["soap_q"].note


def test_with_the_features_of_a_real_model(chgnet020, iron):
    """CHGNet's own features tell hot and vacancy frames from cool ones."""
    settings = Detect(signals=["feature_distance"])
    detector = Detector.fit(iron["cool"][::2], chgnet020, settings, heldout=iron["held"][::2])
    cool, hot, vacancy = (ratios(detector, iron[k][::2], chgnet020) for k in ("fresh", "hot", "vacancy"))
    assert auroc(cool, hot) > 0.9
    assert auroc(cool, vacancy) > 0.9


def test_every_novelty_signal_finds_the_strange_frames_and_survives_saving(iron, stub, tmp_path):
    signals = ["feature_q", "feature_t2", "feature_distance", "feature_neighbour"]
    detector = Detector.fit(iron["cool"], stub, Detect(signals=signals, components=0.9), heldout=iron["held"])
    fresh, hot = detector.score(iron["fresh"], stub), detector.score(iron["hot"], stub)
    for signal in signals:
        assert auroc([s.values[signal] for s in fresh], [s.values[signal] for s in hot]) > 0.9, signal
    # known frames are no nearer to the others than fresh ones of the same kind: nothing is measured against itself
    assert np.median(detector.train_scores["feature_neighbour"]) > 0.3 * np.median(
        [s.values["feature_neighbour"] for s in fresh]
    )
    detector.save(tmp_path)
    again = Detector.load(tmp_path, stub).score(iron["hot"], stub)
    assert [s.values for s in again] == [s.values for s in hot]
