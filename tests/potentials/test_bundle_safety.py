"""Saved potentials of all families: old formats load, tampering is refused, nothing outside the directory is read."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from bundle_helpers import FAMILIES, FORMAT_1, resum, rewrite_config, small

from aldriver import load
from aldriver.core.errors import InputError
from aldriver.potentials import families
from aldriver.potentials.base import Potential, Prediction
from aldriver.potentials.bundle import FORMAT, MIGRATIONS, describe_bundle, migrated, probe_frames, save_bundle


@pytest.fixture(scope="module")
def potentials():
    """Family: potential, made once."""
    made: dict[str, object] = {}

    def of(family):
        if family not in made:
            made[family] = small(family)
        return made[family]

    return of


@pytest.fixture(params=FAMILIES)
def saved(request, potentials, tmp_path):
    """(potential, its directory) of each family."""
    potential = potentials(request.param)
    return potential, save_bundle(potential, tmp_path / "potential")


# ---- formats -------------------------------------------------------------------------------------------------------


def test_a_directory_of_format_1_loads_and_is_saved_in_todays(tmp_path):
    """Written by the version that wrote format 1: it reproduces the probe of that version, and keeps its fingerprint."""
    old = describe_bundle(FORMAT_1)
    assert old["format"] == 1 and "model_args" in old and "arch" not in old
    potential = load(FORMAT_1)
    assert potential.fingerprint == old["fingerprint"]
    probe = json.loads((FORMAT_1 / "probe.json").read_text())
    for entry, p in zip(probe, potential.evaluate(probe_frames(potential.elements)), strict=True):
        np.testing.assert_allclose(p.forces, entry["forces"], atol=1e-4)
    new = describe_bundle(save_bundle(potential, tmp_path / "new"))
    assert new["format"] == FORMAT and new["arch"] == old["model_args"]
    assert new["fingerprint"] == old["fingerprint"] and new["weights"]["sha256"] == old["weights"]["sha256"]


@pytest.mark.parametrize("family", ["chgnet", "eam"])
def test_format_1_of_the_families_it_knew(potentials, tmp_path, family):
    """Today's directory rewritten in the layout of format 1 (``model_args`` in the place of ``arch``)."""
    potential = potentials(family)
    folder = save_bundle(potential, tmp_path / "old")
    rewrite_config(folder, lambda c: c.update(format=1, model_args=c.pop("arch")))
    loaded = load(folder)
    atoms = bulk("Fe", "bcc", a=2.9, cubic=True)
    atoms.rattle(0.1, seed=1)
    assert loaded.fingerprint == potential.fingerprint
    assert np.array_equal(loaded.evaluate([atoms])[0].forces, potential.evaluate([atoms])[0].forces)


def test_every_older_format_has_a_migration():
    assert sorted(MIGRATIONS) == list(range(1, FORMAT))


@pytest.mark.parametrize("found", [0, FORMAT + 1, "2", None, 1.5, True])
def test_formats_that_are_not_known_are_refused(tmp_path, found):
    config = {"format": found, "family": "chgnet"}
    with pytest.raises(InputError, match=r"format .* reads formats 1 to"):
        migrated(config, where=tmp_path / "config.json")


def test_a_newer_format_is_refused_before_anything_else(saved):
    _, folder = saved
    rewrite_config(folder, lambda c: c.update(format=FORMAT + 1))
    with pytest.raises(InputError, match=f"format {FORMAT + 1}, this version of aldriver reads formats 1 to {FORMAT}"):
        load(folder)


# ---- paths ---------------------------------------------------------------------------------------------------------

OUTSIDE = ["../weights", "../../etc/passwd", "/etc/passwd", "sub/weights", "..", ".", "", "a\\b", "a\0b", 3, None]


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
@pytest.mark.parametrize("part", ["weights", "probe"])
def test_names_that_leave_the_directory_are_refused(tmp_path, part, name):
    folder = tmp_path / "potential"
    shutil.copytree(FORMAT_1, folder)
    rewrite_config(folder, lambda c: c[part].update(file=name))
    with pytest.raises(InputError, match=rf"{part}\.file .*never points outside of its own directory"):
        load(folder)


@pytest.mark.parametrize("name", ["weights", "probe", "config"])
def test_links_are_refused_even_to_the_very_same_file(saved, tmp_path, name):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    file = "config.json" if name == "config" else config[name]["file"]
    (folder / file).rename(tmp_path / "elsewhere")
    (folder / file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link to .*elsewhere"):
        load(folder)


def test_an_entry_without_a_sum_is_refused(saved):
    _, folder = saved
    rewrite_config(folder, lambda c: c["weights"].pop("sha256"))
    with pytest.raises(InputError, match="'weights' names no file and SHA-256"):
        load(folder)


# ---- contents, for every family ------------------------------------------------------------------------------------


def test_round_trip(saved):
    potential, folder = saved
    loaded = load(folder)
    assert (loaded.name, loaded.family, loaded.elements) == (potential.name, potential.family, potential.elements)
    assert loaded.fingerprint == potential.fingerprint
    frames = probe_frames(potential.elements)
    for p, q in zip(loaded.evaluate(frames), potential.evaluate(frames), strict=True):
        assert p.energy == pytest.approx(q.energy, abs=1e-5)
        np.testing.assert_allclose(p.forces, q.forces, atol=1e-5)
        np.testing.assert_allclose(p.stress, q.stress, atol=1e-7)


def test_edited_weights_are_refused(saved):
    _, folder = saved
    path = folder / json.loads((folder / "config.json").read_text())["weights"]["file"]
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="SHA-256"):
        load(folder)
    resum(folder, "weights")  # who edits the sum as well is caught by the fingerprint
    with pytest.raises(InputError, match="mix of two potentials|corrupt"):
        load(folder)


def test_a_wrong_probe_is_refused(saved):
    _, folder = saved
    probe = json.loads((folder / "probe.json").read_text())
    probe[0]["energy"] += 0.01
    (folder / "probe.json").write_text(json.dumps(probe))
    with pytest.raises(InputError, match="SHA-256"):
        load(folder)
    resum(folder, "probe")
    with pytest.raises(InputError, match="its own probe: energy of cell 0"):
        load(folder)


def test_the_config_of_one_with_the_weights_of_another_is_refused(saved, tmp_path):
    potential, folder = saved
    if potential.family == "eam":
        other = save_bundle(load("eam:FeP_mm.eam.fs"), tmp_path / "other")
    else:
        import torch

        changed = potential.copy()
        with torch.no_grad():
            for parameter in changed.module.parameters():
                parameter.mul_(1.01)
        other = save_bundle(changed, tmp_path / "other")
    name = json.loads((folder / "config.json").read_text())["weights"]["file"]
    shutil.copy(other / name, folder / name)
    with pytest.raises(InputError, match="SHA-256"):
        load(folder)
    resum(folder, "weights")
    with pytest.raises(InputError, match="mix of two potentials"):
        load(folder)


def test_only_plain_files_are_written(saved):
    """JSON and safetensors (or the EAM file): the first bytes of neither a pickle nor a torch archive."""
    _, folder = saved
    for path in folder.iterdir():
        start = path.read_bytes()[:4]
        assert not start.startswith(b"\x80") and not start.startswith(b"PK")


# ---- potentials made of others -------------------------------------------------------------------------------------


class Sum(Potential):
    """The sum of two potentials, as saved in nested directories."""

    family = "sum"
    arch = {"weights": [1.0, 1.0]}

    def __init__(self, parts, name):
        self.parts, self.name = parts, name
        self.elements = frozenset.intersection(*(p.elements for p in parts.values()))
        self.fingerprint = "".join(p.fingerprint[:8] for p in parts.values())

    @classmethod
    def from_parts(cls, parts, arch, *, name):
        assert arch == cls.arch
        return cls(parts, name)

    def evaluate(self, frames, *, stress=True, features=False, batch_atoms=None):
        each = [p.evaluate(frames) for p in self.parts.values()]
        return [
            Prediction(energy=a.energy + b.energy, forces=a.forces + b.forces, stress=a.stress + b.stress)
            for a, b in zip(*each, strict=True)
        ]


@pytest.fixture
def nested(potentials, tmp_path, monkeypatch):
    monkeypatch.setitem(families.COMPOSITES, "sum", "here:Sum")
    monkeypatch.setattr("aldriver.potentials.bundle.composite_class", lambda family: Sum)
    both = Sum({"foundation": potentials("chgnet"), "correction": potentials("eam")}, "both")
    return both, save_bundle(both, tmp_path / "both")


def test_parts_are_directories_of_their_own(nested):
    both, folder = nested
    loaded = load(folder)
    assert loaded.fingerprint == both.fingerprint and list(loaded.parts) == ["foundation", "correction"]
    assert load(folder / "correction").fingerprint == both.parts["correction"].fingerprint
    frames = probe_frames(both.elements)
    np.testing.assert_allclose(loaded.evaluate(frames)[0].forces, both.evaluate(frames)[0].forces, atol=1e-5)


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp", "..", "a/b", "", None], ids=repr)
def test_parts_outside_of_the_directory_are_refused(nested, name):
    _, folder = nested
    rewrite_config(folder, lambda c: c["parts"]["correction"].update(folder=name))
    with pytest.raises(InputError, match=r"parts\.correction\.folder is .*never points outside"):
        load(folder)


def test_a_part_behind_a_link_or_exchanged_is_refused(nested, tmp_path):
    _, folder = nested
    (folder / "correction").rename(tmp_path / "elsewhere")
    (folder / "correction").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link to"):
        load(folder)
    (folder / "correction").unlink()
    shutil.copytree(FORMAT_1, folder / "correction")
    with pytest.raises(InputError, match="SHA-256 differs"):
        load(folder)
    rewrite_config(folder, lambda c: c["parts"]["correction"].pop("sha256"))
    with pytest.raises(InputError, match="names no folder and SHA-256"):
        load(folder)


def test_the_family_with_a_python_of_its_own(sevennet_python):
    """This file, where sevenn can be imported; the name of this test does not match, so it does not call itself."""
    command = [sevennet_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__)), "-k", "sevennet"]
    command += ["-W", "ignore::DeprecationWarning"]  # sevenn compiles with TorchScript
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "10 passed" in done.stdout
