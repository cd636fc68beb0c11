"""The ``detect`` block of the recipe: which frames count as extrapolation, and what is promised of the rest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from aldriver.core.section import Positive, Section


class Soap(Section):
    """SOAP descriptor (dscribe); defaults of Wong & Yang 2026."""

    r_cut: Positive = 5.0
    n_max: int = Field(default=8, ge=1)
    l_max: int = Field(default=6, ge=0)
    sigma: Positive = 0.375
    compression: Literal["auto", "off", "crossover"] = Field(
        default="auto",
        description="`off` keeps each pair of elements, `crossover` only pairs of the same element (columns grow "
        "linearly with the elements); `auto`: `off` up to three elements",
    )


Signal = Literal[
    "soap_q",
    "soap_t2",
    "feature_q",
    "feature_t2",
    "feature_distance",
    "feature_neighbour",
]


class Detect(Section):
    """Which frames count as extrapolation."""

    signals: list[Signal] = Field(default=["soap_q", "soap_t2", "feature_distance"], min_length=1)
    soap: Soap = Soap()
    components: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = Field(
        default=5, description="PCA components per element; a fraction keeps as many as explain that much variance"
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95,
        description="of a first detector, before there are labels: threshold = this quantile of the scores of held-out "
        "frames",
    )

    def wants(self, kind: str) -> bool:
        """Whether a signal of that kind (``soap``, ``feature``) is asked for."""
        return any(signal.startswith(kind) for signal in self.signals)
