"""Small labelled frames and settings for the training tests; the teacher is a Finnis-Sinclair potential of iron."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aldriver.core.frames import with_labels
from aldriver.core.recipe_train import Train
from aldriver.potentials.base import Potential
from aldriver.train.base import TrainAdapter, make_adapter
from aldriver.train.loss import Example, make_example


@pytest.fixture(scope="session")
def iron(eam_fe: Potential) -> Callable[..., list[Atoms]]:
    """iron(n): distorted bcc cells of 2 atoms, in groups of two, labelled by the teacher."""

    def make(n: int, *, seed: int = 0, with_stress: bool = True) -> list[Atoms]:
        rng = np.random.default_rng(seed)
        frames = []
        for k in range(n):
            atoms = bulk("Fe", "bcc", a=2.855, cubic=True)
            atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True)
            atoms.positions += rng.normal(0.0, 0.06, atoms.positions.shape)
            p = eam_fe.evaluate([atoms])[0]
            atoms.info["group"] = f"walker-{k // 2}"
            stress = p.stress if with_stress else None
            frames.append(with_labels(atoms, energy=p.energy, forces=p.forces, stress=stress))
        return frames

    return make


OFF = {"ewc": 0, "replay": {"source": "none"}}
"""Nothing general is kept: what most tests ask about is the new frames."""


@pytest.fixture(scope="session")
def settings() -> Callable[..., Train]:
    """settings(...): of a training that takes a second or two."""

    def make(**changes: Any) -> Train:
        return Train.model_validate({"epochs": 3, "batch_size": 2, "learning_rate": 1e-3} | OFF | changes)

    return make


@pytest.fixture(scope="session")
def examples() -> Callable[..., tuple[TrainAdapter, list[Example]]]:
    """examples(start, frames, shift): an adapter that trains all weights, and the frames as it reads them."""

    def make(
        start: Potential, frames: list[Atoms], shift: dict[str, float] | None
    ) -> tuple[TrainAdapter, list[Example]]:
        adapter = make_adapter(start)
        adapter.set_trainable(Train())
        return adapter, [make_example(adapter, atoms, shift) for atoms in frames]

    return make
