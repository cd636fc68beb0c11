"""``aldriver train`` as a user calls it: without a campaign, interrupted, refused, in committees and studies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase.build import bulk

import aldriver
from aldriver.cli.main import main
from aldriver.cli.train import train_settings
from aldriver.core.errors import InputError
from aldriver.core.frames import read_frames, with_labels, write_frames
from aldriver.potentials.bundle import describe_bundle, save_bundle
from aldriver.testing.small_mace import small_mace

START = Path(__file__).resolve().parents[1] / "potentials" / "data" / "format-1"
"""A CHGNet of 3828 random weights: everything is better than it."""
QUICK = ("--epochs", "4", "--learning-rate", "3e-3")


def call(*args) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Fourteen iron cells of five trajectories, labelled by an EAM potential."""
    eam = aldriver.load("eam:Fe_mm.eam.fs")
    labelled = []
    for seed in range(14):
        atoms = bulk("Fe", cubic=True, a=2.80 + 0.01 * (seed % 7))
        atoms.set_initial_magnetic_moments(None)
        atoms.rattle(0.08, seed=seed)
        p = eam.evaluate([atoms])[0]
        labelled.append(
            with_labels(atoms, energy=p.energy, forces=p.forces, stress=p.stress, group=f"walker-{seed % 5}")
        )
    path = tmp_path_factory.mktemp("frames") / "fe.extxyz"
    write_frames(path, labelled)
    return path


def trained(tmp_path, *args, code=0):
    out = tmp_path / "result.json"
    assert call("train", *args, "--json", out) == code
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def run(frames, tmp_path_factory):
    """One finished training: its folder and its result."""
    folder = tmp_path_factory.mktemp("training")
    return folder / "run", trained(folder, START, frames, "--out", folder / "run", *QUICK)


def test_the_result_is_better_saved_and_documented(run, frames):
    folder, result = run
    assert result["accepted"] and result["strategy"] == "naive"
    assert result["after"]["loss"] < result["before"]["loss"]
    assert result["trainable"] > 3000 and result["best_epoch"] >= 1
    assert result["checks"]["stress"]["gradient_norm"] > 0
    assert json.loads((folder / "result.json").read_text())["fingerprint"] == result["fingerprint"]
    refined = aldriver.load(folder / "potential")
    assert refined.fingerprint == result["fingerprint"] != aldriver.load(START).fingerprint
    config = describe_bundle(folder / "potential")
    assert config["parent"] == aldriver.load(START).fingerprint
    assert config["extra"]["settings"]["learning_rate"] == 3e-3
    assert len((folder / "history.jsonl").read_text().splitlines()) == 4


def test_no_trajectory_is_on_both_sides(run):
    folder, result = run
    sides = [{a.info["group"] for a in read_frames(folder / f"{side}.extxyz")} for side in ("train", "valid")]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert result["n_train"] + result["n_valid"] == 14


def test_evaluate_gives_the_errors_the_training_reports(run, tmp_path):
    """With the energy shift of the training, which lies in the saved potential."""
    folder, result = run
    out = tmp_path / "errors.json"
    assert call("evaluate", folder / "potential", folder / "valid.extxyz", "--json", out) == 0
    found = json.loads(out.read_text())
    assert found["e0_shift_from"] == "training" and found["e0_shift"] == result["e0_shift"]
    for key in ("energy_rmse_meV_atom", "forces_rmse_meV_A"):
        assert found[key] == pytest.approx(result["after"][key], rel=1e-3)


def test_called_again_it_is_finished_at_once(run, frames, tmp_path, capsys):
    folder, result = run
    before = (folder / "history.jsonl").read_bytes()
    again = trained(tmp_path, START, frames, "--out", folder, *QUICK)
    assert again["fingerprint"] == result["fingerprint"]
    assert (folder / "history.jsonl").read_bytes() == before
    shown = capsys.readouterr().out
    assert "accepted" in shown and f"aldriver convert {folder}/potential" in shown.replace("\n", "")


def test_other_settings_need_another_folder(run, frames, capsys):
    folder, _ = run
    assert call("train", START, frames, "--out", folder, *QUICK, "--batch-size", "2") == 2
    assert "belongs to a training with other frames, settings" in " ".join(capsys.readouterr().err.split())


def test_a_finished_folder_without_its_checkpoint_is_not_trained_over(run, frames, tmp_path, capsys):
    folder, _ = run
    save_bundle(aldriver.load(folder / "potential"), tmp_path / "out" / "potential")
    assert call("train", START, frames, "--out", tmp_path / "out", *QUICK) == 2
    assert "never overwritten" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


def test_interrupted_it_says_so_and_ends_with_the_same_weights(frames, tmp_path):
    """Ctrl-C after the first epochs; the same command again; against a run that nobody disturbed."""
    program = [sys.executable, "-c", "from aldriver.cli.main import main; main()", "train", str(START), str(frames)]
    program += ["--epochs", "60", "--dtype", "float64", "--ewc", "0", "--replay", "none"]
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    stopped = tmp_path / "stopped"
    # what runs in the background of a shell ignores Ctrl-C, and so would its children
    heeds = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    command = [*program, "--out", str(stopped)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **heeds)
    history = stopped / "history.jsonl"
    for _ in range(600):
        if process.poll() is not None or (history.exists() and len(history.read_text().splitlines()) >= 2):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 1, said
    assert "the same command goes on from there" in " ".join(said.split())
    assert 2 <= len(history.read_text().splitlines()) < 60
    results = []
    for folder in (stopped, tmp_path / "undisturbed"):
        done = subprocess.run([*program, "--out", str(folder)], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        results.append(json.loads((folder / "result.json").read_text()))
    assert results[0]["fingerprint"] == results[1]["fingerprint"]
    assert results[0]["epochs"] == results[1]["epochs"] == 60


def test_a_result_that_is_worse_is_refused_with_exit_code_1(frames, tmp_path, capsys):
    good = tmp_path / "good"
    result = trained(tmp_path, "chgnet:0.2.0", frames, "--out", good, "--epochs", "1", "--learning-rate", "1", code=1)
    assert not result["accepted"] and result["path"] is None and not (good / "potential").exists()
    said = " ".join(capsys.readouterr().err.split())
    assert "refused: " in said and "the potential is kept" in said


def test_a_result_that_forgets_is_refused_and_the_next_strategy_is_tried(frames, tmp_path, capsys):
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "epochs: 2\nlearning_rate: 3.0e-3\nguard: {max_drift_meV_atom: 1.0e-6}\nfallbacks: [{strategy: conv-only}]\n"
    )
    result = trained(tmp_path, START, frames, "--out", tmp_path / "run", "--settings", settings, code=1)
    assert [a["strategy"] for a in result["attempts"]] == ["naive", "conv-only"]
    assert all("forgets" in a["reason"] for a in result["attempts"])
    assert "conv-only: refused" in " ".join(capsys.readouterr().out.split())


def test_a_committee(frames, tmp_path, capsys):
    result = trained(tmp_path, START, frames, "--out", tmp_path / "run", *QUICK, "--committee", "2")
    assert len({m["fingerprint"] for m in result["members"]}) == 2
    for member in result["members"]:
        assert aldriver.load(member["path"]).fingerprint == member["fingerprint"]
    assert "member-1" in capsys.readouterr().out


def test_a_study_keeps_the_best_learning_rate(frames, tmp_path, capsys):
    rates = "1e-5,3e-3"
    result = trained(tmp_path, START, frames, "--out", tmp_path / "run", "--epochs", "3", "--learning-rates", rates)
    assert [row["learning_rate"] for row in result["rows"]] == [1e-5, 3e-3]
    assert result["learning_rate"] == 3e-3
    assert aldriver.load(tmp_path / "run" / "potential").fingerprint == result["fingerprint"]
    assert "learning rate" in capsys.readouterr().out


def test_zero_shot_only_measures(frames, tmp_path):
    result = trained(tmp_path, START, frames, "--out", tmp_path / "run", "--strategy", "zero-shot")
    assert result["before"] == result["after"] and result["path"] is None


def test_replay_of_a_file_acts(frames, tmp_path):
    """Replayed frames are in the loss, and a weight of 0 takes them out again."""
    general = tmp_path / "general.extxyz"
    write_frames(general, read_frames(frames)[:3])
    fingerprints = set()
    for weight in ("0", "1", "10"):
        folder = tmp_path / weight
        args = (START, frames, "--out", folder, *QUICK, "--replay", general, "--replay-weight", weight)
        fingerprints.add(trained(tmp_path, *args)["fingerprint"])
        last = json.loads((folder / "history.jsonl").read_text().splitlines()[-1])
        assert (last["replay_loss"] is None) == (weight == "0")
    assert len(fingerprints) == 3


def test_drift_is_measured_against_the_foundation_named(run, frames, tmp_path):
    """Going on from a refined potential: its drift from itself is small, from the foundation it is not."""
    refined = run[0] / "potential"
    drift = {}
    for name, more in (("itself", ()), ("foundation", ("--foundation", START))):
        args = (refined, frames, "--out", tmp_path / name, "--epochs", "1", "--learning-rate", "1e-6", *more)
        call("train", *args)
        lines = (tmp_path / name / "history.jsonl").read_text().splitlines()
        drift[name] = json.loads(lines[-1])["drift"]["drift_meV_atom"]
    assert drift["foundation"] > 10 * drift["itself"] > 0, drift


def test_mace_is_refined_too(frames, tmp_path):
    start = save_bundle(small_mace(("Fe",)), tmp_path / "start")
    args = ("--out", tmp_path / "run", "--epochs", "2", "--strategy", "f4", "--learning-rate", "3e-3")
    result = trained(tmp_path, start, frames, *args)
    assert result["family"] == "mace" and result["strategy"] == "f4"
    assert aldriver.load(tmp_path / "run" / "potential").fingerprint == result["fingerprint"]


# ---- settings ------------------------------------------------------------------------------------------------------


def test_options_come_before_the_file_and_the_file_before_the_defaults(tmp_path):
    file = tmp_path / "settings.yaml"
    (tmp_path / "general.extxyz").write_text("")
    file.write_text("epochs: 7\nlearning_rate: 5.0e-4\nreplay: {source: general.extxyz, weight: 3.0}\n")
    settings = train_settings(file, {"epochs": 9, "replay.weight": 2.0})
    assert (settings.epochs, settings.learning_rate, settings.batch_size) == (
        9,
        5e-4,
        train_settings(None, {}).batch_size,
    )
    assert settings.replay.source == tmp_path / "general.extxyz" and settings.replay.weight == 2.0
    assert train_settings(file, {"replay.source": "none"}).replay.source == "none"
    (tmp_path / "empty.yaml").write_text("")
    assert train_settings(tmp_path / "empty.yaml", {}) == train_settings(None, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epochs: 3\nlearnin_rate: 1\n", r"line 2: learnin_rate: unknown key; did you mean 'learning_rate'"),
        ("guard:\n  drift: 1\n", r"line 2: guard\.drift: unknown key; allowed here: max_drift_meV_atom"),
        ("epochs: 0\n", r"line 1: epochs: .*greater than or equal to 1"),
        ("strategy: best\n", r"line 1: strategy: .*'zero-shot'"),
        ("replay: {source: no.extxyz}\n", r"line 1: replay\.source: .*no\.extxyz does not exist"),
        ("fallbacks:\n- strategy: f4\n  replay: {source: no.extxyz}\n", r"line 3: fallbacks\.0\.replay\.source"),
        ("- 1\n", "a mapping of keys"),
    ],
)
def test_a_settings_file_with_a_mistake_names_the_line(text, says, tmp_path):
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        train_settings(tmp_path / "settings.yaml", {})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--learning-rate", "-1"], "--learning-rate: Input should be greater than 0"),
        (["--strategy", "best"], "--strategy: Input should be 'zero-shot'"),
        (["--replay", "no.extxyz"], "--replay no.extxyz: no such file"),
        (["--replay-weight", "-1"], "--replay-weight: Input should be greater than or equal to 0"),
        (["--dtype", "float16"], "--dtype: Input should be 'float32' or 'float64'"),
        (["--learning-rates", "1,x"], "give numbers with commas between"),
        (["--learning-rates", "1e-3", "--committee", "2"], "one at a time"),
        (["--valid", "{frames}"], "14 of the 14 validation frames are training frames too"),
        (["--settings", "no.yaml"], "no.yaml: no such file"),
        (["--device", "abacus"], "device 'abacus'"),
        (["--head", "x"], "has one head only"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(args, message, frames, tmp_path, capsys):
    given = [str(frames) if a == "{frames}" else a for a in args]
    assert call("train", START, frames, "--out", tmp_path / "run", *given) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_potentials_that_cannot_be_trained(frames, tmp_path, capsys):
    assert call("train", "eam:Fe_mm.eam.fs", frames, "--out", tmp_path / "run", *QUICK) == 2
    assert "cannot be trained" in capsys.readouterr().err
