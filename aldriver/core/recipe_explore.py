"""The ``explore`` block of the recipe: the molecular dynamics of the walkers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from aldriver.core.section import Element, Positive, Section

Strain = Literal["xx", "yy", "zz", "yz", "xz", "xy"]


class Health(Section):
    """Limits outside which a walker has left physics (it ends there; the frames before are kept)."""

    max_temperature_K: Positive = 10000.0
    min_distance: Positive = Field(
        default=0.6, description="shortest distance, as a fraction of the covalent-radii sum"
    )
    max_energy_jump_eV_atom: Positive = Field(default=1.0, description="jump of the potential energy between samples")
    max_force_eV_A: Positive = 100.0


class Swaps(Section):
    """Monte Carlo swaps of unlike atoms between MD steps."""

    pairs: list[tuple[Element, Element]] = Field(min_length=1, description="elements whose atoms change places")
    every: int = Field(default=100, ge=1, description="steps between attempts")
    attempts: int = Field(default=1, ge=1, description="attempts each time; each costs one evaluation")

    @model_validator(mode="after")
    def _unlike(self) -> Swaps:
        for a, b in self.pairs:
            if a == b:
                raise ValueError(f"a pair needs two different elements (got {a}, {b})")
        return self


class Explore(Section):
    """MD with the current potential: one walker per system × temperature × strain."""

    engine: Literal["lammps", "ase"] = "lammps"
    precision: Literal["float32", "float64"] = Field(
        default="float32",
        description="of networks; `float32` is checked against `float64` at the start of each walker, and MACE runs "
        "in symmetrix where that is installed and agrees",
    )
    ensemble: Literal["nve", "nvt", "npt"] = "nvt"
    thermostat: Literal["nose-hoover", "langevin"] = Field(
        default="nose-hoover", description="a Nosé–Hoover chain, or Langevin (for few atoms and stiff crystals)"
    )
    temperatures_K: list[Positive] = Field(default=[300.0], min_length=1)
    temperature_end_K: Positive | None = Field(
        default=None, description="each walker heats or cools linearly to this; empty = it stays"
    )
    tdamp_fs: Positive | None = Field(
        default=None, description="period of the thermostat, or relaxation time of Langevin; empty = 100 time steps"
    )
    pressure_GPa: float = 0.0
    pressure_end_GPa: float | None = Field(
        default=None, description="the pressure goes there linearly; empty = it stays"
    )
    pdamp_fs: Positive | None = Field(default=None, description="period of the barostat; empty = 1000 time steps")
    flexible: Literal["iso", "aniso", "tri"] = Field(
        default="iso", description="npt: the volume, the three lengths, or the whole cell may move"
    )
    strains: list[Annotated[float, Field(gt=-0.3, lt=0.5)]] = Field(
        default=[0.0], min_length=1, description="isotropic strains of the starting cell"
    )
    rattle_A: Annotated[float, Field(ge=0, le=0.5)] = Field(default=0.0, description="random displacement of the start")
    deform_per_ps: dict[Strain, float] = Field(
        default_factory=dict,
        description="strain: rate of the cell's deformation, `xx` to `xy`, with the first cell vector along x and the "
        "second in the xy plane; with `npt` and `aniso` the other lengths follow the pressure",
    )
    swaps: Swaps | None = Field(default=None, description="Monte Carlo swaps of unlike atoms (`nvt`, `npt`)")
    steps: int = Field(default=1000, ge=1)
    timestep_fs: Annotated[float, Field(gt=0, le=10)] = 1.0
    sample_every: int = Field(default=10, ge=1, description="steps between scored frames")
    checkpoint_every: int = Field(
        default=10, ge=1, description="samples between checkpoints, from which a killed walker goes on exactly"
    )
    thermo_every: int = Field(
        default=0, ge=0, description="steps between lines of `log.lammps` (0: only where frames are sampled)"
    )
    dump_every: int = Field(default=0, ge=0, description="steps between frames of a LAMMPS dump (0: no dump)")
    dump_gz: bool = Field(default=False, description="compress the dump")
    lammps_input: Path | None = Field(
        default=None,
        description="your version of `lammps_inputs/in.walker`, relative to the recipe; empty = aldriver's own",
    )
    continue_walkers: bool = Field(default=True, description="start from the last frame of the previous generation")
    health: Health = Health()

    @model_validator(mode="after")
    def _samples(self) -> Explore:
        if self.sample_every > self.steps:
            raise ValueError(
                f"sample_every ({self.sample_every}) is larger than steps ({self.steps}): no frame is seen"
            )
        return self

    @model_validator(mode="after")
    def _possible(self) -> Explore:
        if self.temperature_end_K is not None and self.ensemble == "nve":
            raise ValueError("temperature_end_K needs a thermostat: ensemble nvt or npt")
        if self.pressure_end_GPa is not None and self.ensemble != "npt":
            raise ValueError("pressure_end_GPa needs a barostat: ensemble npt")
        if self.deform_per_ps and self.ensemble == "npt" and self.flexible != "aniso":
            raise ValueError("deform_per_ps with ensemble npt needs flexible: aniso")
        if self.swaps is not None and (self.ensemble == "nve" or self.deform_per_ps):
            raise ValueError("swaps need a temperature (ensemble nvt or npt) and a cell nobody deforms")
        return self
