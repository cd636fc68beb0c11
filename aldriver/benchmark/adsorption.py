"""Dissociation of a hydrogen molecule on facets of an fcc metal: barrier and energy of dissociative adsorption.

Protocol: a molecule parallel to the surface over a bridge, 4 Å above it, and two atoms in the hollows on both sides of
the bridge are the ends of a band (``band.py``). Such bands are a test of M. Radova et al., npj Comput. Mater. (2025),
doi:10.1038/s41524-025-01727-x, Fig. 3, who print curves without numbers and no ends: those, the slab and the tolerances
are ours. The slab is made at the potential's lattice constant; its lower half is held, all else relaxes. Both energies
are relative to the molecule above the surface. Errors are what the last steps changed.

The way is long, flat and ends in a narrow pass, on which a band that climbs finds no rest. So the band is only roughly
relaxed, by FIRE, and the dimer method (``saddle.py``) goes on from its highest image. Whether what it finds is the pass
is checked: down on one side there must be the molecule, on the other the atoms. Where that fails the highest image
climbs first, and the dimer is tried once more. FIRE goes down, as L-BFGS may step over into another valley.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import fcc100, fcc110, fcc111
from ase.constraints import FixAtoms
from numpy.typing import NDArray

from aldriver.benchmark.band import climb
from aldriver.benchmark.bench import Bench, Job
from aldriver.benchmark.measure import Value
from aldriver.benchmark.relax import Relaxation, stopped
from aldriver.benchmark.saddle import Saddle, saddle
from aldriver.core.errors import AldriverError
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_extended import Adsorption

VERSION = 2
FORCE_TOLERANCE = 0.02  # eV/Å, of the ends, and of the ways down
BAND_TOLERANCE = 0.3  # eV/Å: enough to know the pass from the way to it
SADDLE_TOLERANCE = 0.03  # eV/Å
MAX_STEPS = 300
BAND_STEPS = 200
SADDLE_STEPS = 60
ASIDE = 0.2  # Å from the saddle point, where the ways down begin
ABOVE = 4.0  # Å, of the molecule over the highest layer
BOND = 0.74  # Å, where the molecule starts
LONGEST_BOND = 1.0  # Å, of what is still a molecule
APART = 1.2  # Å, of what no longer is; two neighbouring hollows of Cu(111) are 1.5 Å apart
FARTHEST = 1.0  # Å along the surface, of an atom that stayed in its hollow
VACUUM = 14.0  # Å between the slab and its image


@dataclass(frozen=True, kw_only=True)
class Facet:
    """Where a molecule dissociates: the bridge, and the hollow on one side of it, in repeat units of the surface.

    Attributes
    ----------
    height
        Of an atom in the hollow over the highest layer, Å, where its relaxation starts.
    """

    build: Callable[..., Atoms]
    bridge: tuple[float, float]
    hollow: tuple[float, float]
    height: float


FACETS = {
    "111": Facet(build=fcc111, bridge=(1 / 2, 1 / 2), hollow=(2 / 3, 2 / 3), height=1.0),
    "100": Facet(build=fcc100, bridge=(1 / 2, 0.0), hollow=(1 / 2, 1 / 2), height=0.6),
    "110": Facet(build=fcc110, bridge=(0.0, 1 / 2), hollow=(0.3, 1 / 2), height=0.7),
}


def units(case: Case, options: Adsorption) -> dict[str, str]:
    """Names and units of the values."""
    return {
        f"{name}({facet})": "eV" for facet in options.facets for name in ("dissociation_barrier", "adsorption_energy")
    }


def compute(bench: Bench, case: Case, a: float, options: Adsorption) -> list[Value]:
    """``dissociation_barrier`` and ``adsorption_energy`` of each facet, eV.

    Raises
    ------
    AldriverError
        For a lattice other than fcc.
    InputError
        When the potential does not know hydrogen.
    """
    if case.lattice != "fcc":
        raise AldriverError(f"adsorption is measured on fcc metals; {case.name} is {case.lattice}")
    bench.potential.check_elements([Atoms("H")])
    jobs = []
    for facet in options.facets:
        size = f"{options.repeats}x{options.repeats}x{options.layers}"
        for end, atoms in zip(("molecule", "atoms"), ends(case, a, facet, options), strict=True):
            what = f"{case.name} {facet} {size} H2 {end}"
            jobs.append(Job(atoms=atoms, slot=what, fmax=FORCE_TOLERANCE, max_steps=MAX_STEPS))
    with bench.measure() as shared:
        relaxed = bench.relax_all(jobs)
    values = []
    for k, facet in enumerate(options.facets):
        above, adsorbed = relaxed[2 * k : 2 * k + 2]
        wrong = _wrong(above, adsorbed, jobs[2 * k + 1].atoms)
        values.append(_barrier(bench, jobs[2 * k].slot, facet, above, adsorbed, wrong, options))
        values.append(
            Value(
                property=f"adsorption_energy({facet})",
                value=adsorbed.energy - above.energy,
                unit="eV",
                error=adsorbed.last_gain + above.last_gain,
                converged=not wrong,
                reason=wrong,
                cost=shared,
            )
        )
    return values


def ends(case: Case, a: float, facet: str, options: Adsorption) -> tuple[Atoms, Atoms]:
    """The molecule above a facet, and its atoms in the hollows; hydrogen comes last."""
    where = FACETS[facet]
    slab = where.build(case.element, size=(options.repeats, options.repeats, options.layers), a=a)
    unit = np.asarray(slab.cell)[:2] / options.repeats
    top = float(slab.positions[:, 2].max())
    slab.cell[2] = [0.0, 0.0, top + ABOVE + VACUUM]
    slab.pbc = True
    layer = np.unique(np.round(slab.positions[:, 2], 6))
    held = np.flatnonzero(slab.positions[:, 2] < layer[options.layers // 2] - 1e-3)
    bridge = np.array(where.bridge) @ unit
    aside = (np.array(where.hollow) - np.array(where.bridge)) @ unit
    direction = aside / np.linalg.norm(aside)
    return (
        _with(slab, held, bridge + np.array([0, 0, top + ABOVE]), direction * BOND / 2),
        _with(slab, held, bridge + np.array([0, 0, top + where.height]), aside),
    )


def _with(slab: Atoms, held: NDArray[np.int64], middle: NDArray[np.float64], half: NDArray[np.float64]) -> Atoms:
    atoms = Atoms(slab.numbers, slab.positions, cell=slab.cell, pbc=True)
    atoms.extend(Atoms("H2", [middle - half, middle + half]))
    atoms.set_constraint(FixAtoms(held.tolist()))
    return atoms


def _wrong(above: Relaxation, adsorbed: Relaxation, start: Atoms) -> str:
    """Why two relaxed ends are not those of a dissociation; empty when they are."""
    for what, end in (("the molecule above the surface", above), ("the adsorbed atoms", adsorbed)):
        if end.shortfall:
            return f"{what}: {end.shortfall}"
    bond, apart = (float(end.atoms.get_distance(-2, -1, mic=True)) for end in (above, adsorbed))
    if bond > LONGEST_BOND:
        return f"the molecule above the surface is none: its atoms are {bond:.2f} Å apart"
    if apart < APART:
        return f"the adsorbed atoms have become a molecule: they are {apart:.2f} Å apart"
    moved = np.linalg.norm((adsorbed.atoms.positions - start.positions)[-2:, :2], axis=1).max()
    return f"an adsorbed atom left its hollow by {moved:.2f} Å" if moved > FARTHEST else ""


def _barrier(
    bench: Bench, slot: str, facet: str, above: Relaxation, adsorbed: Relaxation, wrong: str, options: Adsorption
) -> Value:
    name = f"dissociation_barrier({facet})"
    if wrong:
        return Value.missing(name, "eV", wrong)
    path = f"{slot} to atoms"
    with bench.measure() as cost:
        for climbs in (False, True):
            band = climb(
                bench, above.atoms, adsorbed.atoms, f"{path}{', climbing' * climbs}", images=options.images,
                fmax=BAND_TOLERANCE, max_steps=BAND_STEPS, climb=climbs, optimizer="fire",
            )  # fmt: skip
            if band.energies.argmax() in (0, len(band.energies) - 1):  # the way only falls, or only rises
                value, error, reason = band.barrier, band.last_change, band.shortfall
                break
            top = saddle(
                bench, band, f"{path}, saddle{' again' * climbs}", fmax=SADDLE_TOLERANCE, max_steps=SADDLE_STEPS
            )
            value, error = top.energy - above.energy, top.last_change
            reason = _lost(bench, path, top)
            if not reason:
                break
    return Value(
        property=name,
        value=value,
        unit="eV",
        error=error,
        converged=not reason,
        reason=reason,
        cost=cost,
    )


def _lost(bench: Bench, path: str, top: Saddle) -> str:
    """Why a saddle point is not the one between the molecule and the atoms; empty when it is."""
    if not top.converged:
        return (
            f"the search for the saddle point {stopped(top.steps, top.fmax)} and "
            f"a curvature of {top.curvature:.1f} eV/Å²"
        )
    jobs = [
        Job(atoms=top.beside(side * ASIDE), slot=f"{path}, down to {end}", fmax=FORCE_TOLERANCE, max_steps=MAX_STEPS,
            optimizer="fire")
        for side, end in ((-1, "the molecule"), (1, "the atoms"))
    ]  # fmt: skip
    bonds = [float(down.atoms.get_distance(-2, -1, mic=True)) for down in bench.relax_all(jobs)]
    if bonds[0] < LONGEST_BOND and bonds[1] > APART:
        return ""
    apart = " and ".join(f"{bond:.2f}" for bond in bonds)
    return f"the saddle point is another one: down on both sides of it the two atoms are {apart} Å apart"
