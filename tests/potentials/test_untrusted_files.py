"""A malicious file never runs code: not by any way in, not after a library has asked torch to unpickle everything.

Each file here would leave a mark with the number of the process that opened it.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase.build import bulk
from bundle_helpers import FORMAT_1, resum, rewrite_config

import aldriver
from aldriver import load
from aldriver.cli.main import main
from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import with_labels, write_frames
from aldriver.potentials.bundle import load_bundle, save_bundle
from aldriver.potentials.convert import convert

PACKAGE = Path(aldriver.__file__).parent
UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
KINDS = ("model.model", "model.pth.tar", "model.pth", "nested.pth.tar", "nested.pth", "plain.model", "plain.pth")


class Evil:
    """Pickles to something that writes a file when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return exec, (f"import os\nwith open({str(self.mark)!r}, 'a') as f: f.write(str(os.getpid()) + '\\n')",)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "it-ran"


@pytest.fixture
def evil(tmp_path, mark):
    """Malicious files by name: torch archives, ones hidden inside of good ones, and plain pickles."""
    folder = tmp_path / "evil"
    folder.mkdir()
    good = torch.load(next(_chgnet_files()), map_location="cpu", weights_only=True)
    good["model"]["state_dict"]["mlp.layers.0.weight"] = Evil(mark)
    for name in KINDS:
        if name.startswith("plain"):
            (folder / name).write_bytes(pickle.dumps(Evil(mark)))
        elif name == "nested.pth.tar":
            torch.save(good, folder / name)
        elif name == "nested.pth":
            torch.save({"config": {"x": Evil(mark)}, "model_state_dict": {}}, folder / name)
        else:
            torch.save(Evil(mark), folder / name)
    return folder


def _chgnet_files():
    import chgnet

    return (Path(chgnet.__file__).parent / "pretrained").rglob("*0.3.0*.pth.tar")


@pytest.fixture
def frames(tmp_path):
    eam = load("eam:Fe_mm.eam.fs")
    found = []
    for seed in range(4):
        atoms = bulk("Fe", cubic=True)
        atoms.set_initial_magnetic_moments(None)
        atoms.rattle(0.05, seed=seed)
        p = eam.evaluate([atoms])[0]
        found.append(with_labels(atoms, energy=p.energy, forces=p.forces, stress=p.stress))
    write_frames(tmp_path / "frames.extxyz", found)
    return tmp_path / "frames.extxyz"


def call(*args) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0)


def test_the_files_are_malicious(evil, mark):
    """The check of the checks: opened carelessly, each of them leaves its mark."""
    for name in KINDS:
        mark.unlink(missing_ok=True)
        if name.startswith("plain"):
            pickle.loads((evil / name).read_bytes())
        else:
            torch.load(evil / name, weights_only=False)
        assert mark.read_text() == f"{os.getpid()}\n", name


@pytest.mark.parametrize("name", KINDS)
def test_loading_refuses_files(evil, mark, name):
    for ref in (evil / name, f"mace:{evil / name}", f"chgnet:{evil / name}", f"sevennet:{evil / name}"):
        with pytest.raises(InputError):
            load(ref)
    with pytest.raises(InputError):
        load_bundle(evil / name)
    assert not mark.exists()


@pytest.mark.parametrize("name", KINDS)
def test_converting_without_trust_runs_nothing(evil, mark, tmp_path, name):
    for ref in (evil / name, f"mace:{evil / name}"):
        with pytest.raises(AldriverError):
            convert(ref, tmp_path / "out")
        assert call("convert", ref, tmp_path / "out") in (1, 2)
    assert not mark.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.model", "plain.model"])
def test_with_trust_it_runs_in_another_process_only(evil, mark, tmp_path, name):
    with pytest.raises(InputError):  # it is no MACE model in the end
        convert(evil / name, tmp_path / "out", trust_pickle=True)
    assert mark.exists(), "the file was trusted, so it was opened"
    assert str(os.getpid()) not in mark.read_text().split()


@pytest.mark.parametrize("name", ["model.pth", "nested.pth", "plain.pth"])
def test_a_sevennet_file_where_sevennet_lives(evil, mark, tmp_path, sevennet_python, name):
    with pytest.raises(InputError):
        convert(evil / name, tmp_path / "out")
    assert not mark.exists()
    with pytest.raises(AldriverError):  # trusted: opened, and then it is no checkpoint
        convert(evil / name, tmp_path / "out", trust_pickle=True)
    assert mark.exists() and str(os.getpid()) not in mark.read_text().split()


def test_trust_in_a_chgnet_file_changes_nothing(evil, mark, tmp_path):
    """chgnet's files never need it."""
    with pytest.raises(InputError, match="without running code"):
        convert(evil / "nested.pth.tar", tmp_path / "out", trust_pickle=True)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.model", "model.pth.tar", "model.pth"])
def test_every_command_that_takes_a_potential(evil, mark, frames, tmp_path, name):
    file = evil / name
    for args in (
        ("evaluate", file, frames),
        ("benchmark", file, "--structure", "bcc-Fe"),
        ("export", file, tmp_path / "out"),
        ("train", file, frames, "--out", tmp_path / "run"),
    ):
        assert call(*args) in (1, 2)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.model", "plain.pth"])
def test_frames_that_are_pickles(evil, mark, tmp_path, name):
    for file in (evil / name, evil / f"{name}.traj", evil / f"{name}.xyz", evil / f"{name}.db", evil / f"{name}.json"):
        file.write_bytes((evil / name).read_bytes())
        assert call("evaluate", "eam:Fe_mm.eam.fs", file) == 2
    assert not mark.exists()


@pytest.mark.parametrize("part", ["weights", "probe"])
def test_a_saved_potential_with_a_pickle_in_it(evil, mark, tmp_path, part):
    """With all sums made right: nothing that is opened is ever unpickled."""
    for k, name in enumerate(("model.model", "plain.model")):
        folder = save_bundle(load(FORMAT_1), tmp_path / f"potential-{k}")
        config = json.loads((folder / "config.json").read_text())
        (folder / config[part]["file"]).write_bytes((evil / name).read_bytes())
        resum(folder, part)
        with pytest.raises((InputError, ValueError)):
            load(folder)
        rewrite_config(folder, lambda c: c.update(arch={"cls": "os.system", "args": "true"}))
        with pytest.raises((InputError, ValueError)):
            load(folder)
    assert not mark.exists()


def test_a_detector_and_a_checkpoint_with_a_pickle_in_them(evil, mark, tmp_path):
    from aldriver.detect import Detector
    from aldriver.train.checkpoint import CHECKPOINT, load_checkpoint

    for name in ("model.model", "plain.model"):
        (tmp_path / CHECKPOINT).write_bytes((evil / name).read_bytes())
        with pytest.raises(AldriverError):
            load_checkpoint(tmp_path, key="x")
        detector = tmp_path / f"detector-{name}"
        detector.mkdir()
        for file in ("models.npz", "train_scores.npz", "heldout_scores.npz"):
            (detector / file).write_bytes((evil / name).read_bytes())
        (detector / "config.json").write_text("{}")
        with pytest.raises(AldriverError):
            Detector.load(detector)
    assert not mark.exists()


IMPORTS = """
import sys
sys.path.insert(0, {tests!r})
import aldriver
from aldriver.potentials.mace import MACEPotential
from aldriver.testing.small_mace import small_mace
import aldriver.train.chgnet, aldriver.train.mace, aldriver.potentials.mace_convert, aldriver.potentials.mace_vendor
aldriver.load("chgnet:0.3.0")
small_mace()
{more}
import os, torch
assert {unsafe!r} not in os.environ, "a library's wish to unpickle everything still stands"
for name in {names!r}:
    try:
        torch.load(os.path.join({folder!r}, name))  # as any library of this process might
    except Exception:
        continue
    raise SystemExit(f"{{name}} was opened")
"""


@pytest.mark.parametrize("more", ["", "from aldriver.potentials.mace_library import mace_library\nwith mace_library():\n    import mace.calculators, mace.cli.run_train\n"])  # fmt: skip
def test_what_mace_asks_of_torch_is_taken_back(evil, mark, more):
    """``import mace`` sets an environment variable that makes every ``torch.load`` of the process unpickle."""
    names = [n for n in KINDS if not n.startswith("plain")]
    code = IMPORTS.format(tests=str(Path(__file__).parent), more=more, unsafe=UNSAFE, names=names, folder=str(evil))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


def test_the_variable_of_a_parent_process_changes_nothing(evil, mark, frames, tmp_path):
    """Set outside (by a shell, or a program that had imported mace), it does not reach what a command opens."""
    program = [sys.executable, "-c", "from aldriver.cli.main import main; main()"]
    for args in (["convert", evil / "nested.pth.tar", tmp_path / "out"], ["evaluate", evil / "model.model", frames]):
        command = program + [str(a) for a in args]
        done = subprocess.run(command, env=dict(os.environ) | {UNSAFE: "1"}, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
    assert not mark.exists()


# ---- the source itself ---------------------------------------------------------------------------------------------

PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MAY_NAME_PICKLE = {"potentials/sevennet_vendor.py"}
"""Names the error torch raises."""
OPENS_TRUSTED_FILES = {"potentials/mace_convert.py": 1, "potentials/sevennet_vendor.py": 1}
"""Calls that may unpickle, reached only through ``--trust-pickle`` and in a process of their own."""
OPENS_OWN_FILES = {"export/make_mace.py": 3, "export/make_sevennet.py": 1}
"""Calls of an export that try files it wrote itself a moment before, in processes of their own."""


def sources():
    return sorted((p.relative_to(PACKAGE).as_posix(), ast.parse(p.read_text())) for p in PACKAGE.rglob("*.py"))


def test_nothing_in_the_package_imports_a_pickler():
    for name, tree in sources():
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            found = {m.split(".")[0] for m in modules} & PICKLERS
            assert not found or name in MAY_NAME_PICKLE, f"{name}, line {node.lineno}: imports {found}"


def test_whatever_torch_or_numpy_open_is_plain_data():
    unsafe: dict[str, int] = {}
    for name, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            where = f"{name}, line {node.lineno}: {called}"
            if called.endswith("torch.load") and given.get("weights_only") != "True":
                assert "weights_only" in given, f"{where} does not say weights_only"
                unsafe[name] = unsafe.get(name, 0) + 1
            assert not called.startswith("pickle."), where
            assert given.get("allow_pickle", "False") == "False", where
            assert called != "CHGNet.from_file", where
            assert called != "torch.jit.load" or name in OPENS_OWN_FILES, where
    assert unsafe == OPENS_TRUSTED_FILES | OPENS_OWN_FILES
