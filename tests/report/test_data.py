"""Reading a campaign: what is there is read, what is missing or damaged is named, nothing crashes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import report_campaign

from aldriver.core.errors import InputError
from aldriver.report import write_report
from aldriver.report.data import detector_of, read_campaign
from aldriver.report.html import render
from aldriver.report.summary import missing, sentences, state, tiles


def test_all_pieces_are_read(campaign):
    read = read_campaign(campaign)
    assert read.name == "fe-vacancy" and read.problems == [] and missing(read) == []
    assert [g.number for g in read.generations] == [0, 1, 2, 3]
    assert [g.promoted for g in read.generations] == [True, True, False, True]
    assert [len(g.labels) for g in read.generations] == [0, 12, 12, 12]
    assert [len(g.walkers) for g in read.generations] == [0, 4, 4, 4]
    assert len(read.reference) == 6
    assert read.metrics(read.generations[1])["forces_rmse_meV_A"] == 61.2


def test_held_generation_is_not_the_one_in_use_and_does_not_explore(fresh):
    read = read_campaign(fresh(generations=2))
    assert read.current.number == 1
    read = read_campaign(read.path)
    explored_by = [read.before(g).number for g in read.generations[1:]]
    assert explored_by == [0, 1]


def test_thresholds_and_scores_come_from_the_detector_of_the_potential_in_use(campaign):
    read = read_campaign(campaign)
    detector = detector_of(read, read.generations[3])
    assert detector.thresholds == {"soap_q": 2.0, "soap_t2": 20.0, "feature_distance": 200.0}
    assert len(detector.train["soap_q"]) == 40 + 12  # generation 1's: generation 2 was held
    assert detector.vector_scale == 2.0


def test_a_recalibrated_detector_takes_the_place_of_its_potentials(fresh):
    root = fresh()
    newer = root / "generation-002" / "gate" / "detector"  # generation 2 was held: generation 1's potential went on
    newer.mkdir()
    config = json.loads(
        (root / "potentials" / report_campaign.FINGERPRINTS[1] / "detector" / "config.json").read_text()
    )
    (newer / "config.json").write_text(json.dumps(config | {"thresholds": {"soap_q": 3.5}}))
    read = read_campaign(root)
    assert detector_of(read, read.generations[3]).thresholds == {"soap_q": 3.5}
    assert detector_of(read, read.generations[2]).thresholds["soap_q"] == 2.0


def test_summary_says_what_was_achieved(campaign):
    read = read_campaign(campaign)
    text = " ".join(sentences(read))
    assert "3 generations of refinement, 2 promoted" in text and "36 labels (35 ok, 1 unconverged)" in text
    assert "force 240 → 36.4 meV/Å (−84.8 %)" in text and "20 independent test frames" in text
    assert "6 benchmark properties" in text and "from 25.2 % to 1.7 %" in text
    assert state(read) == ("finished", "the last of 3 generations is done")
    shown = {t.title: (t.value, t.note) for t in tiles(read)}
    assert shown["Force RMSE, meV/Å"] == ("36.4", "was 240, −84.8 %")
    assert shown["Labels"][0] == "36"


def test_nothing_promoted_is_said(fresh):
    root = fresh(generations=1)
    path = root / "generation-001" / "gate" / "decision.json"
    decision = json.loads(path.read_text()) | {"decision": "hold", "promoted": "f0" * 8}
    path.write_text(json.dumps(decision))
    read = read_campaign(root)
    assert "none promoted: chgnet:0.2.0 is still the potential in use" in sentences(read)[0]
    assert "not promoted" in render(read)


def test_refused_training_is_not_a_missing_benchmark(fresh):
    root = fresh(generations=1)
    shutil.rmtree(root / "generation-001" / "benchmark")
    put(root / "generation-001" / "train" / "result.json", {"accepted": False, "reason": "worse", "fingerprint": None})
    put(
        root / "generation-001" / "gate" / "decision.json",
        {"decision": "hold", "fingerprint": None, "promoted": "f0" * 8},
    )
    read = read_campaign(root)
    assert missing(read) == [] and not read.generations[1].promoted
    assert render(read)


def test_state_of_a_campaign_under_way_and_cancelled(fresh):
    root = fresh(generations=1)
    for stage in ("train", "benchmark", "gate"):
        shutil.rmtree(root / "generation-001" / stage)
    assert state(read_campaign(root)) == ("under way", "generation 1 has published explore, select and label so far")
    assert missing(read_campaign(root)) == ["generation 1 has no results of train, benchmark and gate yet"]
    (root / "cancel.json").write_text("{}")
    assert state(read_campaign(root))[0] == "cancelled"


def test_labels_under_way_come_from_the_ledger(fresh):
    root = fresh(generations=1)
    shutil.rmtree(root / "generation-001" / "label")
    read = read_campaign(root)
    assert len(read.generations[1].labels) == 12
    assert "Ledger of all labels" in render(read)


def test_failed_stage_is_named_until_it_succeeds(fresh):
    root = fresh(generations=1)
    failure = {"event": "stage_failed", "stage": "train", "generation": 1, "index": 0, "reason": "no space left"}
    with (root / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps(failure) + "\n")
    assert missing(read_campaign(root)) == ["train of generation 1 failed: no space left"]
    with (root / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps(failure | {"event": "published", "seconds": 1.0}) + "\n")
    assert missing(read_campaign(root)) == []


REMOVABLE = [
    "recipe.yaml",
    "campaign.json",
    "ledger.jsonl",
    "potentials",
    "generation-000",
    "generation-000/reference",
    "generation-000/benchmark",
    "generation-001/explore",
    "generation-001/explore/walker-000/vectors.npz",
    "generation-002/select",
    "generation-002/label",
    "generation-003/train",
    "generation-003/benchmark",
    "generation-003/gate",
]


@pytest.mark.parametrize("piece", REMOVABLE)
def test_any_missing_piece_is_survived(fresh, piece):
    root = fresh()
    path = root / piece
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "<h2>Errors</h2>" in render(read_campaign(root))


DAMAGED = [
    "recipe.yaml",
    "campaign.json",
    "generation-001/gate/decision.json",
    "generation-001/benchmark/records.json",
    "generation-001/label/labels.json",
    "generation-001/train/predictions_test.npz",
    "generation-001/explore/walker-001/scores.npz",
    "generation-001/select/selected.extxyz",
    "potentials/a1a1a1a1a1a1a1a1/detector/config.json",
    "potentials/a1a1a1a1a1a1a1a1/detector/train_scores.npz",
]


@pytest.mark.parametrize("piece", DAMAGED)
@pytest.mark.parametrize("content", [b"\x00\xff{", b"", b"[1, 2]"])
def test_any_damaged_piece_is_survived_and_named(fresh, piece, content):
    root = fresh()
    (root / piece).write_bytes(content)
    page = render(read_campaign(root))
    assert "<h2>Errors</h2>" in page
    if content.startswith(b"\x00"):
        assert f"{piece} could not be read" in page


def test_pickled_arrays_are_refused(fresh, tmp_path):
    root = fresh()
    path = root / "generation-003" / "train" / "predictions_test.npz"
    np.savez(path, forces_ref=np.array([{"a": 1}], dtype=object), forces_pred=np.zeros(1))
    read = read_campaign(root)
    assert read.generations[3].predictions == {} and "predictions_test.npz could not be read" in read.problems[0]


def test_wrong_kinds_of_values_are_no_numbers(fresh):
    root = fresh()
    evaluation = {"test": {"forces_rmse_meV_A": "low", "energy_rmse_meV_atom": None, "stress_rmse_GPa": True}}
    put(root / "generation-003" / "benchmark" / "evaluation.json", evaluation)
    put(root / "generation-002" / "benchmark" / "records.json", [{"property": "c11"}, "x", {"value": 3}])
    put(root / "generation-001" / "label" / "labels.json", [{"status": None, "seconds": "long"}])
    (root / "recipe.yaml").write_text("label: none\ndetect: [1]\nstop: 3\nbenchmark: {reference: {x: 1}}\n")
    assert render(read_campaign(root))


def test_fingerprint_cannot_lead_out_of_the_campaign(fresh):
    root = fresh()
    path = root / "generation-001" / "gate" / "decision.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "../../etc", "promoted": "../../etc"}))
    read = read_campaign(root)
    assert read.before(read.generations[2]) is read.generations[1]
    assert detector_of(read, read.generations[2]).thresholds == {}


def test_a_folder_that_is_no_campaign_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a campaign directory"):
        write_report(tmp_path, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_report_goes_where_it_is_asked_to(fresh, tmp_path):
    root = fresh(generations=0)
    assert write_report(root, tmp_path / "new" / "r.html") == tmp_path / "new" / "r.html"
    assert write_report(root, root) == root / "report.html"
    assert (root / "report.html").read_text().startswith("<!doctype html>")


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
