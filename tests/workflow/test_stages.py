"""The glue on real rooms: a foundation, an EAM reference, cells of eight atoms, one generation."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from aldriver.cli.status import detection
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import frame_hash, read_frames, write_frames
from aldriver.core.store import publish, verify
from aldriver.core.systems import build_systems
from aldriver.workflow import stages
from aldriver.workflow.campaign import create, open_campaign
from aldriver.workflow.inbox import Inbox
from aldriver.workflow.stage_explore import _start, promoted_pair, walkers
from aldriver.workflow.stage_select import selected_frames
from aldriver.workflow.stage_train import split
from aldriver.workflow.status import _detection

SMALL = {
    "systems": [{"name": "bulk", "bulk": {"element": "Fe", "lattice": "bcc", "a": 2.84}, "supercell": [2, 2, 1]}],
    "explore": {
        "temperatures_K": [600, 1200],
        "strains": [0.0, 0.02],
        "steps": 10,
        "timestep_fs": 2,
        "sample_every": 5,
    },
    "detect": {"signals": ["soap_q", "feature_distance"], "soap": {"n_max": 3, "l_max": 2}},
    "train": {"epochs": 2, "learning_rate": 1.0e-3, "ewc": 0, "replay": {"source": "none"}},
    "benchmark": {
        "properties": ["lattice"],
        "cases": [{"name": "bcc-Fe", "element": "Fe", "lattice": "bcc", "a": 2.86, "supercell": [2, 2, 2]}],
    },
    "test": {"temperatures_K": [600], "frames_per_walker": 2, "steps": 20},
    "stop": {"generations": 2},
    "resources": {"threads": 1},
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A campaign after generation 0 and 1, each stage called as its task calls it."""
    folder = tmp_path_factory.mktemp("real")
    recipe = folder / "recipe.yaml"
    base = {
        "name": "small",
        "seed": 3,
        "potential": "chgnet:0.2.0",
        "label": {"engine": "calculator", "reference": "eam:Fe_mm.eam.fs", "budget": 5, "audit": 1, "fill": True},
    }
    recipe.write_text(yaml.safe_dump(base | SMALL))
    campaign = create(recipe, folder / "campaign")
    for name in ("reference", "baseline", "benchmark", "gate"):
        stages.run_stage(name, campaign, 0)
    for walker in walkers(campaign.recipe):
        stages.run_stage("explore", campaign, 1, walker.index)
    hand_over(campaign)
    stages.run_stage("select", campaign, 1)
    for i in range(len(selected_frames(campaign, 1))):
        stages.run_stage("label", campaign, 1, i)
    for name in ("collect", "train", "benchmark", "gate"):
        stages.run_stage(name, campaign, 1)
    return campaign


def hand_over(campaign):
    """What a monitor flagged in production: a frame far from everything, handed over twice."""
    strange = build_systems(campaign.recipe)[0]
    strange.rattle(0.3, seed=5)
    strange.info = {"frame_id": frame_hash(strange), "group": "monitor-production", "step": 70}
    for _ in range(2):
        assert Inbox(campaign.root).put(strange) == ""


def load(path):
    return json.loads(path.read_text())


def test_the_layout_is_published_and_verified(real):
    zero, one = real.generation(0), real.generation(1)
    for folder in (*(zero / s for s in ("reference", "train", "benchmark", "gate")),):
        verify(folder)
    for folder in (one / s for s in ("select", "label", "train", "benchmark", "gate")):
        verify(folder)
    for walker in walkers(real.recipe):
        verify(real.walker(1, walker.index))
    assert not list(real.root.rglob(".tmp-*")) and not list(real.root.rglob(".work-train*"))


def test_a_change_accepted_in_the_middle_of_a_training_starts_it_anew(real, tmp_path, monkeypatch):
    """The checkpoint belongs to the old settings: it is neither gone on from nor in the way."""
    from aldriver.train import attempts

    shutil.copytree(real.root, tmp_path / "campaign")
    for stage in ("train", "benchmark", "gate"):
        shutil.rmtree(tmp_path / "campaign" / "generation-001" / stage)
    campaign = open_campaign(tmp_path / "campaign")
    whole = attempts.train_attempts

    def stopped(*sides, **options):
        def stop(line):
            raise KeyboardInterrupt

        return whole(*sides, **options | {"on_epoch": stop})

    with monkeypatch.context() as patch:
        patch.setattr(attempts, "train_attempts", stopped)
        with pytest.raises(KeyboardInterrupt):
            stages.run_stage("train", campaign, 1)
    assert list(campaign.generation(1).glob(".work-train*/attempt-0/checkpoint.pt"))
    changed = yaml.safe_load((campaign.root / "recipe.yaml").read_text())
    changed["train"]["learning_rate"] *= 0.5
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(changed))
    campaign = create(tmp_path / "changed.yaml", campaign.root, accept_changes=True)
    stages.run_stage("train", campaign, 1)
    rates = [
        [json.loads(line)["lr"] for line in (one.stage(1, "train") / "history.jsonl").read_text().splitlines()]
        for one in (real, campaign)
    ]
    assert len(rates[0]) == 2 and rates[1] == pytest.approx([0.5 * rate for rate in rates[0]])
    assert not list(campaign.generation(1).glob(".work-train*"))


def test_the_baseline_holds_truth_test_set_and_foundation(real):
    (record,) = load(real.stage(0, "reference") / "records.json")
    assert record["value"] == pytest.approx(2.8553, abs=2e-4)  # Mendelev's own lattice constant of bcc Fe
    test = read_frames(real.stage(0, "reference") / "test.extxyz", labelled=True)
    assert len(test) == 2 and not any(a.has("momenta") for a in test)
    fingerprint = real.decision(0)["promoted"]
    verify(real.potential(fingerprint))
    potential, detector = promoted_pair(real, 0)
    assert potential.fingerprint == detector.fingerprint == fingerprint
    assert set(detector.thresholds) == {"soap_q", "feature_distance"}
    arrays = np.load(real.stage(0, "train") / "predictions_test.npz")
    error = 1000 * np.sqrt(np.mean((arrays["forces_ref"] - arrays["forces_pred"]) ** 2))
    evaluation = load(real.stage(0, "benchmark") / "evaluation.json")
    assert evaluation["test"]["forces_rmse_meV_A"] == pytest.approx(error, rel=1e-3)
    assert real.decision(0)["numbers"]["force_rmse_meV_A"] == pytest.approx(error, rel=1e-3)


def test_walkers_keep_frames_scores_and_vectors_together(real):
    for walker in walkers(real.recipe):
        folder = real.walker(1, walker.index)
        frames = read_frames(folder / "frames.extxyz")
        scores = np.load(folder / "scores.npz")
        vectors = np.load(folder / "vectors.npz")["vectors"]
        assert len(frames) == len(scores["ratio"]) == len(vectors) == 2
        assert scores["step"].tolist() == [5, 10]
        assert {f.info["group"] for f in frames} == {f"g001-w{walker.index:03d}"}
        result = load(folder / "result.json")
        assert (result["reason"], result["system"], result["strain"]) == ("completed", "bulk", walker.strain)
    # a strained walker's cell is the strained one
    assert read_frames(real.walker(1, 1) / "last.extxyz")[0].cell[0, 0] == pytest.approx(2 * 2.84 * 1.02)


def test_selected_frames_are_labelled_by_the_reference(real, eam_fe):
    selection = load(real.stage(1, "select") / "selection.json")
    chosen = selected_frames(real, 1)
    assert selection["n_candidates"] == 8 and 2 <= len(chosen) == selection["n_selected"] <= 5
    data = read_frames(real.stage(1, "label") / "dataset.extxyz", labelled=True)
    assert [a.info["frame_id"] for a in data] == [a.info["frame_id"] for a in chosen]
    for atoms, truth in zip(data, eam_fe.evaluate(data), strict=True):
        assert np.allclose(atoms.get_forces(), truth.forces, atol=1e-6)
        assert atoms.info["origin"] in ("flagged", "audit", "fill", "seed", "monitor")
        verify(real.labels / atoms.info["label_key"])
    fates = load(real.stage(1, "label") / "labels.json")
    assert {f["status"] for f in fates} == {"ok"} and len(real.ledger.find("label", generation=1)) == len(fates)


def test_a_frame_of_the_inbox_is_labelled_and_left_out_of_the_audit(real):
    """It is no candidate of the walkers: what the audit says of them does not change."""
    selection, decision = load(real.stage(1, "select") / "selection.json"), real.decision(1)
    data = read_frames(real.stage(1, "label") / "dataset.extxyz", labelled=True)
    (own,) = [a for a in data if a.info["origin"] == "monitor"]
    assert own.info["group"] == "monitor-production" and own.info["ratio"] > 1 and own.info["step"] == 70
    assert selection["n_monitored"] == 1 and selection["n_candidates"] == 8
    others = [a for a in data if a.info["origin"] != "monitor"]
    assert decision["audit"]["counts"]["labelled"] == sum(a.info["ratio"] > 1 for a in others)


def test_the_detector_promises_and_is_audited(real):
    """Generation 1 is guarded by a detector without labels; the next one is calibrated on force errors, or says so."""
    selection, decision = load(real.stage(1, "select") / "selection.json"), real.decision(1)
    assert selection["promise"]["outcome"] == "quantile" and "no labels" in selection["promise"]["sentences"][0]
    assert selection["drift"]["sentence"]
    data = read_frames(real.stage(1, "label") / "dataset.extxyz", labelled=True)
    counts = decision["audit"]["counts"]
    assert counts["left"] + counts["flagged"] == selection["n_candidates"]
    assert counts["audited"] == sum(a.info["origin"] == "audit" for a in data)
    assert not decision["step"]["settled"]
    after = promoted_pair(real, 1)[1].calibration
    assert after.pooled.outcome == "uncertified" and after.formula.kind == "balanced"  # one label holds nothing
    assert (real.stage(1, "gate") / "detector").is_dir() == (decision["decision"] != "promote")
    lines = detection({"rounds": [{"name": "generation 1", "detection": _detection(real, 1, decision)}]})
    assert lines[0].startswith("detector of generation 1 (tolerance 100 meV/Å, miss rate 0.1): no labels")
    assert any("candidates flagged" in line for line in lines) and any("still moving" in line for line in lines)


def test_training_uses_all_labels_and_keeps_groups_apart(real):
    result = load(real.stage(1, "train") / "result.json")
    sides = [read_frames(real.stage(1, "train") / f"{s}.extxyz") for s in ("train", "valid")]
    groups = [{a.info["group"] for a in side} for side in sides]
    assert not groups[0] & groups[1] and all(groups)
    assert (len(sides[0]), len(sides[1])) == (result["n_train"], result["n_valid"])
    decision = real.decision(1)
    promotion = decision["decision"] == "promote"
    assert decision["promoted"] == (result["fingerprint"] if promotion else real.decision(0)["promoted"])
    assert promotion <= result["accepted"]
    if result["accepted"]:
        verify(real.potential(result["fingerprint"]))


def test_a_stage_that_is_published_returns_at_once(real, monkeypatch):
    monkeypatch.setattr(stages, "_load", lambda *a: pytest.fail("a potential was loaded"))
    before = len(real.ledger.read())
    for name in ("reference", "baseline", "benchmark", "gate"):
        stages.run_stage(name, real, 0)
    for name in ("explore", "select", "collect", "train", "benchmark", "gate"):
        stages.run_stage(name, real, 1)
    assert len(real.ledger.read()) == before


def test_walkers_go_on_where_they_were_unless_they_ended_badly(real):
    first, second, *_ = walkers(real.recipe)
    start, origin = _start(real, 2, first)
    last = read_frames(real.walker(1, 0) / "last.extxyz")[0]
    assert "last frame" in origin
    assert np.allclose(start.positions, last.positions) and np.allclose(start.get_momenta(), last.get_momenta())
    result = load(real.walker(1, 1) / "result.json")
    path = real.walker(1, 1) / "result.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps(result | {"reason": "hot"}))
        assert _start(real, 2, second)[1] == "the start cell"
    finally:
        path.write_text(text)
    assert _start(real, 1, first)[1] == "the start cell"


def test_a_walker_that_cannot_run_is_published_as_an_error(real, monkeypatch):
    import aldriver.explore

    def broken(*args, **kwargs):
        raise RuntimeError("lost the cell")

    monkeypatch.setattr(aldriver.explore, "run_walker", broken)
    stages.run_stage("explore", real, 2, 0)
    result = load(real.walker(2, 0) / "result.json")
    assert (result["reason"], result["message"]) == ("error", "RuntimeError: lost the cell")
    assert read_frames(real.walker(2, 0) / "frames.extxyz") == []
    for i in (1, 2, 3):
        stages.run_stage("explore", real, 2, i)
    with pytest.raises(InputError, match="no walker of generation 2 could run; the first one: RuntimeError: lost"):
        stages.run_stage("select", real, 2)
    assert real.ledger.find("stage_failed", stage="select")[0]["kind"] == "InputError"


def test_a_training_that_is_refused_holds_the_generation(real, monkeypatch):
    import aldriver.train

    refused = []

    def refuse(start, known, valid, settings, out, **kwargs):
        refused.append((start.fingerprint, len(known)))
        nothing = {"loss": 1.0}
        return aldriver.train.TrainResult(
            potential=start,
            accepted=False,
            reason="no better than what came in",
            history=[],
            e0_shift=None,
            before=nothing,
            after=nothing,
            seconds=0.0,
        )

    monkeypatch.setattr("aldriver.train.attempts.train", refuse)
    with publish(real.stage(2, "label")) as tmp:
        data = read_frames(real.stage(1, "label") / "dataset.extxyz")
        for i, atoms in enumerate(data):
            atoms.info |= {"group": f"g002-w{i:03d}", "frame_id": f"copy-{i}"}
        write_frames(tmp / "dataset.extxyz", data)
    for name in ("train", "benchmark", "gate"):
        stages.run_stage(name, real, 2)
    (start, count), decision = refused[0], real.decision(2)
    assert start == real.decision(0)["promoted"]  # from the foundation, on the labels of both generations
    one = load(real.stage(1, "train") / "result.json")
    assert count > one["n_train"]
    assert decision["decision"] == "hold" and "no better than what came in" in decision["reason"]
    assert decision["promoted"] == real.decision(1)["promoted"] and decision["fingerprint"] is None
    assert decision["stop"] and decision["stop_reason"] == "all 2 generations are done"
    earlier = [a.info["frame_id"] for a in read_frames(real.stage(1, "train") / "valid.extxyz")]
    now = [a.info["frame_id"] for a in read_frames(real.stage(2, "train") / "valid.extxyz")]
    assert now[: len(earlier)] == earlier  # what once validated never becomes training data


def frames_of(sizes, fe_cell):
    out = []
    for group, size in sizes.items():
        for i in range(size):
            atoms = fe_cell.copy()
            atoms.info = {"group": group, "frame_id": f"{group}-{i}"}
            out.append(atoms)
    return out


def test_splits_are_stable_over_generations(campaign, fe_cell):
    one = frames_of({"a": 3, "b": 4, "c": 3, "d": 2}, fe_cell)
    two = frames_of({"e": 5, "f": 1, "g": 2}, fe_cell)
    ids = [[[a.info["frame_id"] for a in side] for side in split(campaign, g)[:2]] for g in ([one], [one, two])]
    assert ids[1][0][: len(ids[0][0])] == ids[0][0] and ids[1][1][: len(ids[0][1])] == ids[0][1]
    assert ids[0][1] and len(ids[1][1]) > len(ids[0][1])
    lone = frames_of({"h": 1}, fe_cell)
    known, valid, _ = split(campaign, [one, lone])
    assert known[-1] is lone[0] and len(valid) == len(ids[0][1])
    assert split(campaign, [lone])[1] == []


def test_too_few_labels_are_a_reason_not_a_crash(campaign):
    (campaign.generation(1)).mkdir()
    stages.run_stage("train", campaign, 1)
    result = load(campaign.stage(1, "train") / "result.json")
    assert not result["accepted"] and result["reason"].startswith("no new labels")


def test_threads_follow_the_recipe_and_the_stage(campaign, monkeypatch):
    monkeypatch.setattr(stages, "cores_here", lambda: 8)
    assert (stages.threads(campaign, "explore"), stages.threads(campaign, "train")) == (4, 8)
    fixed = campaign.recipe.model_copy(
        update={"resources": campaign.recipe.resources.model_copy(update={"threads": 3})}
    )
    other = replace(campaign)
    other.__dict__["recipe"] = fixed
    assert stages.threads(other, "train") == 3


def test_seeds_are_reproducible_and_distinct():
    assert stages.seed_for(1, "a", 2) == stages.seed_for(1, "a", 2) != stages.seed_for(1, "a", 3)
    assert 0 <= stages.seed_for("x") < 2**31


def test_a_failure_is_noted_in_words(campaign, monkeypatch):
    def fail(*args):
        raise AldriverError("no space\nleft")

    monkeypatch.setattr("aldriver.workflow.stage_gate.gate_stage", fail)
    with pytest.raises(AldriverError):
        stages.run_stage("gate", campaign, 4)
    (entry,) = campaign.ledger.find("stage_failed")
    assert (entry["stage"], entry["generation"], entry["reason"]) == ("gate", 4, "no space left")
