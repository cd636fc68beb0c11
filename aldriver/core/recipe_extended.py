"""Options of the properties of extended defects, of surfaces, and of tests on frames, in the ``benchmark`` block."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from aldriver.core.section import Element, Positive, Section


class StackingFault(Section):
    """Energies of faults within a plane."""

    thickness_A: Positive = Field(default=24.0, description="least height of the crystal above a fault")
    intervals: int = Field(default=10, ge=4, le=100, description="steps from one end of the path to the other")


class Traction(Section):
    """Stress needed to open a crystal along a plane."""

    thickness_A: Positive = Field(default=24.0, description="least height of the crystal between two openings")
    step_A: Positive = Field(default=0.1, description="between two openings")
    largest_A: Positive = Field(default=4.0, description="the widest opening")


class Errors(Section):
    """Errors on labelled frames."""

    frames: dict[str, Path] = Field(
        default_factory=dict, description="case: file of labelled frames that nothing is trained on"
    )


class Forgetting(Section):
    """Drift from the potential a refined one started from."""

    foundation: str | None = Field(default=None, description="the potential it was refined from, as in `potential`")
    exclude: list[Element] = Field(
        default_factory=list, description="elements, besides the case's own, whose energies are meant to change"
    )


class Speed(Section):
    """Steps of molecular dynamics a second."""

    duration_s: Positive = Field(default=4.0, description="time it is measured for, s")


class Adsorption(Section):
    """Dissociation of a hydrogen molecule on facets."""

    facets: list[Literal["111", "100", "110"]] = Field(default=["111", "100", "110"], min_length=1)
    layers: int = Field(default=4, ge=2, description="of the slab; the lower half is held")
    repeats: int = Field(default=2, ge=2, description="of the surface's repeat unit, both ways")
    images: int = Field(default=7, ge=3, description="of the band between its ends")


class Dislocation(Section):
    """Peierls barriers of bcc metals."""

    kinds: list[Literal["screw", "edge"]] = Field(
        default=["screw", "edge"], min_length=1, description="½⟨111⟩ screw, ⟨100⟩{010} edge"
    )
    radius_A: float = Field(default=45.0, gt=14.0, description="of the cylinder; its outer 10 Å are held")
    images: int = Field(default=11, ge=3, description="of the band between two valleys")
