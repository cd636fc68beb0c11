"""Recipe sections of the label engines GPAW, CP2K and ASE calculators. What an engine does with them is ``label/``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from aldriver.core.section import Element, Positive, Section

GRID = "k-point grid, frozen for the campaign; Γ alone when neither it nor `kspacing_per_A` is given"
SPACING = (
    "k-points at most this far apart (with the factor 2π): chosen by each cell, so that cells of unlike size are "
    "sampled alike; with `kpoints` it is a check: a cell that the frozen grid samples worse gets no label"
)

VERSION = (
    "e.g. '{example}' (quoted): labels by another are refused, and no host needs the code to look a label up; without "
    "it {hash} is part of each label's key"
)
STEPS = "SCF steps after which a label counts as unconverged"


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what JSON cannot hold: the calculator is made in another process."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"only numbers, text, lists and mappings can be given to a calculator ({error})") from error
    return value


def _positive(grid: tuple[int, int, int]) -> tuple[int, int, int]:
    if min(grid) < 1:
        raise ValueError("a k-point grid needs at least 1 point along each vector")
    return grid


Grid = Annotated[tuple[int, int, int], AfterValidator(_positive)]


class Gpaw(Section):
    """GPAW settings of a label: plane waves and the PAW data sets of ``gpaw-data``."""

    command: str | None = Field(
        default=None,
        description="how a Python that has GPAW is started, e.g. `mpirun -np 4 gpaw python`; default: "
        "aldriver's own if it has it, else that of `make setup-gpaw`",
    )
    version: str | None = Field(
        default=None,
        description=VERSION.format(example="26.7.0", hash="the installed version with the hashes of its data sets"),
    )
    xc: str = Field(default="PBE", description="exchange–correlation functional, as GPAW calls it")
    ecut_eV: Positive = Field(description="plane-wave cutoff; oxygen needs 600 for forces, 800 for stresses")
    kpoints: Grid | None = Field(default=None, description=GRID)
    kspacing_per_A: Positive | None = Field(default=None, description=SPACING)
    smearing: Literal["none", "fermi-dirac", "marzari-vanderbilt", "methfessel-paxton"] = Field(
        default="fermi-dirac", description="smearing of the occupations"
    )
    width_eV: Positive = Field(default=0.1, description="width of the smearing")
    spin: bool = Field(default=False, description="spin-polarised calculation")
    starting_moments_muB: dict[Element, float] = Field(
        default_factory=dict, description="element: starting moment, with `spin`"
    )
    setups: dict[Element, str] = Field(
        default_factory=dict,
        description="element: another PAW data set than the default, or a Hubbard U, e.g. `Co: ':d,5.76'`",
    )
    density_tol: Positive = Field(default=1e-6, description="SCF criterion: change of the density per valence electron")
    max_scf_steps: int = Field(default=150, ge=1, description=STEPS)


class Cp2k(Section):
    """CP2K settings of a label: Gaussians and plane waves (Quickstep), closed shells."""

    command: str = Field(default="cp2k.psmp", description="how CP2K is started, e.g. `mpirun -np 8 cp2k.psmp`")
    version: str | None = Field(default=None, description=VERSION.format(example="2024.1", hash="a hash of the binary"))
    basis: dict[Element, str] = Field(description="element: basis set, e.g. `O: DZVP-MOLOPT-SR-GTH`")
    potential: dict[Element, str] = Field(description="element: pseudopotential, e.g. `O: GTH-PBE-q6`")
    basis_file: str = Field(default="BASIS_MOLOPT", description="file of the basis sets")
    potential_file: str = Field(default="GTH_POTENTIALS", description="file of the pseudopotentials")
    data_dir: Path | None = Field(default=None, description="folder of these files; default: CP2K's own")
    functional: Literal["PBE", "BLYP", "PADE"] = Field(default="PBE", description="of CP2K; `PADE` is LDA")
    dispersion: bool = Field(default=False, description="add Grimme's D3 with Becke–Johnson damping")
    cutoff_Ry: Positive = Field(description="cutoff of the finest grid; clean forces of oxygen need above 300")
    rel_cutoff_Ry: Positive = Field(default=60.0, description="cutoff that decides which grid a Gaussian lies on")
    kpoints: Grid | None = Field(default=None, description=GRID)
    kspacing_per_A: Positive | None = Field(default=None, description=SPACING)
    temperature_K: Positive | None = Field(
        default=None,
        description="electronic temperature (Fermi–Dirac, diagonalisation); without it the orbital transformation is "
        "used where only Γ is sampled, which needs a gap",
    )
    eps_scf: Positive = Field(default=1e-6, description="convergence threshold of the SCF")
    max_scf_steps: int = Field(default=100, ge=1, description=STEPS)


class Ase(Section):
    """Any ASE calculator."""

    calculator: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="`module:Class`, e.g. `tblite.ase:TBLite`"
    )
    arguments: Annotated[dict[str, Any], AfterValidator(_plain)] = Field(
        default_factory=dict, description="keyword arguments of the class"
    )
    level: str | None = Field(
        default=None, description="level of theory, e.g. `GFN1-xTB`; a label of a calculator without one is a stand-in"
    )
    trusted: list[str] = Field(
        default_factory=list, description="packages beyond the known ones that the calculator may be imported from"
    )
    starting_moments_muB: dict[Element, float] = Field(
        default_factory=dict, description="element: starting moment; without it none is given to the calculator"
    )
    command: str | None = Field(
        default=None, description="how a Python that has the calculator is started; default: aldriver's own"
    )
    version: str | None = Field(
        default=None, description="of the package: " + VERSION.format(example="0.5.0", hash="the installed one")
    )
