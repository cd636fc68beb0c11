"""``aldriver detector`` as a user calls it: an EAM truth, and another EAM as the potential that is to be judged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk

import aldriver
from aldriver.cli.main import main
from aldriver.core.frames import read_frames, with_labels, write_frames

TRUTH, POTENTIAL = "eam:Al_zhou.eam.alloy", "eam:AlCu.eam.alloy"
SOAP = ("--signals", "soap_q,soap_t2")


def call(*args) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0)


def result_of(tmp_path, *args):
    out = tmp_path / "result.json"
    assert call(*args, "--json", out) == 0
    return json.loads(out.read_text())


def cells(truth, count: int, rattle: float, seed: int) -> list:
    """Labelled four-atom cells of aluminium, shaken more and more."""
    frames = []
    for k in range(count):
        atoms = bulk("Al", "fcc", a=4.05, cubic=True)
        atoms.rattle(rattle * (k + 1) / count, seed=seed + k)
        p = truth.evaluate([atoms])[0]
        frames.append(with_labels(atoms, energy=p.energy, forces=p.forces))
    return frames


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    truth = aldriver.load(TRUTH)
    write_frames(folder / "known.extxyz", cells(truth, 15, 0.05, 100))
    write_frames(folder / "heldout.extxyz", cells(truth, 80, 0.35, 300))
    write_frames(folder / "new.extxyz", cells(truth, 60, 0.35, 500))
    assert call("detector", "fit", POTENTIAL, folder / "known.extxyz", "--out", folder / "fitted", *SOAP) == 0
    tolerance = ("--tolerance-meV-A", 300, "--miss-rate", 0.2)
    out = ("--out", folder / "ready", "--potential", POTENTIAL)
    assert call("detector", "calibrate", folder / "fitted", folder / "heldout.extxyz", *out, *tolerance) == 0
    return folder


def test_a_detector_is_fitted_and_says_what_is_missing(files, tmp_path, capsys):
    out = ("--out", tmp_path / "one")
    result = result_of(tmp_path, "detector", "fit", POTENTIAL, files / "known.extxyz", *out, *SOAP)
    assert result["n_fitted"] == 15 and result["signals"] == ["soap_q", "soap_t2"] and result["calibration"] is None
    assert "not calibrated yet" in capsys.readouterr().out
    assert call("detector", "score", tmp_path / "one", files / "new.extxyz") == 2
    assert "not calibrated" in capsys.readouterr().err


def test_misses_and_false_alarms_are_those_of_the_verdicts(files, tmp_path, capsys):
    result = result_of(
        tmp_path, "detector", "roc", files / "ready", files / "new.extxyz", "--potential", POTENTIAL, "--resamples", 50
    )
    judged = result_of(tmp_path, "detector", "score", files / "ready", files / "new.extxyz")
    flagged = np.array([row["verdict"] != "known" for row in judged["frames"]])
    frames = read_frames(files / "new.extxyz")
    off = [a.get_forces() - p.forces for a, p in zip(frames, aldriver.load(POTENTIAL).evaluate(frames), strict=True)]
    bad = np.array([np.sqrt((d**2).sum(axis=1).mean()) for d in off]) > 0.3
    found = result["coverage"]
    assert (found["tolerance_meV_A"], found["miss_rate_promised"], result["n_frames"]) == (300, 0.2, 60)
    assert (found["above"], found["missed"]) == (bad.sum(), (bad & ~flagged).sum())
    assert (found["within"], found["false_alarms"]) == ((~bad).sum(), (~bad & flagged).sum())
    assert found["miss_rate_interval"][0] <= found["miss_rate"] <= found["miss_rate_interval"][1]
    assert result["force_rmse_meV_A"] == pytest.approx(1000 * np.sqrt(np.mean(np.square(off))))
    assert set(result["signals"]) == {"score", "soap_q", "soap_t2", "|F|"}
    for one in result["signals"].values():
        assert 0 <= one["frames"]["low"] <= one["frames"]["value"] <= one["frames"]["high"] <= 1
    # far from the fitted frames errors grow, and so do the signals
    assert result["signals"]["soap_q"]["frames"]["value"] > 0.8
    shown = capsys.readouterr().out
    assert "went unnoticed" in shown and "AUROC" in shown and "soap_q" in shown


def test_scoring_needs_no_potential_where_soap_suffices(files, tmp_path, capsys):
    out = tmp_path / "scored.extxyz"
    result = result_of(tmp_path, "detector", "score", files / "ready", files / "new.extxyz", "--out", out)
    assert result["n_frames"] == 60 == sum(result[k] for k in ("known", "flagged", "unphysical", "quarantined"))
    # shaken more and more: the calm ones are known, the wild ones are not
    kinds = [row["verdict"] for row in result["frames"]]
    assert kinds[:20].count("known") > 15 > 10 > kinds[-20:].count("known")
    written = read_frames(out)
    assert [a.info["verdict"] for a in written] == kinds and written[0].get_array("score").shape == (4,)
    assert np.allclose([a.info["ratio"] for a in written], [row["ratio"] for row in result["frames"]])
    assert "the worst 15 of 60" in capsys.readouterr().out


def test_fit_and_calibrate_in_one_go_are_the_same(files, tmp_path):
    out = ("--out", tmp_path / "both", "--calibrate", files / "heldout.extxyz")
    settings = tmp_path / "detect.yaml"
    settings.write_text("signals: [soap_q, soap_t2]\ntolerance_meV_A: 300\nmiss_rate: 0.5\n")
    result = result_of(
        tmp_path, "detector", "fit", POTENTIAL, files / "known.extxyz", *out, "--settings", settings, "--miss-rate", 0.2
    )
    assert result["miss_rate"] == 0.2 and result["n_calibration"] == result["n_groups"] == 80
    two = result_of(tmp_path, "detector", "score", files / "ready", files / "new.extxyz")
    one = result_of(tmp_path, "detector", "score", tmp_path / "both", files / "new.extxyz")
    assert [r["ratio"] for r in one["frames"]] == pytest.approx([r["ratio"] for r in two["frames"]], rel=1e-6)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("roc", "READY", "NEW"), "give --potential"),
        (("roc", "READY", "NEW", "--potential", "eam:Fe_mm.eam.fs"), "belongs to the potential"),
        (("roc", "READY", "PLAIN", "--potential", POTENTIAL), "forces"),
        (("score", "NOWHERE", "NEW"), "not a saved detector"),
        (("score", "READY", "EMPTY"), "no frames"),
        (("fit", POTENTIAL, "NEW", "--out", "OUT", "--signals", "soap_z"), "--signals"),
        (("fit", POTENTIAL, "NEW", "--out", "OUT", "--signals", "feature_q"), "no per-atom features"),
        (("fit", POTENTIAL, "NEW", "--out", "OUT", "--miss-rate", "2"), "--miss-rate"),
        (("calibrate", "READY", "NEW", "--out", "PUBLISHED", "--potential", POTENTIAL), "published"),
    ],
)
def test_bad_input_is_named(files, tmp_path, capsys, args, words):
    plain = tmp_path / "plain.extxyz"
    write_frames(plain, [bulk("Al", "fcc", a=4.05, cubic=True)])
    (tmp_path / "empty.extxyz").write_text("")
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "manifest.json").write_text("{}")
    paths = {
        "READY": files / "ready",
        "NEW": files / "new.extxyz",
        "PLAIN": plain,
        "NOWHERE": tmp_path / "nowhere",
        "EMPTY": tmp_path / "empty.extxyz",
        "OUT": tmp_path / "out",
        "PUBLISHED": tmp_path / "published" / "detector",
    }
    assert call("detector", *[paths.get(a, a) for a in args]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
