"""The ``train`` block of the recipe: how the potential is refined, and what it must not lose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from aldriver.core.section import Element, Positive, Section


class LossWeights(Section):
    """Weights of the Huber terms."""

    energy: Annotated[float, Field(ge=0)] = 3.0
    forces: Annotated[float, Field(ge=0)] = 1.0
    stress: Annotated[float, Field(ge=0)] = 0.1
    magmoms: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="where the family has moments (CHGNet) and the labels carry them"
    )


Strategy = Literal[
    "zero-shot",
    "scratch",
    "naive",
    "model-1",
    "model-2",
    "model-3",
    "model-4",
    "model-5",
    "model-6",
    "conv-only",
    "f0",
    "f4",
    "f5",
    "f6",
    "lora",
    "delta",
]


class Replay(Section):
    """General knowledge kept in the loss."""

    source: Literal["auto", "none", "self"] | Path = Field(
        default="auto",
        description="`self`: near-equilibrium cells labelled by the foundation itself; `auto`: those, where the start "
        "knows any and `strategy` is not `scratch`; or a labelled extended XYZ file",
    )
    weight: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="of the replayed frames' loss, beside that of the new frames"
    )
    per_step: int = Field(default=6, ge=1, description="replayed frames in every step")
    elements: list[Element] = Field(
        default_factory=list,
        description="`self`: besides the campaign's; empty = their neighbours in the periodic table",
    )
    heads: Literal["shared", "separate"] = Field(
        default="shared", description="`separate`: multihead replay, the foundation keeps its own head (MACE only)"
    )


class Lora(Section):
    """Low-rank adaptation (Hu et al., ICLR 2022)."""

    rank: int = Field(default=4, ge=1)
    alpha: Positive = Field(default=4.0, description="the update is alpha/rank · B A")


class Delta(Section):
    """Δ-learning: the foundation stays, a small network learns what is missing."""

    family: Literal["mace", "chgnet"] = "mace"
    channels: int = Field(default=16, ge=1)
    cutoff_A: Positive = 5.0


class Guard(Section):
    """What a refined potential must not lose; one that fails is refused and the next of `fallbacks` is tried."""

    max_drift_meV_atom: Positive | None = Field(
        default=None,
        description="RMS change of the energy on a fixed set of general cells, against the foundation",
    )
    general: Path | None = Field(
        default=None, description="labelled general frames (extended XYZ), relative to the recipe"
    )
    max_general_ratio: Positive = Field(default=1.5, description="energy RMSE on `general` over that of the foundation")


class Attempt(Section):
    """A strategy to try when a guard refuses what came before; keys that are left out are those of `train`."""

    strategy: Strategy
    learning_rate: Positive | None = None
    epochs: int | None = Field(default=None, ge=1)
    replay: Replay | None = None


class Train(Section):
    """How the potential is refined."""

    strategy: Strategy = "naive"
    start: Literal["foundation", "previous"] = "foundation"
    epochs: int = Field(default=30, ge=1)
    learning_rate: Positive = 1e-3
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many epochs without a better validation loss; empty = never"
    )
    batch_size: int = Field(default=4, ge=1)
    weights: LossWeights = LossWeights()
    huber_delta: Positive = 0.1
    clip_norm: Positive = 10.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    dtype: Literal["float32", "float64"] = "float32"
    readout: Literal["frozen", "trainable"] = Field(
        default="frozen", description="model-1 to model-5: what the table of the paper leaves open (the energy readout)"
    )
    replay: Replay = Replay()
    ewc: Annotated[float, Field(ge=0)] = Field(
        default=0.2,
        description="elastic weight consolidation (Kirkpatrick et al. 2017), not for scratch and delta; 0 = off",
    )
    lora: Lora = Lora()
    delta: Delta = Delta()
    proxies: dict[Element, Element] = Field(
        default_factory=dict, description="unseen element: element whose embedding it starts from (DIPI)"
    )
    guard: Guard = Guard()
    fallbacks: list[Attempt] = Field(default_factory=list, description="tried in turn when a guard refuses the result")
    valid_fraction: Annotated[float, Field(gt=0, lt=0.9)] = 0.15
    e0_shift: Literal["auto", "never", "always", "isolated"] = Field(
        default="auto",
        description="shift of reference energies onto the potential's: least squares, or by `isolated` atoms",
    )
    isolated_atoms_eV: dict[Element, float] = Field(
        default_factory=dict, description="e0_shift isolated: energy of each isolated atom in the reference method"
    )
    memory_limit_GB: Positive = Field(default=4.0, description="the batch is cut until training fits")
