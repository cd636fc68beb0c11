"""Options of the thermal properties of the benchmark: phonons, the quasi-harmonic approximation, and MD."""

from __future__ import annotations

from pydantic import Field, field_validator

from aldriver.core.section import Positive, Section

Repeats = tuple[int, int, int]


class Phonon(Section):
    """Phonons by finite displacements."""

    supercell: Repeats | None = Field(
        default=None,
        description="repeats of the conventional cell; default 4×4×4, diamond 2×2×2, hcp 6×6×2",
    )
    displacement_A: Positive = Field(default=0.01, description="of the one atom that is moved")
    mesh: int = Field(default=20, ge=1, description="q-points along each axis, for the density of states")


class Qha(Phonon):
    """The quasi-harmonic approximation: phonons at several volumes."""

    volumes: int = Field(default=11, ge=6, description="how many, evenly spaced")
    smallest: Positive = Field(default=0.95, lt=1, description="volume over that at rest")
    largest: Positive = Field(default=1.09, gt=1, description="volume over that at rest")
    temperature_K: Positive = Field(default=300.0, description="of thermal expansion and heat capacity")
    free_energies_K: list[float] = Field(default=[0.0, 300.0, 1000.0], description="temperatures of the free energies")

    @field_validator("free_energies_K")
    @classmethod
    def _not_negative(cls, values: list[float]) -> list[float]:
        if any(t < 0 for t in values):
            raise ValueError("free_energies_K: a temperature is not negative")
        return values
