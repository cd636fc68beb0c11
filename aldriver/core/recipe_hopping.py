"""What the benchmark's barriers and interstitials cover. How they are computed: ``aldriver/benchmark``."""

from __future__ import annotations

from pydantic import Field, field_validator

from aldriver.core.section import Element, Positive, Section


class Hopping(Section):
    """The band between two relaxed cells."""

    images: int = Field(default=5, ge=1, le=21, description="images between the ends, an odd number")
    fmax_eV_A: Positive = Field(default=0.02, description="largest force on the band when it is converged")
    max_steps: int = Field(default=200, ge=1, description="steps after which it counts as not converged")

    @field_validator("images")
    @classmethod
    def _odd(cls, images: int) -> int:
        if images % 2 == 0:
            raise ValueError("give an odd number of images: the middle of a symmetric path is then one of them")
        return images


class Migration(Hopping):
    """Vacancy migration."""


class Interstitial(Hopping):
    """Interstitial solutes."""

    elements: list[Element] = Field(default=["C", "N", "O"], min_length=1, description="solutes")

    @field_validator("elements")
    @classmethod
    def _once(cls, elements: list[str]) -> list[str]:
        return list(dict.fromkeys(elements))
