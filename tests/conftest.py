"""Shared fixtures: small cells, loaded potentials, one thread, a private state directory."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Everything aldriver keeps outside a campaign goes to a temporary directory; a database started there ends."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ALDRIVER_HOME", str(home))
    yield home
    if any(home.rglob("service.json")):
        from aldriver.workflow import service

        monkeypatch.setenv("ALDRIVER_HOME", str(home))
        service.stop()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Numbers that a test draws without a seed of its own are the same in each run, alone or among others."""
    import torch

    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session")
def chgnet020():
    from aldriver import load

    return load("chgnet:0.2.0")


@pytest.fixture(scope="session")
def chgnet030():
    from aldriver import load

    return load("chgnet:0.3.0")


@pytest.fixture(scope="session")
def chgnet020_double():
    """The same network in double precision, for finite differences."""
    from aldriver.potentials.chgnet import CHGNetPotential

    return CHGNetPotential.foundation("0.2.0", dtype="float64")


@pytest.fixture(scope="session")
def eam_fe():
    from aldriver import load

    return load("eam:Fe_mm.eam.fs")


def strained(atoms: Atoms, seed: int, *, strain: float = 0.03, rattle: float = 0.08) -> Atoms:
    """Copy with a random (sheared, not lower-triangular) cell and random displacements."""
    rng = np.random.default_rng(seed)
    out = atoms.copy()
    out.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + rng.uniform(-strain, strain, (3, 3))), scale_atoms=True)
    out.positions += rng.normal(0.0, rattle, out.positions.shape)
    return out


@pytest.fixture
def fe_cell() -> Atoms:
    """bcc Fe, 2 atoms, a = 2.855 Å, ideal."""
    return bulk("Fe", "bcc", a=2.855, cubic=True)


@pytest.fixture
def fe_vacancy() -> Atoms:
    """bcc Fe with a vacancy, 15 atoms, ideal sites."""
    atoms = bulk("Fe", "bcc", a=2.855, cubic=True) * (2, 2, 2)
    del atoms[0]
    return atoms


@pytest.fixture
def fe_frames() -> list[Atoms]:
    """Small distorted Fe cells of 1, 2 and 15 atoms, sheared, with and without a vacancy."""
    one = bulk("Fe", "bcc", a=2.855)
    two = bulk("Fe", "bcc", a=2.855, cubic=True)
    vacancy = two * (2, 2, 2)
    del vacancy[0]
    return [strained(a, k) for k, a in enumerate((one, two, vacancy))]


@pytest.fixture
def shared_data() -> Path:
    """Folder of the reference data that may lie beside the repository."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the reference data folder is not here")
    return folder


@pytest.fixture
def sevennet_python() -> Path:
    """The Python that has sevenn, as configured or made by ``make setup-sevennet``."""
    return _python_or_skip("sevennet", "sevenn", "aldriver")


@pytest.fixture(scope="session")
def gpaw_python() -> Path:
    """The Python that has gpaw: this one, or as configured or made by ``make setup-gpaw``."""
    return Path(sys.executable) if find_spec("gpaw") else _python_or_skip("gpaw", "gpaw")


def _python_or_skip(backend: str, *packages: str) -> Path:
    python, reason = _python_of(backend, *packages)
    if python is None:
        pytest.skip(reason)
    return python


@functools.cache
def _python_of(backend: str, *packages: str) -> tuple[Path | None, str]:
    from aldriver.core.config import backend_python
    from aldriver.core.errors import InputError

    try:
        python = backend_python(backend)
    except InputError as error:
        return None, str(error)
    if python is None:
        return None, f"there is no Python for {backend} here (make setup-{backend})"
    look = f"from importlib.util import find_spec; assert all(map(find_spec, {packages!r}))"
    if subprocess.run([python, "-c", look], capture_output=True, cwd="/").returncode:
        return None, f"{python} lacks one of {', '.join(packages)} (make setup-{backend})"
    return python, ""
