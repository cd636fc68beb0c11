"""The ``export`` block of the recipe: when a native surrogate of the final potential is fit for use."""

from __future__ import annotations

from pydantic import Field

from aldriver.core.section import Positive, Section


class Surrogate(Section):
    """The ML-POD potential that ``aldriver export`` distils from a campaign's potential."""

    frames: int = Field(default=400, ge=20, description="configurations it learns from, labelled by the potential")
    max_force_ratio: Positive = Field(
        default=2.0, description="its force error may be this many times the potential's own, on the labelled frames"
    )
    max_force_rmse_meV_A: Positive | None = Field(
        default=None, description="an absolute limit instead, in place of `max_force_ratio`"
    )


class Export(Section):
    """What ``aldriver export`` makes of the promoted potential."""

    surrogate: Surrogate = Surrogate()
