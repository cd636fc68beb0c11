"""The MD protocol: ensemble, targets, time step and length of a walker. Integrating it is the engines' business."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aldriver.core.errors import InputError

Ensemble = Literal["nve", "nvt", "npt"]
Flexible = Literal["iso", "aniso", "tri"]


@dataclass(frozen=True, kw_only=True)
class MDProtocol:
    """What one walker does.

    Attributes
    ----------
    ensemble
        ``nve`` (velocity Verlet), ``nvt`` (Nosé–Hoover chain) or ``npt`` (Martyna–Tobias–Klein).
    temperature_K
        Target of the thermostat, and of the initial Maxwell–Boltzmann velocities (also in ``nve``).
    pressure_GPa
        External hydrostatic pressure, compression positive (``npt``).
    steps, timestep_fs, sample_every
        Length, time step (fs) and steps between sampled frames.
    seed
        Of the initial velocities.
    flexible
        ``npt``: ``iso`` keeps the shape, ``aniso`` lets the three lengths move, ``tri`` the whole cell.
    tdamp_fs, pdamp_fs
        Periods of thermostat and barostat, fs; default 100 and 1000 time steps.
    rescale
        Scale momenta that the frame already carries to `temperature_K` (default: use them as they are).

    Raises
    ------
    InputError
        When a value makes no sense, naming it.
    """

    ensemble: Ensemble = "nvt"
    temperature_K: float = 300.0
    pressure_GPa: float = 0.0
    steps: int = 1000
    timestep_fs: float = 1.0
    sample_every: int = 10
    seed: int = 0
    flexible: Flexible = "iso"
    tdamp_fs: float | None = None
    pdamp_fs: float | None = None
    rescale: bool = False

    def __post_init__(self) -> None:
        _one_of("ensemble", self.ensemble, ("nve", "nvt", "npt"))
        _one_of("flexible", self.flexible, ("iso", "aniso", "tri"))
        for name in ("temperature_K", "timestep_fs", "tdamp_fs", "pdamp_fs"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"MD protocol: {name} must be a positive number (got {value!r})")
        if not math.isfinite(self.pressure_GPa):
            raise InputError(f"MD protocol: pressure_GPa must be a number (got {self.pressure_GPa!r})")
        for name in ("steps", "sample_every"):
            if getattr(self, name) < 1:
                raise InputError(f"MD protocol: {name} must be at least 1 (got {getattr(self, name)!r})")
        if self.sample_every > self.steps:
            raise InputError(
                f"MD protocol: sample_every ({self.sample_every}) is larger than steps ({self.steps}): no frame is seen"
            )

    @property
    def thermostat_fs(self) -> float:
        """Period of the thermostat, fs."""
        return 100.0 * self.timestep_fs if self.tdamp_fs is None else self.tdamp_fs

    @property
    def barostat_fs(self) -> float:
        """Period of the barostat, fs."""
        return 1000.0 * self.timestep_fs if self.pdamp_fs is None else self.pdamp_fs

    def is_sampled(self, step: int) -> bool:
        """Whether the frame after `step` steps is sampled."""
        return step % self.sample_every == 0 or step == self.steps

    def to_json(self) -> dict[str, Any]:
        """Plain types, for records."""
        return asdict(self)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"MD protocol: {name} '{value}' is not one of {', '.join(allowed)}")
