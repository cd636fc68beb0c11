"""Tests that run where ``sevenn`` is; elsewhere ``tests/potentials/test_sevennet_environment.py`` runs them there."""

from __future__ import annotations

import importlib.util

import pytest
from ase import Atoms
from ase.build import bulk

if importlib.util.find_spec("sevenn") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    """What sevenn's libraries are warned of is not ours to mend."""
    for message in ("`torch.jit", "An issue occurred while importing"):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


@pytest.fixture(scope="session")
def sevennet():
    from aldriver import load

    return load("sevennet:7net-0")


@pytest.fixture(scope="session")
def sevennet_double():
    """The same network in double precision, for finite differences."""
    from aldriver import load

    return load("sevennet:7net-0", dtype="float64")


@pytest.fixture(scope="session")
def theirs():
    """sevenn's own calculator of the packaged model."""
    import warnings

    from sevenn.calculator import SevenNetCalculator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no accelerator is installed
        return SevenNetCalculator("7net-0", device="cpu")


@pytest.fixture
def alloy() -> Atoms:
    """Sheared, rattled bcc Mo-Nb with a vacancy."""
    import numpy as np

    atoms = bulk("Mo", "bcc", a=3.16, cubic=True) * (2, 2, 2)
    atoms.symbols[::3] = "Nb"
    del atoms[1]
    atoms.set_cell(np.asarray(atoms.cell) @ [[1.0, 0.02, -0.01], [0.0, 1.01, 0.03], [0.02, 0.0, 0.98]], True)
    atoms.rattle(0.08, seed=3)
    return atoms
