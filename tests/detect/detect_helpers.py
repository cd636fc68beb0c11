"""Frames of bcc Fe from the EAM's own dynamics, and a cheap potential with features."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from matscipy.neighbours import neighbour_list

from aldriver.core.recipe_detect import Detect
from aldriver.potentials.base import Potential, Prediction

SOAP_ONLY = Detect(signals=["soap_q", "soap_t2"])
ALL_SIGNALS = Detect(signals=["soap_q", "soap_t2", "feature_distance"])


class DensityPotential(Potential):
    """No energy to speak of, but features with the right symmetries: smeared neighbour densities of each atom."""

    family = "stub"
    has_features = True
    widths = np.linspace(1.0, 3.5, 8)

    def __init__(self, fingerprint: str = "0123456789abcdef", elements: Sequence[str] = ("Fe", "Cu")) -> None:
        self.name, self.fingerprint, self.elements = "stub", fingerprint, frozenset(elements)
        self.calls = 0

    def evaluate(self, frames, *, stress=True, features=False, batch_atoms=None):
        self.check_elements(frames)
        self.calls += 1
        return [
            Prediction(energy=0.0, forces=np.zeros((len(a), 3)), features=self._densities(a) if features else None)
            for a in frames
        ]

    def _densities(self, atoms: Atoms) -> np.ndarray:
        i, d = neighbour_list("id", atoms, 5.0)
        shape = np.exp(-((d[:, None] / self.widths) ** 2)) * np.cos(np.pi * d / 10.0)[:, None] ** 2
        return np.array([np.bincount(i, weights=w, minlength=len(atoms)) for w in shape.T]).T


def dynamics(potential: Potential, atoms: Atoms, temperature: float, samples: int, seed: int, every: int = 20) -> list:
    """NVE frames every 40 fs, starting from twice the wanted kinetic energy on ideal sites."""
    rng = np.random.default_rng(seed)
    a = atoms.copy()
    sigma = np.sqrt(2 * temperature * units.kB * a.get_masses())[:, None]
    momenta = rng.normal(size=(len(a), 3)) * sigma
    a.set_momenta(momenta - momenta.mean(axis=0))
    a.calc = potential.calculator()
    md, frames = VelocityVerlet(a, 2 * units.fs), []
    md.run(40)
    for _ in range(samples):
        md.run(every)
        frames.append(Atoms(numbers=a.numbers, positions=a.positions, cell=a.cell, pbc=True))
    return frames


@functools.cache
def iron_frames() -> dict[str, list[Atoms]]:
    """16-atom bcc Fe: independent cool runs for fitting, holding out and testing, hot runs, one with a vacancy."""
    import aldriver

    eam = aldriver.load("eam:Fe_mm.eam.fs")
    cell = bulk("Fe", "bcc", a=2.87, cubic=True) * (2, 2, 2)
    vacancy = cell.copy()
    del vacancy[3]
    return {
        "cool": [f for s in (1, 2, 3) for f in dynamics(eam, cell, 300, 15, s)],
        "held": [f for s in (4, 5, 6) for f in dynamics(eam, cell, 300, 15, s)],
        "fresh": [f for s in (11, 12, 13) for f in dynamics(eam, cell, 300, 10, s)],
        "hot": [f for s in (7, 8) for f in dynamics(eam, cell, 1200, 10, s)],
        "vacancy": dynamics(eam, vacancy, 300, 15, 9),
    }


def rattled(count: int, *, strain: float = 0.02, rattle: float = 0.06) -> list[Atoms]:
    """Independent two-atom bcc Fe cells, sheared and rattled at random: exchangeable by construction."""
    frames = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        atoms = bulk("Fe", "bcc", a=2.87, cubic=True)
        atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + rng.uniform(-strain, strain, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0.0, rattle, (2, 3))
        frames.append(atoms)
    return frames


def auroc(negative: Sequence[float], positive: Sequence[float]) -> float:
    """Chance that a positive scores above a negative (Mann–Whitney), ties half."""
    a, b = np.asarray(negative)[:, None], np.asarray(positive)[None, :]
    return float(np.mean((b > a) + 0.5 * (b == a)))
