"""Training in another Python: the same result as here, epochs reported, and an end that is shared."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from aldriver import load
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import write_frames
from aldriver.potentials.bundle import save_bundle
from aldriver.potentials.remote import RemotePotential
from aldriver.testing.small_mace import small_mace
from aldriver.train import train
from aldriver.train.base import make_adapter
from aldriver.train.loss import make_example
from aldriver.train.metrics import measure
from aldriver.train.standalone import finished_epochs

OWNER = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from aldriver.core.frames import read_frames
from aldriver.core.recipe_train import Train
from aldriver.potentials.remote import RemotePotential
from aldriver.train import train

folder = Path(sys.argv[1])
start = RemotePotential("chgnet:0.2.0", family="sevennet")
frames = [read_frames(folder / f"{side}.extxyz", groups=False) for side in ("train", "valid")]
settings = Train.model_validate(json.loads((folder / "settings.json").read_text()))
result = train(start, *frames, settings, folder / "out", seed=3, on_epoch=lambda line: print(line["epoch"], flush=True))
print(result.potential.fingerprint, flush=True)
"""


@pytest.fixture
def chgnet_elsewhere(tmp_path, monkeypatch):
    """CHGNet in a worker that runs this very Python: what is remote needs no other environment to be tested."""
    path = tmp_path / "aldriver.toml"
    path.write_text(f'[backends.sevennet]\npython = "{sys.executable}"\n')
    monkeypatch.setenv("ALDRIVER_CONFIG", str(path))
    potential = RemotePotential("chgnet:0.2.0", family="sevennet")
    yield potential
    potential.close()


@pytest.fixture
def files(tmp_path, iron, settings):
    """A folder with what OWNER reads."""
    folder = tmp_path / "files"
    folder.mkdir()
    write_frames(folder / "train.extxyz", iron(4))
    write_frames(folder / "valid.extxyz", iron(2, seed=9))
    (folder / "settings.json").write_text(json.dumps(settings(epochs=3).model_dump(mode="json")))
    return folder


def test_the_same_as_here(chgnet_elsewhere, chgnet020, iron, settings, tmp_path):
    known = unseen = iron(4)
    chosen = settings(epochs=4, dtype="float64")  # frames travel as text: single precision would make more of it
    lines = []
    there = train(chgnet_elsewhere, known, unseen, chosen, tmp_path / "a", seed=3, on_epoch=lines.append, name="new")
    here = train(chgnet020, known, unseen, chosen, tmp_path / "b", seed=3, name="new")
    assert there.accepted and here.accepted and there.potential.name == here.potential.name == "new"
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4] and lines == there.history
    assert there.e0_shift == pytest.approx(here.e0_shift)
    for key in ("loss", "forces_rmse_meV_A", "stress_rmse_GPa"):
        assert there.before[key] == pytest.approx(here.before[key], rel=1e-4)
        assert there.after[key] == pytest.approx(here.after[key], rel=1e-4)
    assert (there.trainable, there.best_epoch, there.strategy) == (here.trainable, here.best_epoch, here.strategy)
    for a, b in zip(there.potential.evaluate(unseen), here.potential.evaluate(unseen), strict=True):
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-3)


def test_a_refused_training_gives_back_what_came_in(chgnet_elsewhere, iron, settings, tmp_path):
    result = train(chgnet_elsewhere, iron(2), iron(2, seed=9), settings(strategy="zero-shot"), tmp_path / "out", seed=1)
    assert not result.accepted and result.potential is chgnet_elsewhere and result.reason.startswith("zero-shot")


def test_errors_come_back_as_what_they_are(chgnet_elsewhere, iron, settings, tmp_path):
    with pytest.raises(InputError, match="f4"):
        train(chgnet_elsewhere, iron(2), iron(2, seed=9), settings(strategy="f4"), tmp_path / "out", seed=1)


def test_a_head_of_mace_elsewhere(tmp_path, monkeypatch, iron, settings):
    """Evaluated and trained in another Python as it is here; each epoch is on disk once."""
    pytest.importorskip("mace")
    config = tmp_path / "aldriver.toml"
    config.write_text(f'[backends.mace]\npython = "{sys.executable}"\n')
    monkeypatch.setenv("ALDRIVER_CONFIG", str(config))
    two = small_mace(
        ("Fe",), heads=("pt_head", "Default"), head="Default", atomic_energies={"Fe": -4.0}, dtype="float64"
    )
    save_bundle(two, tmp_path / "two")
    monkeypatch.setattr("aldriver.potentials.bundle.is_here", lambda family: family != "mace")
    there, here = load(tmp_path / "two", head="pt_head"), two.with_head("pt_head")
    assert there.remote and there.fingerprint == here.fingerprint != two.fingerprint
    known, unseen = iron(2), iron(2, seed=9)
    for a, b in zip(there.evaluate(unseen, features=True), here.evaluate(unseen, features=True), strict=True):
        assert a.energy == pytest.approx(b.energy, abs=1e-9)
        np.testing.assert_allclose(a.features, b.features, atol=1e-9)
    np.testing.assert_allclose(there.last_layer_features(unseen)[0], here.last_layer_features(unseen)[0], atol=1e-9)
    adapter, s = make_adapter(here), settings(epochs=1, dtype="float64", e0_shift="never")
    result = train(there, known, unseen, s, tmp_path / "out", seed=1)
    examples = [make_example(adapter, atoms, None) for atoms in unseen]
    assert result.before["loss"] == pytest.approx(measure(adapter, examples, s)["loss"], rel=1e-6)
    assert result.trained.remote and result.trained.name == "mace:small refined"
    assert finished_epochs(tmp_path / "out") == len(result.history) == 1
    there.close()


def finished(folder: Path) -> str:
    """Run OWNER to its end; its last word."""
    done = subprocess.run([sys.executable, "-c", OWNER, folder], text=True, capture_output=True, check=True)
    return done.stdout.split()[-1]


def interrupt(files: Path, how: signal.Signals) -> None:
    """Run OWNER until its first epoch is over, and end it; its worker must follow."""
    command = [sys.executable, "-c", OWNER, files]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert owner.stdout.readline().strip() == "1"
    (worker,) = psutil.Process(owner.pid).children()
    owner.send_signal(how)
    owner.communicate()
    deadline = time.monotonic() + 10
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker outlived its owner"
        time.sleep(0.05)


def test_killed_at_any_time_it_goes_on_exactly(chgnet_elsewhere, files):
    interrupt(files, signal.SIGKILL)
    interrupted = finished(files)
    epochs = [json.loads(line)["epoch"] for line in (files / "out" / "history.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3]
    (files / "out").rename(files / "first")
    assert finished(files) == interrupted


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_ends_there_too(how, chgnet_elsewhere, files):
    interrupt(files, how)
    assert (files / "out" / "checkpoint.pt").is_file()


def test_a_killed_worker_is_an_error(chgnet_elsewhere, iron, settings, tmp_path):
    def kill(line):
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # killed by the line before
                if "aldriver.train.remote_worker" in child.cmdline():
                    child.kill()

    with pytest.raises(AldriverError, match=r"ended while training \(exit status -9\)"):
        train(chgnet_elsewhere, iron(2), iron(2, seed=9), settings(epochs=50), tmp_path / "out", seed=1, on_epoch=kill)


def test_sevennet_from_here(sevennet_python, iron, settings, tmp_path):
    start = load("sevennet:7net-0")
    known, unseen = iron(2), iron(2, seed=9)
    result = train(start, known, unseen, settings(epochs=1, strategy="f6"), tmp_path / "out", seed=1, foundation=start)
    assert result.trainable == 8192 + 64 and len(result.history) == 1
    assert result.accepted and result.after["loss"] < result.before["loss"]
    assert result.potential.remote and result.potential.name == "sevennet:7net-0 refined"
    error = [
        sum(np.square(p.forces - a.get_forces()).sum() for p, a in zip(q.evaluate(unseen), unseen, strict=True))
        for q in (start, result.potential)
    ]
    assert error[1] != error[0]
