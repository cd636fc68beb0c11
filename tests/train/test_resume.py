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
from aldriver.train import TrainResult, train

CHILD = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from aldriver import load
from aldriver.core import store
from aldriver.core.frames import read_frames
from aldriver.core.recipe_train import Train
from aldriver.train import train
from aldriver.train.loop import TrainingLoop

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
        if len((out / "history.jsonl").read_text().splitlines()) == 3 and list(out.glob(".checkpoint.pt.*.tmp")):
            kill()
        fsync(fd)
    os.fsync = cut
settings = Train.model_validate_json(sys.argv[4])
train(load("chgnet:0.2.0"), frames[:4], frames[4:], settings, out, seed=7)
"""


@pytest.fixture(scope="module")
def straight(chgnet020, iron, settings, tmp_path_factory) -> tuple[TrainResult, Path, Train]:
    """Four epochs without interruption, and the file of frames they used."""
    folder = tmp_path_factory.mktemp("straight")
    write_frames(folder / "frames.extxyz", iron(6))
    frames, s = read_frames(folder / "frames.extxyz"), settings(epochs=4)
    return train(chgnet020, frames[:4], frames[4:], s, folder / "out", seed=7), folder / "frames.extxyz", s


@pytest.mark.parametrize("where", ["step", "checkpoint"])
def test_killed_and_resumed_gives_the_same_bits(straight, chgnet020, tmp_path, where):
    expected, file, s = straight
    out = tmp_path / "out"
    arguments = [sys.executable, "-W", "ignore", "-c", CHILD, str(file), str(out), where, s.model_dump_json()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert torch.load(out / "checkpoint.pt", weights_only=True)["state"]["epoch"] == 2
    if where == "checkpoint":
        assert list(out.glob(".checkpoint.pt.*.tmp"))
        assert len((out / "history.jsonl").read_text().splitlines()) == 3
    frames = read_frames(file)
    resumed = train(chgnet020, frames[:4], frames[4:], s, out, seed=7)
    assert [line["epoch"] for line in resumed.history] == [1, 2, 3, 4]
    assert len((out / "history.jsonl").read_text().splitlines()) == 4
    assert not list(out.glob(".checkpoint.pt.*.tmp"))
    saved = [torch.load(f / "checkpoint.pt", weights_only=True)["state"] for f in (out, file.parent / "out")]
    for key in ("best", "model"):
        mine, theirs = (state[key] for state in saved)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert resumed.after == expected.after
    assert (resumed.accepted, resumed.reason) == (expected.accepted, expected.reason)
    assert resumed.potential.fingerprint == expected.potential.fingerprint
    for a, b in zip(resumed.history, expected.history, strict=True):
        assert (a["train_loss"], a["valid"], a["lr"]) == (b["train_loss"], b["valid"], b["lr"])


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
