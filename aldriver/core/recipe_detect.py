"""The ``detect`` block of the recipe: which frames count as extrapolation, and what is promised of the rest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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


class LastLayer(Section):
    """Uncertainty of the last layer of the network (CHGNet, MACE)."""

    heads: int = Field(
        default=0, ge=0, description="0: exact variance of the forces; K: that of K sampled last layers, cheaper"
    )
    frames: int = Field(default=50, ge=1, description="at most so many training frames enter its covariance")


Signal = Literal[
    "soap_q",
    "soap_t2",
    "feature_q",
    "feature_t2",
    "feature_distance",
    "feature_neighbour",
    "last_layer",
    "committee",
]


class Detect(Section):
    """Which frames count as extrapolation."""

    signals: list[Signal] = Field(default=["feature_distance"], min_length=1)
    soap: Soap = Soap()
    components: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = Field(
        default=5, description="PCA components per element; a fraction keeps as many as explain that much variance"
    )
    last_layer: LastLayer = LastLayer()
    committee: int = Field(
        default=3, ge=2, description="signal `committee`: potentials refined beside each other, with different seeds"
    )
    score: Literal["fused"] | Signal = Field(
        default="fused", description="what is compared with the threshold: all signals together, or one of them"
    )
    error: Literal["rms", "max"] = Field(
        default="rms", description="force error of a frame: root mean square over its atoms, or the largest"
    )
    tolerance_meV_A: Positive = Field(default=100.0, description="force error of a frame that you tolerate")
    miss_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="share of the frames above the tolerance that may go unnoticed"
    )
    upper: Annotated[float, Field(gt=1)] = Field(
        default=50.0,
        description="a score beyond this, in units of the largest one seen in calibration, is unphysical: the frame is "
        "not labelled",
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95,
        description="of a first detector, while there are no labels: threshold = this quantile of the scores of "
        "held-out frames",
    )

    @model_validator(mode="after")
    def _score_is_measured(self) -> Detect:
        if self.score != "fused" and self.score not in self.signals:
            raise ValueError(f"score '{self.score}' is not among the signals ({', '.join(self.signals)})")
        return self

    def without_committee(self) -> Detect:
        """For a potential that has no committee (the foundation): the other signals."""
        left = [s for s in self.signals if s != "committee"]
        return self.model_copy(update={"signals": left, "score": "fused" if self.score == "committee" else self.score})

    def wants(self, kind: str) -> bool:
        """Whether a signal of that kind (``soap``, ``feature``, ``last_layer``, ``committee``) is asked for."""
        return any(signal.startswith(kind) for signal in self.signals)
