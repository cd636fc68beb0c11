"""Options of the thermal properties of the benchmark: phonons, the quasi-harmonic approximation, and MD."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from aldriver.core.section import Element, Positive, Section

Repeats = tuple[int, int, int]


class Phonon(Section):
    """Phonons by finite displacements."""

    supercell: Repeats | None = Field(
        default=None,
        description="repeats of the conventional cell; default 4×4×4, diamond 2×2×2, hcp 6×6×2",
    )
    displacement_A: Positive = Field(default=0.03, description="of the one atom that is moved")
    mesh: int = Field(default=20, ge=2, description="q-points along each axis, for the density of states")


FEWEST_STEPS = 400
"""Of MD whose mean is taken: 20 samples."""
FEWEST_HEATED = 40
"""Steps of MD that is watched: 2 samples."""


class Qha(Phonon):
    """The quasi-harmonic approximation: phonons at several volumes."""

    volumes: int = Field(default=11, ge=6, description="how many, evenly spaced")
    smallest: Positive = Field(default=0.95, lt=1, description="volume over that at rest")
    largest: float = Field(default=1.09, gt=1, description="volume over that at rest")
    temperature_K: Positive = Field(default=300.0, description="of thermal expansion and heat capacity")
    free_energies_K: list[float] = Field(default=[0.0, 300.0, 1000.0], description="temperatures of the free energies")

    @field_validator("free_energies_K")
    @classmethod
    def _not_negative(cls, values: list[float]) -> list[float]:
        if any(t < 0 for t in values):
            raise ValueError("free_energies_K: a temperature is not negative")
        return values


class Liquid(Section):
    """A liquid by MD: a crystal is melted, brought to its temperature, and sampled, at zero pressure."""

    temperature_K: Positive = Field(default=2000.0, description="of the liquid")
    melt_K: Positive | None = Field(default=None, description="at which the crystal is melted; default twice as hot")
    composition: dict[Element, Positive] = Field(
        default_factory=dict, description="parts of each element, put on random sites; default the element of the case"
    )
    structures: dict[str, Path] = Field(
        default_factory=dict, description="case: file with what is melted in place of its crystal, of any composition"
    )
    supercell: Repeats | None = Field(
        default=None, description="of the conventional cell, default that of the case; of a file, default 1×1×1"
    )
    steps: int = Field(default=20_000, ge=800, description="sampled; fewer give no diffusion")
    equilibration: int = Field(default=5_000, ge=20, description="steps at the temperature before, and at most to melt")
    timestep_fs: Positive = Field(default=2.0, description="of the MD")
    seed: int = Field(default=0, description="of velocities, heat bath and sites")

    @model_validator(mode="after")
    def _one_composition(self) -> Liquid:
        if self.composition and self.structures:
            raise ValueError("give composition or structures, not both: a file has its own composition")
        return self


class Melting(Section):
    """Heating of a crystal at zero pressure until it is one no more."""

    start_K: Positive = Field(default=300.0, description="where heating begins")
    end_K: Positive = Field(default=4000.0, description="where it ends at the latest")
    rate_K_per_ps: Positive = Field(default=100.0, description="of heating")
    supercell: Repeats | None = Field(default=None, description="of the conventional cell; default that of the case")
    timestep_fs: Positive = Field(default=2.0, description="of the MD")
    seed: int = Field(default=0, description="of velocities and heat bath")

    @model_validator(mode="after")
    def _upwards(self) -> Melting:
        if self.end_K <= self.start_K:
            raise ValueError("end_K: must be above start_K")
        steps = (self.end_K - self.start_K) / self.rate_K_per_ps * 1000 / self.timestep_fs
        if steps < FEWEST_HEATED:
            raise ValueError(f"rate_K_per_ps: the heating takes {steps:.0f} steps, and needs {FEWEST_HEATED}")
        return self


class ThermalMd(Section):
    """Volume and enthalpy by MD at several temperatures."""

    temperatures_K: list[Positive] = Field(
        default=[200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 1000.0],
        min_length=3,
        description="ascending; one run each",
    )
    temperature_K: Positive = Field(default=300.0, description="of thermal expansion and heat capacity")
    supercell: Repeats | None = Field(
        default=None, description="of the conventional cell; default 432 atoms of bcc, 450 to 512 of others"
    )
    steps: int = Field(default=100_000, ge=FEWEST_STEPS, description="of each run")
    equilibration: float = Field(default=0.2, ge=0, lt=0.9, description="part of each run that is left out")
    timestep_fs: Positive = Field(default=1.0, description="of the MD")
    seed: int = Field(default=0, description="of velocities and heat bath")

    @model_validator(mode="after")
    def _inside(self) -> ThermalMd:
        t = self.temperatures_K
        if sorted(set(t)) != t or not t[0] <= self.temperature_K <= t[-1]:
            raise ValueError("temperatures_K: must ascend, and temperature_K must lie between the first and the last")
        kept = (1 - self.equilibration) * self.steps
        if round(kept) < FEWEST_STEPS:
            raise ValueError(f"steps: {kept:.0f} are left after the equilibration, and {FEWEST_STEPS} are needed")
        return self
