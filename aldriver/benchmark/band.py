"""Minimum-energy path between two relaxed cells and its highest point: the climbing-image nudged elastic band.

Which cells, and what the barrier means, is the property modules' business; the optimiser's steps are ASE's.

Protocol: G. Henkelman and H. Jónsson, J. Chem. Phys. 113, 9978 (2000), improved tangent; G. Henkelman, B. P. Uberuaga
and H. Jónsson, J. Chem. Phys. 113, 9901 (2000), climbing image; first path by S. Smidstrup et al., J. Chem. Phys. 140,
214106 (2014), image-dependent pair potential; all as in ASE. Springs of 0.1 eV/Å². The band is relaxed without climbing
until no force exceeds four times the limit, then the highest image climbs; where the highest point is an end, nothing
climbs. L-BFGS takes 68 force calls for half of the band of a vacancy hop in 54 atoms of iron (EAM, five images,
20 meV/Å), 112 for all of it; FIRE takes 104 and 197.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from ase.mep import NEB
from ase.mep.neb import idpp_interpolate, interpolate
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial import cKDTree

from aldriver.benchmark.bench import Bench, cost_of
from aldriver.benchmark.measure import Cost
from aldriver.benchmark.relax import OPTIMIZERS, OptimizerName, stopped
from aldriver.benchmark.store import Kept
from aldriver.core.frames import frame_hash
from aldriver.core.records import jsonable
from aldriver.potentials.base import Potential

VERSION = 1
FloatArray = NDArray[np.float64]

SPRING = 0.1  # eV/Å²
LOOSE = 4.0  # times the limit of the forces: where climbing begins
SAME_PLACE = 1.0e-3  # Å, between an atom and the image of its partner under a symmetry
SAME_ENERGY = 5.0e-3  # eV, between ends that a symmetry takes into each other


@dataclass(frozen=True, kw_only=True)
class Band:
    """A path: its images with both ends.

    Attributes
    ----------
    energies
        eV, relative to the first image.
    fmax
        Largest force left on the band, eV/Å.
    last_change
        Change of the highest energy in the last step, eV.
    between
        How far the energy rises above the highest image between two images, eV: by the cubic through energies and
        slopes. Where it rises much, the band has too few images for its path, whatever its forces.
    halved
        Whether one half was computed and the other is its image under the symmetry that exchanges the ends.
    """

    images: list[Atoms]
    energies: FloatArray
    fmax: float
    steps: int
    converged: bool
    last_change: float = 0.0
    between: float = 0.0
    halved: bool = False
    cost: Cost = field(default_factory=Cost)

    @property
    def barrier(self) -> float:
        """Highest point above the first image, eV."""
        return float(self.energies.max())

    @property
    def shortfall(self) -> str:
        """Why it is not to be trusted, as far as its forces tell; empty when it is."""
        return "" if self.converged else f"the band {stopped(self.steps, self.fmax)}"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A symmetry of order two that may take one end of a path into the other: ``x → R (x − c) + c``.

    Attributes
    ----------
    rotation
        R, (3, 3): inversion, mirror or twofold rotation.
    centre
        c, Å.
    """

    rotation: FloatArray
    centre: FloatArray

    def positions(self, atoms: Atoms) -> FloatArray:
        """Where it takes the atoms, (N, 3)."""
        return (atoms.positions - self.centre) @ self.rotation.T + self.centre

    def image(self, start: Atoms, near: Atoms, partners: NDArray[np.int64]) -> FloatArray:
        """Positions (N, 3) of the symmetric counterpart of `start`: atoms in the order of `near`, and close to them."""
        turned = np.empty((len(start), 3))
        turned[partners] = self.positions(start)
        step, _ = find_mic(turned - near.positions, near.cell, near.pbc)
        return np.asarray(near.positions + step)

    def partners(self, start: Atoms, end: Atoms) -> NDArray[np.int64] | None:
        """For each atom, the atom of the other end at its new place; None when the ends are not each other's image.

        It is checked both ways, and for being of order two: only then is the path its own image, walked backwards.
        """
        there = _partners(self.positions(start), start.numbers, end)
        back = _partners(self.positions(end), end.numbers, start)
        if (
            there is None
            or back is None
            or not (there == back).all()
            or not (there[there] == np.arange(len(end))).all()
        ):
            return None
        return there


def climb(
    bench: Bench,
    start: Atoms,
    end: Atoms,
    slot: str,
    *,
    images: int = 5,
    fmax: float = 0.05,
    max_steps: int = 200,
    climb: bool = True,
    optimizer: OptimizerName = "lbfgs",
    exchange: Exchange | None = None,
) -> Band:
    """The path between two relaxed cells, atom by atom; kept in the store and warm-started like a relaxation.

    Parameters
    ----------
    start, end
        Same species in the same order and the same cell; constraints are those of `start`.
    images
        Between the ends. Odd, so that a symmetric path has its middle among them.
    fmax, max_steps
        Largest force of the band to reach, eV/Å, and the steps allowed for it.
    climb
        Whether the highest image climbs to the saddle point.
    optimizer
        ``fire`` for a path with a sharp bend, on which L-BFGS goes astray: a molecule that comes down and breaks.
    exchange
        A symmetry of the path. Where it does take `start` into `end`, and their energies agree to 5 meV, half of the
        images are computed; where not, all are.

    Raises
    ------
    AldriverError
        When the potential gives numbers that are not finite.
    ValueError
        When the ends are not of the same atoms and cell.
    """
    if not (np.array_equal(start.numbers, end.numbers) and np.allclose(start.cell, end.cell, rtol=0, atol=1e-8)):
        raise ValueError(f"{slot}: the ends of a path must be of the same atoms in the same cell")
    moved, _ = find_mic(end.positions - start.positions, start.cell, start.pbc)
    path = [start.copy() for _ in range(images + 2)]
    path[-1].set_positions(start.positions + moved, apply_constraint=False)
    partners = exchange.partners(path[0], path[-1]) if exchange is not None and images % 2 else None
    interpolate(path, apply_constraint=False)
    facts = dict.fromkeys(("fmax", "last_change", "between"), 0.0) | {"steps": 0, "converged": True, "halved": False}
    begin = Kept(facts=facts | {"energies": [0.0] * len(path)}, displacement=_displacements(path))
    what = {
        "band": VERSION,
        "ends": [frame_hash(start), frame_hash(end)],
        "constraints": [jsonable(c.todict()) for c in start.constraints],
        "images": images,
        "fmax": fmax,
        "max_steps": max_steps,
        "climb": climb,
        "optimizer": optimizer,
        "halved": partners is not None,
    }

    def make(at: Kept) -> Kept:
        _place(path, at.displacement)
        neb = _Band(bench.potential, path, exchange if partners is not None else None, partners)
        if at is begin:
            neb.first_path()
        return _relax(neb, fmax=fmax, max_steps=max_steps, climb=climb, optimizer=optimizer)

    kept = bench.once(what, f"{slot} {images} images", start.numbers.tolist(), begin, make)
    _place(path, kept.displacement)
    for image in path:
        image.calc = None
    cost = cost_of(kept)
    return Band(
        images=path, energies=np.array(kept.facts["energies"]), cost=cost, **{name: kept.facts[name] for name in facts}
    )


class _Band:
    """The images of a path, and the part of them that is computed.

    Of a symmetric path that is the first half, its middle, and the image after it, which is that before it turned
    round: so the middle has both its neighbours, and what climbs, climbs on both sides.
    """

    def __init__(
        self, potential: Potential, path: list[Atoms], exchange: Exchange | None, partners: NDArray[np.int64] | None
    ) -> None:
        self.potential, self.path = potential, path
        first, last = potential.evaluate([path[0], path[-1]], stress=False)
        for image, found in ((path[0], first), (path[-1], last)):
            image.calc = SinglePointCalculator(image, energy=found.energy, forces=found.forces)
        self.ends = (first.energy, last.energy)
        self.exchange, self.partners = exchange, partners
        if abs(last.energy - first.energy) > SAME_ENERGY:
            self.exchange = self.partners = None

    @property
    def middle(self) -> int:
        return len(self.path) // 2

    def first_path(self) -> None:
        """From the straight line to the path of the image-dependent pair potential."""
        ends = self.path[0].calc, self.path[-1].calc
        idpp_interpolate(NEB(self.path, method="improvedtangent"), traj=None, log=None, mic=True)
        for image in self.path[1:-1]:
            image.calc = None
        self.path[0].calc, self.path[-1].calc = ends

    def turn(self, image: Atoms, onto: Atoms) -> None:
        """Set the positions of `onto` to the symmetric counterpart of `image`, near the place where it is."""
        assert self.exchange is not None and self.partners is not None
        onto.set_positions(self.exchange.image(image, onto, self.partners), apply_constraint=False)

    def symmetrise(self) -> None:
        """Make the middle symmetric, and the second half from the first."""
        middle = self.path[self.middle]
        before = middle.positions.copy()
        self.turn(middle, middle)
        middle.set_positions((before + middle.positions) / 2, apply_constraint=False)
        self.complete()

    def complete(self) -> None:
        """Make the second half from the first."""
        for k in range(1, self.middle):
            self.turn(self.path[k], self.path[-1 - k])

    def energies(self, computed: FloatArray) -> FloatArray:
        """Energies of the whole path from those computed."""
        if self.exchange is None:
            return computed
        half = computed[: self.middle + 1]
        return np.concatenate([half, half[-2:0:-1], [self.ends[1]]])


class _NEB(NEB):
    """ASE's band with all images of a step evaluated together, and with half of a symmetric one only."""

    def __init__(self, band: _Band) -> None:
        self.band = band
        images = band.path
        if band.exchange is not None:
            images = band.path[: band.middle + 2]
        super().__init__(images, k=SPRING, method="improvedtangent")

    def get_forces(self) -> FloatArray:
        inner = self.images[1:-1]
        todo = [image for image in inner if image.calc is None or image.calc.check_state(image)]
        for image, found in zip(todo, self.band.potential.evaluate(todo, stress=False) if todo else [], strict=True):
            image.calc = SinglePointCalculator(image, energy=found.energy, forces=found.forces)
        if self.band.exchange is not None:
            before, after = self.images[-3], self.images[-1]
            self.band.turn(before, after)
            after.calc = SinglePointCalculator(
                after, energy=before.get_potential_energy(), forces=np.zeros((len(after), 3))
            )
        return super().get_forces()

    def between(self) -> float:
        """How far the cubic through energies and slopes rises above the highest of all images, eV."""
        assert self.energies is not None and self.real_forces is not None
        images = self.images if self.band.exchange is None else self.images[:-1]
        places = np.array([image.positions for image in self.images])
        length = np.linalg.norm(np.diff(places, axis=0), axis=(1, 2))
        along = np.concatenate([places[1:2] - places[0], places[2:] - places[:-2], places[-1:] - places[-2]])
        along /= np.linalg.norm(along, axis=(1, 2))[:, None, None]
        slopes = -(self.real_forces * along).sum(axis=(1, 2))
        n = len(images)
        path = np.concatenate([[0.0], np.cumsum(length)])[:n]
        cubic = CubicHermiteSpline(path, self.energies[:n], slopes[:n])
        return float(cubic(np.linspace(0.0, path[-1], 50 * n)).max() - self.energies[:n].max())

    def highest(self) -> float:
        """Highest energy between the ends, at the last evaluation."""
        assert self.energies is not None
        return float(self.energies[1:-1].max())


def _relax(band: _Band, *, fmax: float, max_steps: int, climb: bool, optimizer: OptimizerName) -> Kept:
    """Relax a band without climbing, then with."""
    if band.exchange is not None:
        band.symmetrise()
    neb = _NEB(band)
    highest: list[float] = []
    steps = 0
    for climbing in (False, True) if climb else (False,):
        neb.climb = climbing and neb.highest() > max(band.ends)
        limit = LOOSE * fmax if climb and not climbing else fmax
        opt = OPTIMIZERS[optimizer](neb, logfile=None, maxstep=0.1)  # type: ignore[arg-type]
        opt.attach(lambda: highest.append(neb.highest()))
        opt.run(fmax=limit, steps=max(max_steps - steps, 0))
        steps += int(opt.nsteps)
    left = float(np.linalg.norm(neb.get_forces(), axis=1).max())
    if band.exchange is not None:
        band.complete()
    found = band.energies(np.asarray(neb.energies)) - band.ends[0]
    facts: dict[str, Any] = {
        "energies": found.tolist(),
        "fmax": left,
        "steps": steps,
        "converged": left <= fmax,
        "last_change": abs(highest[-1] - highest[-2]) if len(highest) > 1 else 0.0,
        "between": max(neb.between(), 0.0),
        "halved": band.exchange is not None,
    }
    return Kept(facts=facts, displacement=_displacements(band.path))


def _partners(positions: FloatArray, numbers: NDArray[np.int64], atoms: Atoms) -> NDArray[np.int64] | None:
    """For each position the atom that is there, of the same species; None where there is none, or not one each."""
    cell = np.asarray(atoms.cell)
    inverse = np.linalg.inv(cell)
    places = cKDTree((atoms.positions @ inverse) % 1.0, boxsize=1.0 + 1e-12)
    found = places.query((positions @ inverse) % 1.0)[1]
    _, distance = find_mic(positions - atoms.positions[found], cell, atoms.pbc)
    if distance.max() > SAME_PLACE or len(set(found.tolist())) < len(found):
        return None
    return found if (atoms.numbers[found] == numbers).all() else None


def _displacements(path: list[Atoms]) -> FloatArray:
    """(images × N, 3) from the first image, in units of the cell's vectors: the images between the ends."""
    moved = np.concatenate([image.positions - path[0].positions for image in path[1:-1]])
    return np.linalg.solve(np.asarray(path[0].cell).T, moved.T).T


def _place(path: list[Atoms], displacements: FloatArray) -> None:
    steps = displacements.reshape(len(path) - 2, len(path[0]), 3) @ np.asarray(path[0].cell)
    for image, step in zip(path[1:-1], steps, strict=True):
        image.set_positions(path[0].positions + step, apply_constraint=False)
