"""A user's ``.model``: never opened without trust, and with it only in another process; vendor files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from aldriver import load
from aldriver.core.errors import InputError
from aldriver.potentials import mace_convert
from aldriver.potentials.bundle import save_bundle
from aldriver.potentials.mace import largest_differences
from aldriver.potentials.mace_convert import convert_model
from aldriver.potentials.mace_library import UNSAFE
from aldriver.potentials.mace_vendor import save_vendor
from aldriver.testing.contracts import check_potential
from aldriver.testing.small_mace import small_mace, write_pickled

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mace") is None, reason="mace is not installed here")


@pytest.fixture(scope="module")
def potential():
    return small_mace(("Fe", "Cu"), atomic_energies={"Fe": -8.25, "Cu": -3.75})


@pytest.fixture(scope="module")
def model(potential, tmp_path_factory):
    return write_pickled(tmp_path_factory.mktemp("models") / "iron.model", potential)


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory):
    heads = small_mace(("Fe",), heads=("pt_head", "Default"), head="Default", seed=3)
    return write_pickled(tmp_path_factory.mktemp("models") / "two.model", heads), heads


class Evil:
    """A pickle that leaves the number of the process that opened it."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return exec, (f"import os\nwith open({self.marker!r}, 'a') as f: f.write(f'{{os.getpid()}} ')",)


def evil_file(path, marker, how):
    if how == "torch":
        torch.save(Evil(marker), path)
    elif how == "torch, in a dictionary":
        torch.save({"model": Evil(marker), "state_dict": {"a": torch.zeros(2)}}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(marker)))
    return path


EVIL = ("torch", "torch, in a dictionary", "plain pickle")


@pytest.mark.parametrize("suffix", [".model", ".pth", ".pt"])
@pytest.mark.parametrize("how", EVIL)
def test_without_trust_nothing_of_a_file_runs(how, suffix, tmp_path, monkeypatch):
    marker = tmp_path / "was-here"
    path = evil_file(tmp_path / f"evil{suffix}", marker, how)
    monkeypatch.setenv(UNSAFE, "1")  # as a library leaves it
    with pytest.raises(InputError, match=r"--trust-pickle"):
        convert_model(path, trust_pickle=False)
    for ref in (path, f"mace:{path}"):
        with pytest.raises(InputError, match="aldriver convert"):
            load(ref)
    assert not marker.exists()


def test_the_process_that_opens_pickles_wants_the_word_too(tmp_path):
    marker = tmp_path / "was-here"
    path = evil_file(tmp_path / "evil.model", marker, "torch")
    command = [sys.executable, "-m", "aldriver.potentials.mace_convert", str(path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--trust-pickle" in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize("how", ["torch", "plain pickle"])
def test_with_trust_it_runs_once_and_elsewhere(how, tmp_path):
    marker = tmp_path / "was-here"
    path = evil_file(tmp_path / "evil.model", marker, how)
    with pytest.raises(InputError, match=r"evil\.model"):
        convert_model(path, trust_pickle=True)
    pids = marker.read_text().split()
    assert len(pids) == 1 and int(pids[0]) != os.getpid()


def test_conversion_keeps_network_and_numbers(potential, model, fe_frames, tmp_path):
    converted = convert_model(model, trust_pickle=True)
    assert converted.fingerprint == potential.fingerprint
    assert converted.precision == "float32"
    assert set(largest_differences(converted, potential, fe_frames).values()) == {0.0}
    assert converted.origin["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert 0 < converted.origin["single_precision"]["forces_meV_A"] < 1
    again = load(save_bundle(converted, tmp_path / "saved", extra={"origin": converted.origin}))
    check_potential(again, fe_frames[1:2], noise=1e-6, unknown="Cm", finite_differences=False)
    assert UNSAFE not in os.environ


@pytest.fixture(scope="module")
def opened(tmp_path_factory, two_heads):
    """What the process that opens a pickle has written: of a model with two heads."""
    folder = tmp_path_factory.mktemp("opened")
    mace_convert._unpickle_elsewhere(two_heads[0], folder)
    return folder


def test_conversion_in_double_precision(opened, two_heads, fe_frames):
    converted = mace_convert._from_files(opened, two_heads[0], "Default", "float64")
    check_potential(converted, fe_frames[1:2], unknown="Cm")


def test_a_head_must_be_chosen(opened, two_heads, fe_frames):
    path, original = two_heads
    with pytest.raises(InputError, match=r"two\.model has several heads: choose one of pt_head, Default"):
        mace_convert._from_files(opened, path, None, "float32")
    converted = mace_convert._from_files(opened, path, "pt_head", "float32")
    assert set(largest_differences(converted, original.with_head("pt_head"), fe_frames[:1]).values()) == {0.0}


def test_a_copy_that_gives_other_numbers_is_refused(opened, two_heads, tmp_path):
    shutil.copytree(opened, tmp_path, dirs_exist_ok=True)
    probe = json.loads((tmp_path / "probe.json").read_text())
    probe[1]["heads"]["pt_head"]["energy"] += 0.01  # eV, of seven atoms; of the head that is not asked for
    (tmp_path / "probe.json").write_text(json.dumps(probe))
    with pytest.raises(InputError, match="does not give mace's numbers"):
        mace_convert._from_files(tmp_path, two_heads[0], "Default", "float32")


def test_single_precision_that_costs_too_much_is_refused(opened, two_heads, monkeypatch):
    monkeypatch.setattr(mace_convert, "SINGLE", {"energy_meV_atom": 0.0, "forces_meV_A": 0.0, "stress_GPa": 0.0})
    with pytest.raises(InputError, match="single precision changes this model's numbers by .* dtype float64"):
        mace_convert._from_files(opened, two_heads[0], "Default", "float32")
    assert mace_convert._from_files(opened, two_heads[0], "Default", "float64").precision == "float64"


def test_other_files_of_mace_are_explained(potential, tmp_path):
    checkpoint = tmp_path / "iron_epoch-3.pt"
    torch.save({"model": potential.module.state_dict(), "optimizer": {}, "lr_scheduler": {}}, checkpoint)
    with pytest.raises(InputError, match="checkpoint of a training: weights without the network"):
        convert_model(checkpoint, trust_pickle=True)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "linear.model")
    with pytest.raises(InputError, match="class Linear cannot be used, only ScaleShiftMACE"):
        convert_model(tmp_path / "linear.model", trust_pickle=True)
    (tmp_path / "text.model").write_text("not a model")
    with pytest.raises(InputError, match=r"text\.model: could not be read as a MACE model \("):
        convert_model(tmp_path / "text.model", trust_pickle=True)
    with pytest.raises(InputError, match="is a directory"):
        convert_model(tmp_path, trust_pickle=True)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_models_are_explained(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "iron_compiled.model")
    with pytest.raises(InputError, match="compiled TorchScript"):
        convert_model(tmp_path / "iron_compiled.model", trust_pickle=True)


def test_foundation_names_are_never_downloaded(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match="mace has not downloaded this model"):
        convert_model("small", trust_pickle=True)
    with pytest.raises(InputError, match="no such file, and it is not the name of a MACE foundation model"):
        convert_model("tiny", trust_pickle=True)
    (tmp_path / "mace").mkdir()
    (tmp_path / "mace" / "20231210mace128L0_energy_epoch249model").write_bytes(model.read_bytes())
    with pytest.raises(InputError, match="--trust-pickle"):
        convert_model("small", trust_pickle=False)
    assert convert_model("small", trust_pickle=True).elements == {"Fe", "Cu"}


SCRIPT = """
import json, sys
from ase.io import read
from mace.calculators import MACECalculator
frames, *jobs = sys.argv[1:]
out = []
for path, head, dtype in zip(jobs[::3], jobs[1::3], jobs[2::3]):
    calculator = MACECalculator(model_paths=path, device="cpu", default_dtype=dtype, head=head)
    for atoms in read(frames, ":"):
        atoms.calc = calculator
        out.append([atoms.get_potential_energy(), atoms.get_forces().tolist(), atoms.get_stress().tolist()])
print(json.dumps(out, default=float))
"""


def test_vendor_files_give_the_same_in_maces_calculator(two_heads, fe_frames, tmp_path):
    from ase.io import read, write

    write(tmp_path / "frames.traj", fe_frames)
    frames, jobs, expected, tolerances = read(tmp_path / "frames.traj", ":"), [], [], []
    for dtype, tolerance in (("float32", 3e-5), ("float64", 1e-10)):
        original = two_heads[1].astype(dtype)
        path = save_vendor(original, tmp_path / f"{dtype}.model")
        for head in original.heads:
            jobs += [str(path), head, dtype]
            expected += original.with_head(head).evaluate(frames)
            tolerances += [tolerance] * len(frames)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "frames.traj"), *jobs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    for (energy, forces, stress), p, tolerance in zip(results, expected, tolerances, strict=True):
        assert abs(energy - p.energy) < tolerance
        np.testing.assert_allclose(forces, p.forces, atol=tolerance)
        np.testing.assert_allclose(stress, p.stress, atol=tolerance)


def test_only_mace_is_written_as_mace(eam_fe, potential, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="not a MACE potential"):
        save_vendor(eam_fe, tmp_path / "x.model")
    monkeypatch.setattr("aldriver.potentials.mace_library.E3NN", "0.3")
    with pytest.raises(InputError, match=r"read and written with e3nn 0\.3, as mace-torch asks for; here is e3nn 0\."):
        save_vendor(potential, tmp_path / "x.model")


def test_edited_weights_are_refused(potential, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_bundle(potential, tmp_path / "saved")
    weights = load_file(folder / "weights.safetensors")
    weights["readouts.0.linear.weight"][0] += 1e-3
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(InputError, match="is not the file that was saved"):
        load(folder)
