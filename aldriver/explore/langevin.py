"""The Langevin thermostat of both engines: its random numbers and its state are ours, so that a run can go on exactly.

Who calls it after each step is the engines' business.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from aldriver.explore.protocol import MDProtocol


class Langevin:
    """Ornstein–Uhlenbeck step of the velocities after each step of velocity Verlet.

    The scheme is that of Bussi and Parrinello, Phys. Rev. E 75, 056707 (2007), with the two half steps of the
    thermostat that meet between two steps taken as one. The noise has no component along the motion of the centre of
    mass (projected out in mass-weighted coordinates), so that the total momentum stays zero and 3N−3 degrees of
    freedom are canonical whatever the masses.

    Parameters
    ----------
    atoms
        Whose masses count.
    """

    def __init__(self, atoms: Atoms, protocol: MDProtocol) -> None:
        self.protocol = protocol
        self.masses = atoms.get_masses()[:, None]
        self.decay = float(np.exp(-protocol.timestep_fs / protocol.thermostat_fs))
        self.random = np.random.default_rng([protocol.seed, 1])

    def __call__(self, step: int, velocities: NDArray[np.float64]) -> NDArray[np.float64]:
        """New (N, 3) velocities at the end of `step`, ASE's unit."""
        root = np.sqrt(self.masses)
        noise = self.random.standard_normal(velocities.shape)
        noise -= root * (root * noise).sum(axis=0) / self.masses.sum()
        width = np.sqrt((1.0 - self.decay**2) * units.kB * self.protocol.target_K(step))
        return self.decay * velocities + width * noise / root


def random_state(random: np.random.Generator) -> NDArray[np.uint8]:
    """State of a generator as bytes, for an array file."""
    return np.frombuffer(json.dumps(random.bit_generator.state).encode(), dtype=np.uint8)


def set_random_state(random: np.random.Generator, state: NDArray[np.uint8]) -> None:
    """Go on with the random numbers of a stored state."""
    stored: dict[str, Any] = json.loads(state.tobytes())
    random.bit_generator.state = stored
