"""Potentials in another Python: the same contract, and a worker whose life depends on its owner's."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.build import bulk

from aldriver import load
from aldriver.core.errors import AldriverError, InputError
from aldriver.potentials import other_python
from aldriver.potentials.bundle import save_bundle
from aldriver.potentials.remote import RemotePotential
from aldriver.testing.contracts import check_potential

EAM = "eam:Fe_mm.eam.fs"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """This very Python configured as the other one: what is remote needs no other environment to be tested."""
    path = tmp_path / "aldriver.toml"
    path.write_text(f'[backends.sevennet]\npython = "{sys.executable}"\n')
    monkeypatch.setenv("ALDRIVER_CONFIG", str(path))
    return path


@pytest.fixture
def remote_eam(here):
    potential = RemotePotential(EAM, family="sevennet")
    yield potential
    potential.close()


def worker_of(potential: RemotePotential) -> int:
    process = potential._worker._process
    assert process is not None
    return process.pid


def gone(pid: int, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_contract(remote_eam, eam_fe, fe_frames):
    check_potential(remote_eam, fe_frames, unknown="Cu")
    assert remote_eam.name == eam_fe.name and remote_eam.fingerprint == eam_fe.fingerprint
    for a, b in zip(remote_eam.evaluate(fe_frames), eam_fe.evaluate(fe_frames), strict=True):
        assert a.energy == b.energy and np.array_equal(a.forces, b.forces) and np.array_equal(a.stress, b.stress)
    assert remote_eam.evaluate([]) == []


def test_everything_a_prediction_may_hold(here, chgnet020, fe_frames):
    remote = RemotePotential("chgnet:0.2.0", family="sevennet")
    molecule = Atoms("FeO", [[0, 0, 0], [0, 0, 1.7]])  # has no stress
    frames = [*fe_frames, molecule]
    for features in (True, False):
        theirs = remote.evaluate(frames, features=features)
        for a, b in zip(theirs, chgnet020.evaluate(frames, features=features), strict=True):
            assert a.energy == b.energy
            for key in ("forces", "stress", "magmoms", "features"):
                assert np.array_equal(getattr(a, key), getattr(b, key)), key
    for ours, direct in zip(remote.last_layer_features(frames), chgnet020.last_layer_features(frames), strict=True):
        assert np.array_equal(ours, direct)
    for ours, direct in zip(remote.features(frames), chgnet020.features(frames), strict=True):
        assert np.array_equal(ours, direct)


def test_nothing_is_started_before_it_is_needed(here):
    potential = RemotePotential(EAM, family="sevennet", known={"name": "iron"})
    assert potential.name == "iron" and potential._worker._process is None
    assert "Fe" in potential.elements and potential._worker._process is not None


def test_errors_come_back_as_what_they_are(remote_eam, here, fe_cell):
    wrong = RemotePotential("eam:nothing.eam.fs", family="sevennet")
    with pytest.raises(InputError, match=r"nothing\.eam\.fs"):
        wrong.evaluate([fe_cell])
    with pytest.raises(InputError, match="Cu"):
        remote_eam.evaluate([bulk("Cu")])
    pid = worker_of(remote_eam)
    with pytest.raises(AldriverError, match="KeyError"):
        remote_eam._worker.call("evaluate", {}, nonsense=1)
    assert remote_eam.evaluate([fe_cell]) and worker_of(remote_eam) == pid  # an error ends nothing


def test_the_precision_of_md_is_decided_in_the_worker(here, fe_cell):
    with_precision = RemotePotential("chgnet:0.2.0", family="sevennet")
    try:
        at = fe_cell.positions, np.asarray(fe_cell.cell)
        single, double = (with_precision.md_stepper(fe_cell, name)(*at) for name in ("float32", "float64"))
        exact = load("chgnet:0.2.0", dtype="float64").evaluate([fe_cell])[0]
        assert abs(double.energy - exact.energy) < 1e-9 < abs(single.energy - exact.energy) < 1e-3
        with pytest.raises(AldriverError, match="float16"):
            with_precision.md_stepper(fe_cell, "float16")
    finally:
        with_precision.close()


def test_a_killed_worker_is_named_and_replaced(remote_eam, fe_cell):
    stepper = remote_eam.stepper(fe_cell)
    before = stepper(fe_cell.positions, np.asarray(fe_cell.cell))
    os.kill(worker_of(remote_eam), signal.SIGKILL)
    with pytest.raises(AldriverError, match=r"worker process in .* ended while answering 'step' \(exit status -9\)"):
        stepper(fe_cell.positions, np.asarray(fe_cell.cell))
    after = stepper(fe_cell.positions, np.asarray(fe_cell.cell))
    assert after.energy == before.energy and np.array_equal(after.forces, before.forces)


def test_a_worker_that_cannot_start_says_why(here, tmp_path, monkeypatch, fe_cell):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such module >&2\nexit 3\n")
    python.chmod(0o755)
    here.write_text(f'[backends.sevennet]\npython = "{python}"\n')
    with pytest.raises(AldriverError, match=r"(?s)while starting; it needs aldriver.*status 3.*no such module"):
        RemotePotential(EAM, family="sevennet").evaluate([fe_cell])


def test_no_configured_python_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ALDRIVER_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setattr(other_python, "required_python", _nothing)
    with pytest.raises(InputError, match="make setup-sevennet"):
        load("sevennet:7net-0")


def _nothing(family):
    raise InputError("make setup-sevennet")


def test_a_python_without_the_package_does_not_start_itself_again(here, fe_cell):
    with pytest.raises(InputError, match="lacks the package sevenn"):
        load("sevennet:7net-0").evaluate([fe_cell])


def test_unknown_versions_are_refused_without_a_worker(here):
    with pytest.raises(InputError, match="no such version; there is 7net-0"):
        load("sevennet:7net-9")


def test_it_ends_with_its_owner_object(here, fe_cell):
    potential = RemotePotential(EAM, family="sevennet")
    potential.evaluate([fe_cell])
    pid = worker_of(potential)
    del potential
    gc.collect()
    assert gone(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_it_ends_with_its_owner_process(here, how):
    code = (
        "import time; from ase.build import bulk; from aldriver.potentials.remote import RemotePotential;"
        f"p = RemotePotential({EAM!r}, family='sevennet'); p.evaluate([bulk('Fe')]);"
        "print(p._worker._process.pid, flush=True); input()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    pid = int(owner.stdout.readline())
    assert psutil.pid_exists(pid)
    if how is not None:
        owner.send_signal(how)
    owner.communicate()
    assert gone(pid)


def test_it_ends_with_its_owner_in_the_middle_of_a_calculation(here):
    code = (
        "from ase.build import bulk; from aldriver.potentials.remote import RemotePotential;"
        f"p = RemotePotential({EAM!r}, family='sevennet'); p.evaluate([bulk('Fe')]);"
        "print(p._worker._process.pid, flush=True);"
        "[p.evaluate([bulk('Fe') * (10, 10, 10)] * 5) for _ in range(1000)]"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(owner.stdout.readline())
    time.sleep(0.5)
    owner.kill()
    owner.communicate()
    assert gone(pid)


def test_an_interrupted_question_does_not_answer_the_next(remote_eam, fe_cell, monkeypatch):
    expected = remote_eam.evaluate([fe_cell])[0].energy
    process = remote_eam._worker._process
    with monkeypatch.context() as patch:
        patch.setattr(other_python, "receive", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            remote_eam.evaluate([fe_cell * (2, 2, 2)])
    assert not process.close.alive
    assert remote_eam.evaluate([fe_cell])[0].energy == expected


def _interrupted(stream):
    raise KeyboardInterrupt


def test_a_fork_does_not_disturb_the_owner(remote_eam, fe_cell):
    expected = remote_eam.evaluate([fe_cell])[0].energy
    pid = worker_of(remote_eam)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if remote_eam.evaluate([fe_cell])[0].energy == expected and worker_of(remote_eam) != pid else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert remote_eam.evaluate([fe_cell])[0].energy == expected and worker_of(remote_eam) == pid


def test_saving_through_the_worker(remote_eam, eam_fe, fe_frames, tmp_path):
    folder = save_bundle(remote_eam, tmp_path / "saved", parent="0" * 16, extra={"note": np.float64(1.0)})
    assert load(folder).fingerprint == eam_fe.fingerprint


def test_libraries_may_print(here, tmp_path, monkeypatch, fe_cell, eam_fe):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'aldriver.potentials.remote_worker' in ' '.join(sys.orig_argv):\n"
        "    import builtins, os, aldriver.potentials as p\n"
        "    old = p.load\n"
        "    def load(*a, **k):\n"
        "        print('noise' * 1000); os.write(1, b'more noise'); return old(*a, **k)\n"
        "    p.load = load\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    potential = RemotePotential(EAM, family="sevennet")
    assert potential.evaluate([fe_cell])[0].energy == eam_fe.evaluate([fe_cell])[0].energy


# ---- SevenNet itself, from this Python -------------------------------------------------------------------------


def test_sevennet_from_here(sevennet_python, fe_frames, tmp_path):
    potential = load("sevennet:7net-0")
    assert (potential.remote, potential.name, potential.family) == (True, "sevennet:7net-0", "sevennet")
    check_potential(potential, fe_frames[:1], noise=1e-6, unknown="Cm", finite_differences=False)
    assert potential.last_layer_features(fe_frames[:2])[1].shape == (2, 64)
    folder = save_bundle(potential, tmp_path / "saved")
    loaded = load(folder)
    assert loaded.fingerprint == potential.fingerprint and loaded.remote
    assert loaded._worker._process is None  # what the files say needs no worker
    assert loaded.evaluate(fe_frames[:1])[0].energy == potential.evaluate(fe_frames[:1])[0].energy
    path = tmp_path / "model.pth"
    from aldriver.potentials.vendor import save_vendor

    assert save_vendor(potential, path) == path and path.stat().st_size > 1e6


def test_sevennet_in_double_precision_against_finite_differences(sevennet_python, fe_frames):
    potential = load("sevennet:7net-0", dtype="float64")
    check_potential(potential, fe_frames[:1], unknown="Cm")
