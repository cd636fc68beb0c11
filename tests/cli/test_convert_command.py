"""``aldriver convert``: there and back gives the same numbers; what does not fit is refused in plain words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk

import aldriver
from aldriver.cli.main import main
from aldriver.core.store import verify
from aldriver.potentials.bundle import describe_bundle, save_bundle
from aldriver.potentials.vendor import save_vendor
from aldriver.testing.small_mace import small_mace

FORMAT_1 = Path(__file__).resolve().parents[1] / "potentials" / "data" / "format-1"


def call(*args) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0)


def converted(tmp_path, *args):
    out = tmp_path / "result.json"
    assert call("convert", *args, "--json", out) == 0
    return json.loads(out.read_text())


def forces(ref):
    return forces_of(aldriver.load(ref))


def forces_of(potential):
    atoms = bulk("Fe", "bcc", a=2.9, cubic=True)
    atoms.rattle(0.1, seed=1)
    return potential.evaluate([atoms])[0].forces


def test_chgnet_to_its_own_file_and_back(tmp_path, capsys):
    file = tmp_path / "small.pth.tar"
    there = converted(tmp_path, FORMAT_1, file)
    assert (there["to"], there["family"]) == ("vendor", "chgnet")
    assert f'CHGNet.from_file("{file}")' in there["use"] and there["use"] in capsys.readouterr().out
    back = converted(tmp_path, file, tmp_path / "back")
    assert (back["to"], back["fingerprint"]) == ("aldriver", there["fingerprint"])
    np.testing.assert_array_equal(forces(tmp_path / "back"), forces(FORMAT_1))
    verify(tmp_path / "back")
    assert describe_bundle(tmp_path / "back")["extra"]["origin"]["source"] == str(file)


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0", "r2scan"])
def test_the_files_in_chgnets_package(version, tmp_path):
    import chgnet

    file = next((Path(chgnet.__file__).parent / "pretrained" / version).glob("*.pth.tar"))
    converted(tmp_path, file, tmp_path / "out")
    np.testing.assert_array_equal(forces(tmp_path / "out"), forces(f"chgnet:{version}"))


def test_a_directory_of_an_older_format_becomes_one_of_todays(tmp_path):
    old = tmp_path / "old"
    shutil.copytree(FORMAT_1, old)
    (old / "detector").mkdir()
    (old / "detector" / "config.json").write_text("{}")
    (old / "card.json").write_text('{"generation": 2}')
    converted(tmp_path, old, tmp_path / "new")
    before, after = describe_bundle(old), describe_bundle(tmp_path / "new")
    assert (before["format"], after["format"]) == (1, 2)
    assert {k: after[k] for k in ("fingerprint", "parent", "extra")} == {
        k: before[k] for k in ("fingerprint", "parent", "extra")
    }
    for name in ("detector/config.json", "card.json"):
        assert (tmp_path / "new" / name).read_text() == (old / name).read_text()


def test_a_mace_model_needs_trust_and_then_gives_maces_numbers(tmp_path, capsys):
    potential = small_mace(("Fe",))
    file = save_vendor(potential, tmp_path / "fe.model")
    assert call("convert", file, tmp_path / "out") == 2
    assert "--trust-pickle" in capsys.readouterr().err and not (tmp_path / "out").exists()
    result = converted(tmp_path, file, tmp_path / "out", "--trust-pickle")
    assert (result["family"], result["elements"]) == ("mace", ["Fe"])
    np.testing.assert_allclose(forces(tmp_path / "out"), forces_of(potential), atol=1e-5)
    converted(tmp_path, tmp_path / "out", tmp_path / "again.model")
    assert (tmp_path / "again.model").stat().st_size > 1000


def test_the_head_of_a_mace_model(tmp_path, capsys):
    file = save_vendor(small_mace(("Fe",), heads=("pt_head", "Default"), head="Default"), tmp_path / "two.model")
    assert call("convert", file, tmp_path / "out", "--trust-pickle") == 2
    assert "pt_head" in capsys.readouterr().err
    assert call("convert", file, tmp_path / "out", "--trust-pickle", "--head", "other") == 2
    assert "choose one of pt_head, Default" in " ".join(capsys.readouterr().err.split())
    converted(tmp_path, file, tmp_path / "out", "--trust-pickle", "--head", "Default")
    assert aldriver.load(tmp_path / "out").head == "Default"
    assert aldriver.load(tmp_path / "out", head="pt_head").head == "pt_head"
    assert aldriver.load(f"mace:{tmp_path / 'out'}").head == "Default"


def test_sevennet_to_its_own_file_and_back(tmp_path, sevennet_python):
    there = converted(tmp_path, "sevennet:7net-0", tmp_path / "seven.pth")
    assert there["family"] == "sevennet" and "SevenNetCalculator" in there["use"]
    converted(tmp_path, tmp_path / "seven.pth", tmp_path / "back")
    np.testing.assert_allclose(forces(tmp_path / "back"), forces("sevennet:7net-0"), atol=1e-5)


def test_precision(tmp_path):
    converted(tmp_path, "chgnet:0.3.0", tmp_path / "double", "--dtype", "float64")
    assert aldriver.load(tmp_path / "double").precision == "float64"
    assert aldriver.load(tmp_path / "double", dtype="float32").precision == "float32"
    assert aldriver.load("chgnet:0.3.0").precision == "float32"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing", "{out}"], "no such potential"),
        (["chgnet:0.3.0", "{here}"], "exists already"),
        (["chgnet:0.3.0", "{here}/no/out"], "does not exist"),
        (["chgnet:0.3.0", "{here}/x.model"], "files of chgnet end in .pth.tar"),
        (["chgnet:0.3.0", "{here}/x", "--to", "vendor"], "end in .pth.tar"),
        (["eam:Fe_mm.eam.fs", "{here}/x.pth.tar"], "no file format of another program"),
        (["{here}/model.bin", "{out}"], "what kind of model this is cannot be told from its name"),
        (["{here}/broken.pth.tar", "{out}"], "is not a CHGNet file"),
        (["{here}/chgnet.pth.tar", "{out}", "--head", "x"], "only MACE models have heads"),
        (["chgnet:0.3.0", "{out}", "--head", "x"], "has one head only"),
        (["mace:no-such-model", "{out}", "--trust-pickle"], "not the name of a MACE foundation model"),
        (["mace:medium", "{out}", "--trust-pickle"], "downloads nothing"),
    ],
)
def test_what_is_refused(args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("model.bin", "broken.pth.tar"):
        (tmp_path / name).write_bytes(b"nothing")
    torch.save({"model": 1}, tmp_path / "chgnet.pth.tar")
    given = [a.replace("{here}", str(tmp_path)).replace("{out}", str(tmp_path / "out")) for a in args]
    assert call("convert", *given) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_damaged_is_not_converted(tmp_path, capsys):
    folder = save_bundle(aldriver.load(FORMAT_1), tmp_path / "damaged")
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-9] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    assert call("convert", folder, tmp_path / "x.pth.tar") == 2
    assert "SHA-256" in capsys.readouterr().err and not (tmp_path / "x.pth.tar").exists()
