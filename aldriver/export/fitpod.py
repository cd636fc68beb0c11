"""Fits an ML-POD potential to labelled frames with LAMMPS' own ``fitpod``.

Which frames, and whether the result is good enough, is ``surrogate.py``'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.frames import label_of
from aldriver.export.native import run_lmp
from aldriver.potentials.pod import PODPotential

NEIGHBOURS = 28
"""Within the cutoff, on average: the cost of an atom depends on nothing else (bcc iron: three shells, 4.4 Å)."""
REACH_A = 7.0
"""Å; a cutoff lies below."""
INNER = 0.9
"""Inner cutoff over the shortest distance in the frames: the radial functions then resolve what is there. With an inner
cutoff of half of it the forces of hot iron are two times less accurate; above it, they are lost."""
ENERGY_WEIGHT, FORCE_WEIGHT = 20.0, 1.0
"""Of an error of 1 eV/atom and of 1 eV/Å. Stress is not in the fit: strained cells and their energies teach it."""

PARAM = """\
species {species}
pbc 1 1 1
rin {rin:.3f}
rcut {rcut:.3f}
bessel_polynomial_degree 6
inverse_polynomial_degree 6
onebody 1
twobody_number_radial_basis_functions 16
threebody_number_radial_basis_functions {n3}
threebody_angular_degree 3
fourbody_number_radial_basis_functions 5
fourbody_angular_degree 3
fivebody_number_radial_basis_functions {n5}
fivebody_angular_degree {l5}
sixbody_number_radial_basis_functions {n6}
sixbody_angular_degree {l6}
sevenbody_number_radial_basis_functions {n6}
sevenbody_angular_degree {l6}
"""
DATA = """\
file_format extxyz
file_extension xyz
path_to_training_data_set train
path_to_test_data_set train
fitting_weight_energy {energy}
fitting_weight_force {force}
fitting_regularization_parameter 1e-10
precision_for_pod_coefficients 16
error_analysis_for_training_data_set 0
error_analysis_for_test_data_set 0
basename_for_output_files fit
"""
SCRIPT = "units metal\nfitpod param.pod data.pod\n"


@dataclass(frozen=True, kw_only=True)
class Range:
    """Distances between which neighbours count, Å: inner and outer cutoff."""

    inner: float
    outer: float


def shortest(atoms: Atoms) -> float:
    """Shortest distance between two atoms, Å; infinite beyond :data:`REACH_A`."""
    return float(np.min(neighbour_list("d", atoms, REACH_A), initial=np.inf))


def range_of(frames: Sequence[Atoms]) -> Range:
    """Cutoffs that suit the distances in `frames`.

    Raises
    ------
    InputError
        When atoms have no neighbours.
    """
    distances = [neighbour_list("d", atoms, REACH_A) for atoms in frames]
    near = np.sort(np.concatenate(distances))
    count = NEIGHBOURS * sum(len(atoms) for atoms in frames)
    if not len(near):
        raise InputError(f"no two atoms of these frames are within {REACH_A:g} Å: there is nothing to learn from")
    outer = float(near[count]) if count < len(near) else REACH_A
    return Range(inner=INNER * float(near[0]), outer=outer)


def fit_pod(frames: Sequence[Atoms], folder: Path, *, name: str) -> PODPotential:
    """Fit to the energies and forces of frames, in `folder` (made if missing), where LAMMPS' log stays.

    The expansion grows fast with the number of elements: five- to seven-body terms are products of the three- and
    four-body ones, free of cost in MD, and left out from three elements on, where the fit would take minutes.

    Raises
    ------
    AldriverError
        With LAMMPS' words when it fails, or the fit gave no finite number.
    """
    (folder / "train").mkdir(parents=True, exist_ok=True)
    species = sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})
    within = range_of(frames)
    many = {1: (12, 4, 3, 4, 2), 2: (8, 3, 2, 0, 0)}.get(len(species), (6, 0, 0, 0, 0))
    numbers = dict(zip(("n3", "n5", "l5", "n6", "l6"), many, strict=True))
    param = PARAM.format(species=" ".join(species), rin=within.inner, rcut=within.outer, **numbers)
    (folder / "param.pod").write_text(param)
    (folder / "data.pod").write_text(DATA.format(energy=ENERGY_WEIGHT, force=FORCE_WEIGHT))
    (folder / "in.fit").write_text(SCRIPT)
    with (folder / "train" / "frames.xyz").open("w") as handle:
        for atoms in frames:
            handle.write(_extxyz(atoms))
    coefficients = folder / "fit_coefficients.pod"
    coefficients.unlink(missing_ok=True)
    run_lmp("in.fit", folder)
    if not coefficients.is_file() or "nan" in coefficients.read_text():
        raise AldriverError(f"fitpod found no coefficients from {len(frames)} frames; its log is {folder}/log.lammps")
    return PODPotential(folder / "param.pod", coefficients, name=name)


def _extxyz(atoms: Atoms) -> str:
    """A frame as fitpod reads it: wrapped, with a stress in the comment line (it looks for one, and uses none)."""
    cell = " ".join(f"{x:.10f}" for x in np.asarray(atoms.cell).ravel())
    comment = f'Lattice="{cell}" energy={label_of(atoms, "energy"):.10f} stress="{" ".join(["0.0"] * 9)}" '
    lines = [str(len(atoms)), comment + 'Properties=species:S:1:pos:R:3:forces:R:3 pbc="T T T"']
    rows = np.hstack([atoms.get_positions(wrap=True), label_of(atoms, "forces")])
    for symbol, row in zip(atoms.get_chemical_symbols(), rows, strict=True):
        lines.append(symbol + "".join(f" {x:.10f}" for x in row))
    return "\n".join(lines) + "\n"
