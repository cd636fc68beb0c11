"""Detectors calibrated on force errors: what they promise, on frames made so that the truth is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from ase import Atoms
from detect_helpers import DensityPotential, auroc, rattled

from aldriver.core.errors import InputError
from aldriver.core.frames import with_labels
from aldriver.core.recipe_detect import Detect
from aldriver.detect import Detector
from aldriver.detect.calibrate import limit
from aldriver.detect.promise import Labelled, divided
from aldriver.potentials.base import Potential

FEATURES = ["feature_distance", "feature_neighbour"]


def labelled(frames: list[Atoms], eam: Potential, *, groups: int | None = None) -> list[Atoms]:
    """With the EAM's forces: beside a potential that predicts none, the error is the force itself."""
    return [
        with_labels(a, energy=p.energy, forces=p.forces, group=f"run {i if groups is None else i % groups}")
        for i, (a, p) in enumerate(zip(frames, eam.evaluate(frames), strict=True))
    ]


@pytest.fixture(scope="module")
def stub() -> DensityPotential:
    return DensityPotential()


@pytest.fixture(scope="module")
def pool(eam_fe) -> list[Atoms]:
    """Exchangeable cells rattled by anything from little to much."""
    frames = []
    for i, atoms in enumerate(rattled(460, rattle=0.0)):
        atoms.rattle(0.02 + 0.2 * np.random.default_rng(i).random(), seed=10_000 + i)
        frames.append(atoms)
    return labelled(frames, eam_fe)


@pytest.fixture(scope="module")
def known() -> list[Atoms]:
    return rattled(60, rattle=0.05)


def tolerance_of(frames: list[Atoms], share: float) -> float:
    """meV/Å that this share of the frames exceeds."""
    return 1000.0 * float(
        np.quantile([np.sqrt(np.mean(np.sum(a.get_forces() ** 2, axis=1))) for a in frames], 1 - share)
    )


def errors(frames: list[Atoms]) -> np.ndarray:
    return np.array([np.sqrt(np.mean(np.sum(a.get_forces() ** 2, axis=1))) for a in frames])


@pytest.fixture(scope="module")
def detector(known, stub, pool) -> Detector:
    settings = Detect(signals=FEATURES, tolerance_meV_A=tolerance_of(pool, 0.3), miss_rate=0.1)
    return Detector.fit(known, stub, settings, heldout=pool[:240])


def test_the_score_is_an_expected_error_and_the_promise_is_kept(detector, stub, pool):
    calibration, new = detector.calibration, pool[240:]
    assert calibration.pooled.outcome == "certified" and calibration.formula.kind == "fused"
    assert 100 <= calibration.pooled.frames <= 140  # half of the frames fitted the score
    verdicts, true = detector.score(new, stub), errors(new)
    scores = np.array([v.score for v in verdicts])
    assert np.exp(np.mean(np.log(scores / true))) == pytest.approx(1.0, abs=0.15)
    assert auroc(scores[true <= calibration.tolerance], scores[true > calibration.tolerance]) > 0.9
    missed = np.mean([not v.flagged for v, e in zip(verdicts, true, strict=True) if e > calibration.tolerance])
    # Beta(k, b + 1 − k) over calibrations and binomial over the new frames: 0.1 ± about 0.06
    assert missed < 0.1 + 0.15
    alarms = np.mean([v.flagged for v, e in zip(verdicts, true, strict=True) if e <= calibration.tolerance])
    assert alarms < 0.5
    assert all("expected force error" in v.reason for v in verdicts)


def test_the_miss_rate_over_many_calibrations(detector, known, stub, pool):
    """Splits drawn at random: the mean miss rate is at most α, as promised for the mean over calibrations."""
    scores = np.array([v.means["feature_distance"] for v in detector.score(pool, stub)])
    true, rng, missed = errors(pool), np.random.default_rng(0), []
    for _ in range(300):
        drawn = rng.permutation(len(pool))
        held, new = drawn[:150], drawn[150:]
        found = limit(scores[held], true[held], tolerance=detector.calibration.tolerance, miss_rate=0.1)
        bad = new[true[new] > detector.calibration.tolerance]
        missed.append(np.mean([found.ratio(scores[i]) <= 1 for i in bad]))
    assert np.mean(missed) <= 0.1 + 3 * np.std(missed) / np.sqrt(len(missed))
    assert np.mean(missed) > 0.05


@pytest.mark.parametrize("kind", ["rms", "max"])
def test_the_error_of_a_frame_is_as_asked(kind):
    differences = [np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]), np.full((2, 3), np.nan)]
    found = Labelled.of(differences, ["a", "b"], ["Fe", "Fe"], Detect(error=kind))
    assert found.errors[0] == pytest.approx(5.0 if kind == "max" else math.sqrt(13.0))
    assert np.isinf(found.errors[1])


def test_no_frame_both_fits_and_sets_the_limit_and_no_trajectory_is_torn():
    rng = np.random.default_rng(0)
    groups = [f"g{i}" for i in rng.integers(0, 9, 80)]
    case = Labelled(errors=rng.lognormal(-2, 1, 80), lengths=[], groups=groups, sets=["Fe"] * 80)
    settings = Detect(tolerance_meV_A=100.0, miss_rate=0.2)
    fit, rest = divided(case, settings)
    assert sorted(fit + rest) == list(range(80)) and abs(len(fit) - len(rest)) <= 12
    assert not {groups[i] for i in fit} & {groups[i] for i in rest}
    # nothing is fitted where half of the frames cannot promise what all of them can
    scarce = Labelled(errors=np.r_[np.full(12, 1.0), np.full(68, 0.01)], lengths=[], groups=groups, sets=["Fe"] * 80)
    assert divided(scarce, Detect(miss_rate=0.1))[0] == []
    assert divided(case, Detect(signals=["soap_q"], score="soap_q"))[0] == []


def test_few_labels_flag_everything_and_say_what_is_missing(known, stub, pool):
    settings = Detect(signals=FEATURES, tolerance_meV_A=tolerance_of(pool, 0.3))
    found = Detector.fit(known, stub, settings, heldout=pool[:6])
    calibration = found.calibration
    assert calibration.pooled.outcome == "uncertified" and calibration.formula.kind == "balanced"
    assert any("too few labelled frames to fit" in note for note in calibration.notes)
    verdicts = found.score([*known[:5], *pool[10:40]], stub)
    assert all(v.flagged for v in verdicts)
    ratios, true = np.array([v.ratio for v in verdicts[5:]]), errors(pool[10:40])
    assert np.corrcoef(np.log(ratios), np.log(true))[0, 1] > 0.3  # the worst still come first
    assert "more of them" in verdicts[0].reason


def test_an_accurate_potential_leaves_known_frames_alone(known, stub, pool):
    settings = Detect(signals=FEATURES, tolerance_meV_A=2 * tolerance_of(pool, 0.001))
    found = Detector.fit(known, stub, settings, heldout=pool[:60])
    assert found.calibration.pooled.outcome == "accurate"
    assert np.mean([v.flagged for v in found.score(pool[60:260], stub)]) < 0.1
    far = pool[0].copy()
    far.rattle(0.5, seed=1)
    assert found.score([far], stub)[0].flagged


def test_beyond_the_upper_cut_a_frame_is_unphysical_but_a_new_element_is_not(detector, stub, pool, known):
    near = pool[0].copy()
    near.positions[1] = near.positions[0] + [0.05, 0, 0]
    strict = Detect.model_validate({**detector.settings.model_dump(), "upper": 1.5})
    found = Detector.fit(known, stub, strict, heldout=pool[:240])
    verdict = found.score([near], stub)[0]
    assert verdict.unphysical and verdict.reason.startswith("unphysical") and verdict.finite
    copper = pool[0].copy()
    copper.symbols[0] = "Cu"
    verdict = found.score([copper], stub)[0]
    assert math.isinf(verdict.ratio) and verdict.flagged and not verdict.unphysical
    assert found.scorer(stub)(near, stub.evaluate([near], features=True)[0])["unphysical"] == 1.0


def test_a_higher_signal_never_lowers_a_verdict(detector, stub, pool):
    verdicts = detector.score(pool[240:300], stub)
    for v in verdicts:
        raised = {k: 1.5 * x for k, x in v.atoms.items()}
        assert detector.calibration.score(detector.calibration.atom_scores(raised)) >= v.score


def test_saved_and_loaded_it_says_the_same(detector, stub, pool, tmp_path):
    detector.save(tmp_path)
    again = Detector.load(tmp_path, stub)
    assert again.calibration == detector.calibration
    for a, b in zip(again.score(pool[240:260], stub), detector.score(pool[240:260], stub), strict=True):
        assert (a.score, a.ratio, a.reason) == (b.score, b.ratio, b.reason)
    assert np.array_equal(again.calibration_scores["error"], detector.calibration_scores["error"])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["promise"][0].startswith("certified") and "eV/Å" in config["promise"][1]


def test_a_detector_of_the_first_format_goes_on_with_its_thresholds(tmp_path, known, stub, pool):
    """Format 1 was what format 2 is without labels, without the parts that came later."""
    from aldriver.detect import storage

    bare = [Atoms(numbers=a.numbers, positions=a.positions, cell=a.cell, pbc=True) for a in pool[:30]]
    old = Detector.fit(known, stub, Detect(signals=["feature_distance"]), heldout=bare)
    models, numbers = storage.pack(old.signals)
    settings = {k: v for k, v in old.settings.model_dump(mode="json").items() if k in ("signals", "quantile")}
    config = {
        "format": 1,
        "potential": {"name": "stub", "fingerprint": stub.fingerprint},
        "settings": settings | {"components": 5},
        "elements": numbers["elements"],
        "vector_scale": old.vector_scale,
        "thresholds": {k: vars(t) for k, t in old.thresholds.items()},
    }
    files = {"models": models, "train_scores": old.train_scores, "heldout_scores": old.heldout_scores}
    storage.write(tmp_path, config, files)
    again = Detector.load(tmp_path, stub)
    assert [v.ratio for v in again.score(pool[:9], stub)] == [v.ratio for v in old.score(pool[:9], stub)]


def test_labels_for_some_frames_only_are_refused(known, stub, pool):
    with pytest.raises(InputError, match="frame 2 has no force label"):
        Detector.fit(known, stub, Detect(signals=FEATURES), heldout=[*pool[:2], known[0]])


def test_frames_of_other_elements_are_left_out_of_a_calibration(known, stub, pool, eam_fe):
    foreign = pool[3].copy()
    foreign.symbols[0] = "Cu"
    foreign = with_labels(foreign, energy=0.0, forces=np.zeros((2, 3)))
    settings = Detect(signals=FEATURES, tolerance_meV_A=tolerance_of(pool, 0.3))
    found = Detector.fit(known, stub, settings, heldout=[*pool[:100], foreign]).calibration
    assert any(note.startswith("1 labelled frames") for note in found.notes)


def test_committee_and_last_layer_of_real_networks(chgnet020, eam_fe, tmp_path):
    from aldriver.potentials.chgnet import CHGNetPotential

    frames, known = labelled(rattled(8, rattle=0.1), eam_fe), rattled(3)
    other = CHGNetPotential.foundation("0.3.0")
    settings = Detect(signals=["soap_q", "last_layer", "committee"], last_layer={"heads": 2, "frames": 2})
    found = Detector.fit(known, chgnet020, settings, heldout=frames[:3], members=[chgnet020, other])
    assert len(found.signals.members) == 1 and found.signals.layer.scale == 1.0
    assert "last_layer has no unit" in found.calibration.notes[-1]
    score = found.score(frames[-1:], chgnet020)[0]
    mine, theirs = (p.evaluate(frames[-1:])[0].forces for p in (chgnet020, other))
    assert score.atoms["committee"] == pytest.approx(np.linalg.norm(mine - theirs, axis=1) / math.sqrt(2), rel=1e-3)
    found.save(tmp_path)
    again = Detector.load(tmp_path, chgnet020).score(frames[-1:], chgnet020)[0]
    assert again.values == pytest.approx(score.values)
    with pytest.raises(InputError, match="at least 2 potentials"):
        Detector.fit(known, chgnet020, settings, members=[chgnet020])
    with pytest.raises(InputError, match="need the potential"):
        found.score(frames[-1:])


class Linear(DensityPotential):
    """With a last layer whose inputs push as the EAM does (times a power of its strength): errors grow with them."""

    def __init__(self, eam: Potential) -> None:
        super().__init__()
        self.eam = eam

    def last_layer_forces(self, frames, directions=None):
        found = []
        for p in self.eam.evaluate(frames):
            inputs = np.stack([p.forces, np.roll(p.forces, 1, axis=1)], axis=-1)
            found.append(inputs if directions is None else inputs @ directions)
        return found


@pytest.mark.parametrize("heads", [0, 64])
def test_the_last_layer_is_calibrated_on_the_frames_that_fit_the_score(known, pool, eam_fe, heads):
    """Its deviation is then in eV/Å: standardised errors of frames it never saw have about unit variance."""
    settings = Detect(
        signals=["last_layer"],
        score="last_layer",
        last_layer={"heads": heads, "frames": 20},
        tolerance_meV_A=tolerance_of(pool, 0.3),
    )
    potential = Linear(eam_fe)
    found = Detector.fit(known, potential, settings, heldout=pool[:120])
    assert found.calibration.formula.kind == "single" and 50 <= found.calibration.pooled.frames <= 70
    verdicts = found.score(pool[120:300], potential)
    deviations = np.concatenate([v.atoms["last_layer"] for v in verdicts])
    lengths = np.concatenate([np.linalg.norm(a.get_forces(), axis=1) for a in pool[120:300]])
    assert np.sqrt(np.mean((lengths / deviations) ** 2)) == pytest.approx(1.0, abs=0.15)
    bad = errors(pool[120:300]) > found.calibration.tolerance
    assert np.mean([not v.flagged for v, b in zip(verdicts, bad, strict=True) if b]) < 0.25
