"""Options of the thermal properties of the benchmark: phonons, the quasi-harmonic approximation, and MD."""

from __future__ import annotations

from pydantic import Field

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
