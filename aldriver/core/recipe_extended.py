"""Options of the properties of extended defects, of surfaces, and of tests on frames, in the ``benchmark`` block."""

from __future__ import annotations

from pydantic import Field

from aldriver.core.section import Positive, Section


class StackingFault(Section):
    """Energies of faults within a plane."""

    thickness_A: Positive = Field(default=24.0, description="least height of the crystal above a fault")
    intervals: int = Field(default=10, ge=4, le=100, description="steps from one end of the path to the other")


class Traction(Section):
    """Stress needed to open a crystal along a plane."""

    thickness_A: Positive = Field(default=24.0, description="least height of the crystal between two openings")
    step_A: Positive = Field(default=0.1, description="between two openings")
    largest_A: Positive = Field(default=4.0, description="the widest opening")
