"""Liquids at zero pressure: density, radial distribution functions and their first peaks, and self-diffusion.

A crystal is melted well above the temperature, brought to it, and sampled. Diffusion comes from the mean square
displacement (A. Einstein, Ann. Phys. 322, 549 (1905)) in the periodic cell. In an infinite one it would be larger by
2.837 kT/(6πηL) with the viscosity η and the edge L of a cubic cell (I.-C. Yeh, G. Hummer, J. Phys. Chem. B 108, 15873
(2004)); η is not measured here, so nothing is added. Errors are those of blocks of the run. ``md.py`` moves the
atoms, ``rdf.py`` counts their distances.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.units import _amu
from numpy.typing import NDArray

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.cases import conventional_cell, periodic_cell, times
from aldriver.benchmark.md import Run, Trajectory, block_mean, simulate
from aldriver.benchmark.measure import Value
from aldriver.benchmark.order import CrystalOrder
from aldriver.benchmark.rdf import ALL, BIN, first_peak, pairs_of, radial_distributions
from aldriver.core.errors import InputError
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_thermal import Liquid, Repeats

VERSION = 2
BLOCKS = 4
SAMPLE_EVERY = 20  # steps
BOILED = 2.0  # volume over that of the crystal
SAMPLES = 50  # of a block, for the radial distribution
PEAK = {"rdf_first_peak": "Å", "rdf_first_peak_height": ""}
FROZEN = 0.5  # order of a crystal at its melting point


def units(case: Case, options: Liquid | None = None) -> dict[str, str]:
    """Names and units of the values of a case."""
    options = options or Liquid()
    elements = sorted(options.composition) or [case.element]
    with suppress(InputError):  # a file that cannot be read is what the record says
        if case.name in options.structures:
            elements = sorted(set(periodic_cell(options.structures[case.name]).get_chemical_symbols()))
    peaks = {f"{name}({pair})": unit for pair in pairs_of(elements) for name, unit in PEAK.items()}
    return {"liquid_density": "g/cm^3"} | PEAK | peaks | {f"self_diffusion({e})": "1e-9 m^2/s" for e in elements}


def content(case: Case, options: Liquid) -> str:
    """Digest of the file that is melted."""
    path = options.structures.get(case.name, Path()).expanduser()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def compute(bench: Bench, case: Case, a: float, options: Liquid) -> list[Value]:
    """``liquid_density``, ``rdf_first_peak`` and its height over all pairs, and ``self_diffusion`` of each element.

    With several elements also ``rdf_first_peak(Cl-Na)`` and its height, of each pair of elements.

    Raises
    ------
    InputError
        When a file cannot be read, or the potential does not know an element.
    """
    file = options.structures.get(case.name)
    repeats = options.supercell or ((1, 1, 1) if file else case.supercell)
    cell = periodic_cell(file) if file else conventional_cell(case, a)
    atoms = _mixed(cell.repeat(repeats), options)
    bench.potential.check_elements([atoms])
    order = CrystalOrder(cell, repeats)
    with bench.measure() as cost:
        until = order.lost if order.crystalline else None
        (hot,) = simulate(bench, [_run(case, options, repeats, atoms, "melted")], until)
        if order.crystalline and not hot.stopped:
            at = options.melt_K or 2 * options.temperature_K
            crystal = "a crystal" if file else case.lattice
            reason = f"it is still {crystal} after {options.equilibration} steps at {at:g} K"
            return [Value.missing(name, unit, reason, cost) for name, unit in units(case, options).items()]
        (ready,) = simulate(bench, [_run(case, options, repeats, hot.atoms, "settled")])
        (found,) = simulate(bench, [_run(case, options, repeats, ready.atoms, "sampled")])
    frozen = order.crystalline and max(order(p) for p in found.positions[-3:]) > FROZEN
    boiled = found.volume[-1] > BOILED * atoms.get_volume()
    what = "frozen" if frozen else "boiled" if boiled else ""
    reason = f"it has {what} at {options.temperature_K:g} K" if what else ""
    volume, volume_error = block_mean(found.volume)
    density = float(atoms.get_masses().sum()) * _amu * 1e3 / (volume * 1e-24)
    measured = {"liquid_density": (density, density * volume_error / volume)}
    blocks = _distributions(found, atoms.get_chemical_symbols())
    r = np.asarray(BIN * (np.arange(len(blocks[0][ALL])) + 0.5), dtype=np.float64)
    curve = {"r": r} | {pair: np.mean([block[pair] for block in blocks], axis=0) for pair in blocks[0]}
    for pair in blocks[0]:
        if not curve[pair].any():
            continue
        spread = np.std([first_peak(r, block[pair]) for block in blocks], axis=0, ddof=1) / BLOCKS**0.5
        for name, value, error in zip(PEAK, first_peak(r, curve[pair]), spread, strict=True):
            measured[name if pair == ALL else f"{name}({pair})"] = (value, float(error))
    for element in sorted(set(atoms.get_chemical_symbols())):
        which = np.flatnonzero(np.array(atoms.get_chemical_symbols()) == element)
        interval = SAMPLE_EVERY * options.timestep_fs * 1e-3
        length = (volume / abs(np.linalg.det(np.asarray(atoms.cell)))) ** (1 / 3)
        moved = found.positions @ (np.asarray(atoms.cell) * length)
        measured[f"self_diffusion({element})"] = diffusion(moved, which, interval)
    drawn = {name: [round(float(x), 4) for x in column] for name, column in curve.items()}
    return [
        Value(property=name, value=measured[name][0], unit=unit, error=measured[name][1], converged=not reason,
              reason=reason, cost=cost, curve=drawn if name == "rdf_first_peak" else {})
        if name in measured else Value.missing(name, unit, "the cell does not hold such atoms", cost)
        for name, unit in units(case, options).items()
    ]  # fmt: skip


def diffusion(positions: NDArray[np.float64], which: NDArray[np.int64], interval_ps: float) -> tuple[float, float]:
    """Self-diffusion coefficient of some atoms, and its error over blocks, 1e-9 m²/s.

    Parameters
    ----------
    positions
        (n, N, 3), Å, unwrapped, of samples `interval_ps` apart; the motion of the centre is taken out.
    """
    centred = positions - positions.mean(axis=1, keepdims=True)
    slopes = []
    for block in np.array_split(centred[:, which], BLOCKS):
        lags = np.arange(max(len(block) // 8, 1), len(block) // 2 + 1)  # beyond the first collisions
        msd = [float(((block[lag:] - block[:-lag]) ** 2).sum(axis=2).mean()) for lag in lags]
        slopes.append(float(np.polyfit(lags * interval_ps, msd, 1)[0]) / 6 * 10)  # Å²/ps to 1e-9 m²/s
    return float(np.mean(slopes)), float(np.std(slopes, ddof=1)) / BLOCKS**0.5


def _distributions(found: Trajectory, symbols: list[str]) -> list[dict[str, NDArray[np.float64]]]:
    """g(r) up to half the cell by pair of elements, in each block of a run."""
    last = np.asarray(found.atoms.cell)
    scale = (found.volume / abs(np.linalg.det(last))) ** (1 / 3)
    heights = 1 / np.linalg.norm(np.linalg.inv(last), axis=0)
    bins = int(0.5 * float(scale.min() * heights.min()) / BIN - 1e-6)
    blocks = []
    for block in np.array_split(np.arange(len(found.volume)), BLOCKS):
        some = block[:: max(len(block) // SAMPLES, 1)]
        frames = [Atoms(symbols, cell=scale[k] * last, scaled_positions=found.positions[k], pbc=True) for k in some]
        blocks.append(radial_distributions(frames, bins))
    return blocks


def _run(case: Case, options: Liquid, repeats: Repeats, atoms: Atoms, what: str) -> Run:
    sampled = what == "sampled"
    return Run(
        atoms=atoms,
        slot=f"{case.name} {times(repeats)} liquid {options.temperature_K:g} K {what}",
        temperature_K=(options.melt_K or 2 * options.temperature_K) if what == "melted" else options.temperature_K,
        pressure_GPa=None if what == "melted" else 0.0,  # it could boil
        steps=options.steps if sampled else options.equilibration,
        timestep_fs=options.timestep_fs,
        sample_every=SAMPLE_EVERY,
        positions=sampled,
        seed=options.seed + ["melted", "settled", "sampled"].index(what),
    )


def _mixed(atoms: Atoms, options: Liquid) -> Atoms:
    """The crystal with its sites given to the elements of the composition, as many as come nearest, at random."""
    if options.composition:
        parts = np.array(list(options.composition.values()))
        ends = np.rint(np.cumsum(parts / parts.sum()) * len(atoms)).astype(int)
        counts = np.diff(ends, prepend=0)
        symbols = [s for s, n in zip(options.composition, counts, strict=True) for _ in range(n)]
        atoms.set_chemical_symbols(list(np.random.default_rng(options.seed).permutation(symbols)))
    return atoms
