"""Saved potentials: what is refused, and why."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from bundle_helpers import resum, rewrite_config

from aldriver import load
from aldriver.core.errors import InputError
from aldriver.core.store import publish, verify
from aldriver.potentials.bundle import describe_bundle, load_bundle, save_bundle


@pytest.fixture
def saved(chgnet020, tmp_path):
    return save_bundle(chgnet020, tmp_path / "potential", parent="0" * 16, extra={"generation": 2})


def test_round_trip_keeps_everything(saved, chgnet020, fe_frames):
    loaded = load(saved)
    assert (loaded.name, loaded.fingerprint) == (chgnet020.name, chgnet020.fingerprint)
    for p, q in zip(loaded.evaluate(fe_frames), chgnet020.evaluate(fe_frames), strict=True):
        assert p.energy == q.energy
        assert np.array_equal(p.forces, q.forces)
    config = describe_bundle(saved)
    assert config["parent"] == "0" * 16
    assert config["extra"] == {"generation": 2}
    assert {"torch", "chgnet", "aldriver"} <= set(config["versions"])


def test_nothing_is_unpickled(saved, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("pickle was used")

    monkeypatch.setattr("torch.load", refuse)
    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    load_bundle(saved)
    assert {p.name for p in saved.iterdir()} == {"config.json", "weights.safetensors", "probe.json"}


def test_foundation_weights_load_without_running_code(monkeypatch):
    original, used = torch.load, []

    def watch(*args, **kwargs):
        used.append(kwargs.get("weights_only"))
        return original(*args, **kwargs)

    monkeypatch.setattr("torch.load", watch)
    load("chgnet:0.2.0")
    assert used == [True]


def test_trained_weights_round_trip(chgnet020, fe_frames, tmp_path):
    changed = chgnet020.copy()
    with torch.no_grad():
        for p in changed.module.mlp.parameters():
            p.add_(0.003)
    changed = changed.with_module(changed.module, name="refined")
    loaded = load(save_bundle(changed, tmp_path / "refined"))
    assert loaded.fingerprint == changed.fingerprint != chgnet020.fingerprint
    assert loaded.evaluate(fe_frames)[2].energy == changed.evaluate(fe_frames)[2].energy


def test_saved_inside_a_published_directory(chgnet020, tmp_path):
    with publish(tmp_path / "final") as tmp:
        (tmp / "detector").mkdir()
        (tmp / "detector" / "config.json").write_text("{}")
        save_bundle(chgnet020, tmp)
    verify(tmp_path / "final")
    assert load(tmp_path / "final").fingerprint == chgnet020.fingerprint


def test_another_potential_is_not_overwritten(saved, chgnet020, eam_fe):
    save_bundle(chgnet020, saved)
    with pytest.raises(InputError, match="another potential"):
        save_bundle(eam_fe, saved)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "probe.json"])
def test_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load(saved)


@pytest.mark.parametrize("name", ["weights.safetensors", "probe.json"])
def test_edited_file(saved, name):
    data = bytearray((saved / name).read_bytes())
    data[len(data) // 2] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(InputError, match="SHA-256"):
        load(saved)


def test_edited_config(saved):
    text = (saved / "config.json").read_text()
    (saved / "config.json").write_text(text.replace("chgnet:0.2.0", "chgnet:0.3.0"))
    with pytest.raises(InputError, match="edited after it was saved"):
        load(saved)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"format": 1}'])
def test_damaged_config(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load(saved)


def test_other_format(saved):
    rewrite_config(saved, lambda c: c.update(format=99))
    with pytest.raises(InputError, match="format 99"):
        load(saved)


def test_unknown_family(saved):
    rewrite_config(saved, lambda c: c.update(family="oracle"))
    with pytest.raises(InputError, match="family 'oracle'"):
        load(saved)


@pytest.mark.parametrize("size", [0, 5, 1000])
def test_corrupt_weights(saved, size):
    path = saved / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    resum(saved, "weights")
    with pytest.raises(InputError, match=r"weights\.safetensors: the weights are corrupt"):
        load(saved)


def test_weights_of_another_architecture(saved, chgnet030, tmp_path):
    other = save_bundle(chgnet030, tmp_path / "other")
    (saved / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    resum(saved, "weights")
    with pytest.raises(InputError, match="another architecture"):
        load(saved)


def test_weights_of_another_potential(saved, chgnet020, tmp_path):
    changed = chgnet020.copy()
    with torch.no_grad():
        next(changed.module.mlp.parameters()).add_(0.01)
    other = save_bundle(changed, tmp_path / "other")
    (saved / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    resum(saved, "weights")
    with pytest.raises(InputError, match="mix of two potentials"):
        load(saved)


@pytest.mark.parametrize("key", ["energy", "forces", "stress"])
def test_probe_that_is_not_reproduced(saved, key):
    probe = json.loads((saved / "probe.json").read_text())
    if key == "energy":
        probe[1]["energy"] += 0.01
    else:
        flat = np.array(probe[1][key])
        flat.flat[3] += 0.001
        probe[1][key] = flat.tolist()
    (saved / "probe.json").write_text(json.dumps(probe))
    resum(saved, "probe")
    with pytest.raises(InputError, match=f"its own probe: {key} of cell 1"):
        load(saved)


def test_a_directory_that_is_no_potential(tmp_path):
    with pytest.raises(InputError, match="not a potential saved by aldriver"):
        load(tmp_path)
    with pytest.raises(InputError, match="no such potential. There is\n  chgnet:0.2.0"):
        load(tmp_path / "nothing")


def test_eam_keeps_its_file(eam_fe, tmp_path, fe_frames):
    folder = save_bundle(eam_fe, tmp_path / "eam")
    loaded = load(folder)
    assert loaded.name == "eam:Fe_mm.eam.fs"
    assert loaded.fingerprint == eam_fe.fingerprint
    assert (folder / "weights.eam.fs").read_bytes() == eam_fe.file.read_bytes()
    assert loaded.evaluate(fe_frames)[1].energy == eam_fe.evaluate(fe_frames)[1].energy
