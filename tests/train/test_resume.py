"""Killed at the worst moment and started again: the same final weights, whatever is in the loss."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aldriver.core.errors import InputError
from aldriver.core.frames import read_frames, write_frames
from aldriver.core.recipe_train import Train
from aldriver.potentials.network import NetworkPotential
from aldriver.testing.small_mace import small_mace
from aldriver.train import TrainResult, train

CHILD = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from aldriver.core.frames import read_frames
from aldriver.core.recipe_train import Train
from aldriver.train import train
from aldriver.train.loop import TrainingLoop
from aldriver.potentials.chgnet import CHGNetPotential
from aldriver.testing.small_mace import small_mace

frames, out, where = read_frames(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if where == "step":  # in the second step of the third epoch
    update, calls = TrainingLoop._update, []
    def count(self):
        calls.append(1)
        if len(calls) == 6:
            kill()
        return update(self)
    TrainingLoop._update = count
else:  # while the checkpoint of the third epoch is on its way to the disk
    fsync = os.fsync
    def cut(fd):
        if list(out.glob(".checkpoint.pt.*.tmp")) and len((out / "history.jsonl").read_text().splitlines()) == 3:
            kill()
        fsync(fd)
    os.fsync = cut
settings = Train.model_validate_json(sys.argv[4])
start = small_mace(("Fe", "Cr")) if sys.argv[5] == "mace" else CHGNetPotential.foundation("0.2.0")
train(start, frames[:4], frames[4:], settings, out, seed=7)
"""


EVERYTHING = {
    "replay": {"source": "self", "per_step": 1, "weight": 0.5, "elements": ["Cr"]},
    "ewc": 0.1,
    "schedule": "plateau",
    "patience": 10,
}
CASES = {
    # family, where it is killed, settings
    "chgnet": ("chgnet", "step", {"dtype": "float64", **EVERYTHING}),
    "chgnet-lora": ("chgnet", "checkpoint", {"strategy": "lora"}),
    "mace": ("mace", "step", {"dtype": "float64", **EVERYTHING}),
}


def start_of(family: str, chgnet020: NetworkPotential) -> NetworkPotential:
    return small_mace(("Fe", "Cr")) if family == "mace" else chgnet020


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_gives_the_same_bits(case, chgnet020, iron, settings, tmp_path):
    family, where, changes = CASES[case]
    write_frames(tmp_path / "frames.extxyz", iron(6))
    frames, s = read_frames(tmp_path / "frames.extxyz"), settings(epochs=4, **changes)
    start, out = start_of(family, chgnet020), tmp_path / "out"
    expected = train(start, frames[:4], frames[4:], s, tmp_path / "straight", seed=7)
    arguments = [str(tmp_path / "frames.extxyz"), str(out), where, s.model_dump_json(), family]
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert torch.load(out / "checkpoint.pt", weights_only=True)["state"]["epoch"] == 2
    if where == "checkpoint":
        assert list(out.glob(".checkpoint.pt.*.tmp"))
        assert len((out / "history.jsonl").read_text().splitlines()) == 3
    resumed = train(start, frames[:4], frames[4:], s, out, seed=7)
    assert [line["epoch"] for line in resumed.history] == [1, 2, 3, 4]
    assert len((out / "history.jsonl").read_text().splitlines()) == 4
    assert not list(out.glob(".checkpoint.pt.*.tmp"))
    saved = [torch.load(f / "checkpoint.pt", weights_only=True)["state"] for f in (out, tmp_path / "straight")]
    for key in ("best", "model"):
        mine, theirs = (state[key] for state in saved)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        if s.dtype == "float64":
            assert all(t.dtype == torch.float64 for t in theirs.values())
    assert saved[0]["schedule"] == saved[1]["schedule"]
    assert resumed.after == expected.after
    assert (resumed.accepted, resumed.reason) == (expected.accepted, expected.reason)
    assert resumed.potential.fingerprint == expected.potential.fingerprint
    told = ("train_loss", "valid", "lr", "drift", "replay_loss", "ewc_penalty")
    for a, b in zip(resumed.history, expected.history, strict=True):
        assert [a[key] for key in told] == [b[key] for key in told]


@pytest.fixture(scope="module")
def straight(chgnet020, iron, settings, tmp_path_factory) -> tuple[TrainResult, Path, Train]:
    """Four epochs without interruption, and the file of frames they used."""
    folder = tmp_path_factory.mktemp("straight")
    write_frames(folder / "frames.extxyz", iron(6))
    frames, s = read_frames(folder / "frames.extxyz"), settings(epochs=4)
    return train(chgnet020, frames[:4], frames[4:], s, folder / "out", seed=7), folder / "frames.extxyz", s


def test_a_finished_training_is_not_repeated(straight, chgnet020):
    expected, file, s = straight
    frames, seen = read_frames(file), []
    again = train(chgnet020, frames[:4], frames[4:], s, file.parent / "out", seed=7, on_epoch=seen.append)
    assert seen == []
    assert again.history == expected.history
    assert again.after == expected.after


@pytest.mark.parametrize("change", ["epochs", "seed", "frames"])
def test_a_changed_training_is_refused_not_resumed(straight, chgnet020, change):
    _, file, s = straight
    frames = read_frames(file)
    s = s.model_copy(update={"epochs": 5}) if change == "epochs" else s
    last = 3 if change == "frames" else 4
    with pytest.raises(InputError, match="belongs to a training with other"):
        train(chgnet020, frames[:last], frames[4:], s, file.parent / "out", seed=8 if change == "seed" else 7)


def test_another_memory_limit_is_no_change(straight, chgnet020):
    expected, file, s = straight
    frames = read_frames(file)
    s = s.model_copy(update={"memory_limit_GB": 8.0})
    assert train(chgnet020, frames[:4], frames[4:], s, file.parent / "out", seed=7).after == expected.after


def test_an_early_stop_is_remembered(chgnet020, iron, settings, tmp_path):
    """Trained at a rate that only makes it worse: stopped after `patience` epochs, and not started again."""
    frames, s = iron(3), settings(epochs=12, patience=2, learning_rate=0.02, schedule="plateau", ema_decay=0.0)
    seen: list[dict] = []
    result = train(chgnet020, frames[:2], frames[2:], s, tmp_path, seed=0, on_epoch=seen.append)
    assert 3 <= len(seen) < 12
    assert len(seen) == result.best_epoch + 2
    assert "no better validation loss in 2 epochs" in result.reason
    again = train(chgnet020, frames[:2], frames[2:], s, tmp_path, seed=0, on_epoch=seen.append)
    assert len(seen) == len(result.history)
    assert again.reason == result.reason
