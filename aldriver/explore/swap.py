"""Monte Carlo swaps of unlike atoms, for any potential. Between which steps they come is the engine's business."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms, units

from aldriver.core.errors import InputError
from aldriver.explore.protocol import MDProtocol
from aldriver.potentials.base import Prediction


class Swapper:
    """Attempts swaps of two atoms of different elements and decides by Metropolis' rule.

    Two atoms exchange their places and each keeps its species, mass and velocity: the same move as exchanging their
    species, but the order of species along a trajectory does not change, and neither do the momenta (which are
    independent of the places in the canonical ensemble).

    Attributes
    ----------
    attempts, accepted
        Counts so far.

    Raises
    ------
    InputError
        When the cell lacks an element of a pair.
    """

    def __init__(self, atoms: Atoms, protocol: MDProtocol) -> None:
        assert protocol.swaps is not None
        self.protocol, self.swaps = protocol, protocol.swaps
        self.random = np.random.default_rng([protocol.seed, 2])
        self.attempts = self.accepted = 0
        symbols = np.array(atoms.get_chemical_symbols())
        self.sites = {e: np.flatnonzero(symbols == e) for pair in self.swaps.pairs for e in pair}
        missing = sorted(e for e, sites in self.sites.items() if len(sites) == 0)
        if missing:
            raise InputError(
                f"{atoms.get_chemical_formula()}: swaps of {', '.join(missing)} are asked for, but there is none in it"
            )

    def due(self, step: int) -> bool:
        """Whether swaps are attempted after this step."""
        return step > 0 and step % self.swaps.every == 0

    def __call__(
        self, step: int, atoms: Atoms, energy: float, evaluate: Callable[[Atoms], Prediction]
    ) -> tuple[Atoms, Prediction] | None:
        """Attempt swaps.

        Parameters
        ----------
        energy
            Of `atoms`, eV.
        evaluate
            What the potential says of a trial frame.

        Returns
        -------
        tuple or None
            The frame after the last accepted swap and its prediction; None when all were refused.
        """
        kT = units.kB * self.protocol.target_K(step)
        result: tuple[Atoms, Prediction] | None = None
        for _ in range(self.swaps.attempts):
            pair = self.swaps.pairs[self.random.integers(len(self.swaps.pairs))]
            i, j = (int(self.random.choice(self.sites[element])) for element in pair)
            trial = atoms.copy()
            trial.positions[[i, j]] = atoms.positions[[j, i]]
            prediction = evaluate(trial)
            self.attempts += 1
            # a trial energy that is not a number is below no threshold: refused
            if prediction.energy - energy <= -kT * np.log(1.0 - self.random.random()):
                self.accepted += 1
                atoms, energy = trial, prediction.energy
                result = (trial, prediction)
        return result
