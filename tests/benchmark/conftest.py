"""Potentials the benchmark tests share, and one that misbehaves on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from ase import Atoms

import aldriver
from aldriver.benchmark.cases import case_by_name
from aldriver.core.recipe_benchmark import Case
from aldriver.potentials.base import Potential, Prediction
from aldriver.potentials.classical import LammpsPotential
from aldriver.potentials.lammps_library import potential_file


class Changed(Potential):
    """A potential whose predictions pass through a function (or raise)."""

    family = "changed"

    def __init__(self, inner: Potential, change: Callable[[Atoms, Prediction], Prediction]) -> None:
        self.inner, self.change = inner, change
        self.name, self.elements, self.fingerprint = inner.name, inner.elements, "changed0changed0"
        self.calls = 0

    def evaluate(self, frames: Sequence[Atoms], *, stress: bool = True, features: bool = False, batch_atoms=None):
        self.calls += len(frames)
        return [self.change(a, p) for a, p in zip(frames, self.inner.evaluate(frames, stress=stress), strict=True)]


@pytest.fixture(scope="session")
def changed() -> type[Changed]:
    return Changed


@pytest.fixture(scope="session")
def fe(eam_fe: Potential) -> Potential:
    """Mendelev et al., Phil. Mag. 83, 3977 (2003), potential 2. What its publication prints is here as we know it."""
    return eam_fe


@pytest.fixture(scope="session")
def cu() -> Potential:
    """Mishin et al., Phys. Rev. B 63, 224106 (2001), potential EAM1.

    Its publication has not been read again for these tests: numbers said to be its own are as we know them. Column EAM
    of Table 1 in Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021) has been read. It has this potential's energies of
    surfaces, faults and point defects, but not its elastic constants (176, 133 and 82 GPa).
    """
    return aldriver.load("eam:Cu_mishin1.eam.alloy")


class StillingerWeber(LammpsPotential):
    """Silicon: F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985)."""

    family, name, fingerprint = "sw", "sw:Si.sw", "stillinger-weber"
    pair_style, symbols, cutoff = "sw", ["Si"], 3.78
    elements = frozenset(["Si"])

    def __init__(self) -> None:
        self.pair_coeff = f'* * "{potential_file("Si.sw")}" Si'


@pytest.fixture(scope="session")
def sw_si() -> Potential:
    return StillingerWeber()


@pytest.fixture(scope="session")
def bcc_fe() -> Case:
    return case_by_name("bcc-Fe", supercell=(3, 3, 3))


@pytest.fixture(scope="session")
def fcc_cu() -> Case:
    return case_by_name("fcc-Cu", supercell=(3, 3, 3))
