"""The MD protocol: ensemble, targets, ramps, time step, length of a walker. Integrating it is the engines' business."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from aldriver.core.errors import InputError

Ensemble = Literal["nve", "nvt", "npt"]
Flexible = Literal["iso", "aniso", "tri"]
Thermostat = Literal["nose-hoover", "langevin"]

STRAINS = ("xx", "yy", "zz", "yz", "xz", "xy")


@dataclass(frozen=True, kw_only=True)
class Swaps:
    """Metropolis swaps of unlike atoms: `attempts` every `every` steps, each of one of the `pairs` of elements."""

    pairs: tuple[tuple[str, str], ...]
    every: int = 100
    attempts: int = 1

    def __post_init__(self) -> None:
        if not self.pairs or any(len(p) != 2 or p[0] == p[1] for p in self.pairs):
            raise InputError(f"MD protocol: swaps need pairs of two different elements (got {list(self.pairs)})")
        for name in ("every", "attempts"):
            if getattr(self, name) < 1:
                raise InputError(f"MD protocol: swaps: {name} must be at least 1 (got {getattr(self, name)!r})")


@dataclass(frozen=True, kw_only=True)
class MDProtocol:
    """What one walker does.

    Attributes
    ----------
    ensemble
        ``nve`` (velocity Verlet), ``nvt`` or ``npt`` (barostat of Martyna, Tobias and Klein).
    thermostat
        ``nose-hoover`` (chain) or ``langevin`` (``langevin.py``), for ``nvt`` and ``npt``.
    temperature_K, temperature_end_K
        Target of the thermostat, and of the initial Maxwell–Boltzmann velocities (also in ``nve``); with an end it
        goes there linearly.
    pressure_GPa, pressure_end_GPa
        External hydrostatic pressure, compression positive (``npt``); with an end it goes there linearly.
    steps, timestep_fs, sample_every
        Length, time step (fs) and steps between sampled frames.
    seed
        Of the initial velocities, the Langevin thermostat and the swaps.
    flexible
        ``npt``: ``iso`` keeps the shape, ``aniso`` lets the three lengths move, ``tri`` the whole cell.
    deform_per_ps
        Engineering strain rates of the starting cell, 1/ps, keys ``xx`` ... ``xy``, in the frame in which the first
        cell vector lies along x and the second in the xy plane. With ``npt`` and ``aniso`` the barostat keeps the
        other lengths.
    swaps
        Swaps of unlike atoms between the steps (``swap.py``).
    tdamp_fs, pdamp_fs
        Periods of thermostat (Langevin: relaxation time) and barostat, fs; default 100 and 1000 time steps.
    rescale
        Scale momenta that the frame already carries to `temperature_K` (default: use them as they are).
    thermo_every, dump_every
        Steps between lines of LAMMPS' log and frames of its dump (0: none); both need an output folder.
    compress
        Write the dump through gzip.
    precision
        Of a network: ``float32`` is as fast as can be (``Potential.md_stepper``), ``float64`` continues exactly to
        the last digit; None takes the potential as it is.
    lammps_input
        Text that replaces ``commands.TEMPLATE`` (the lines of LAMMPS between making the atoms and the first step).

    Raises
    ------
    InputError
        When a value makes no sense, naming it.
    """

    ensemble: Ensemble = "nvt"
    thermostat: Thermostat = "nose-hoover"
    temperature_K: float = 300.0
    temperature_end_K: float | None = None
    pressure_GPa: float = 0.0
    pressure_end_GPa: float | None = None
    steps: int = 1000
    timestep_fs: float = 1.0
    sample_every: int = 10
    seed: int = 0
    flexible: Flexible = "iso"
    deform_per_ps: Mapping[str, float] = field(default_factory=dict)
    swaps: Swaps | None = None
    tdamp_fs: float | None = None
    pdamp_fs: float | None = None
    rescale: bool = False
    thermo_every: int = 0
    dump_every: int = 0
    compress: bool = False
    precision: str | None = None
    lammps_input: str | None = None

    def __post_init__(self) -> None:
        _one_of("ensemble", self.ensemble, ("nve", "nvt", "npt"))
        _one_of("flexible", self.flexible, ("iso", "aniso", "tri"))
        _one_of("precision", self.precision or "float32", ("float32", "float64"))
        _one_of("thermostat", self.thermostat, ("nose-hoover", "langevin"))
        for name in ("temperature_K", "temperature_end_K", "timestep_fs", "tdamp_fs", "pdamp_fs"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"MD protocol: {name} must be a positive number (got {value!r})")
        for name in ("pressure_GPa", "pressure_end_GPa"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"MD protocol: {name} must be a number (got {value!r})")
        for name, least in (("steps", 1), ("sample_every", 1), ("thermo_every", 0), ("dump_every", 0)):
            if getattr(self, name) < least:
                raise InputError(f"MD protocol: {name} must be at least {least} (got {getattr(self, name)!r})")
        if self.sample_every > self.steps:
            raise InputError(
                f"MD protocol: sample_every ({self.sample_every}) is larger than steps ({self.steps}): no frame is seen"
            )
        if isinstance(self.swaps, Mapping):
            pairs = tuple((str(a), str(b)) for a, b in self.swaps["pairs"])
            object.__setattr__(self, "swaps", Swaps(**{**self.swaps, "pairs": pairs}))
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.temperature_end_K is not None and self.ensemble == "nve":
            raise InputError("MD protocol: temperature_end_K needs a thermostat: ensemble nvt or npt")
        if self.pressure_end_GPa is not None and self.ensemble != "npt":
            raise InputError("MD protocol: pressure_end_GPa needs a barostat: ensemble npt")
        for name, rate in self.deform_per_ps.items():
            _one_of("deform_per_ps", name, STRAINS)
            if not math.isfinite(rate):
                raise InputError(f"MD protocol: deform_per_ps: {name} must be a number (got {rate!r})")
            if 1.0 + rate * self.steps * self.timestep_fs / 1000.0 <= 0.1 and name in STRAINS[:3]:
                raise InputError(f"MD protocol: deform_per_ps: {name} would close the cell within {self.steps} steps")
        if self.deform_per_ps and self.ensemble == "npt" and self.flexible != "aniso":
            raise InputError(
                "MD protocol: deform_per_ps with ensemble npt needs flexible: aniso "
                "(the barostat keeps the lengths that are not deformed)"
            )
        if self.swaps is not None and (self.ensemble == "nve" or self.deform_per_ps):
            raise InputError("MD protocol: swaps need a temperature (ensemble nvt or npt) and a cell nobody deforms")

    @property
    def langevin(self) -> bool:
        """Whether the Langevin thermostat runs."""
        return self.ensemble != "nve" and self.thermostat == "langevin"

    @property
    def thermostat_fs(self) -> float:
        """Period of the thermostat, fs."""
        return 100.0 * self.timestep_fs if self.tdamp_fs is None else self.tdamp_fs

    @property
    def barostat_fs(self) -> float:
        """Period of the barostat, fs."""
        return 1000.0 * self.timestep_fs if self.pdamp_fs is None else self.pdamp_fs

    @property
    def temperatures_K(self) -> tuple[float, float]:
        """Target at the start and at the end, K."""
        end = self.temperature_end_K
        return self.temperature_K, self.temperature_K if end is None else end

    @property
    def pressures_GPa(self) -> tuple[float, float]:
        """External pressure at the start and at the end, GPa."""
        end = self.pressure_end_GPa
        return self.pressure_GPa, self.pressure_GPa if end is None else end

    def target_K(self, step: int) -> float:
        """Target temperature at a step, K."""
        first, last = self.temperatures_K
        return first + (last - first) * step / self.steps

    def is_sampled(self, step: int) -> bool:
        """Whether the frame after `step` steps is sampled."""
        return step % self.sample_every == 0 or step == self.steps

    def to_json(self) -> dict[str, Any]:
        """Plain types, for records."""
        return asdict(self)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"MD protocol: {name} '{value}' is not one of {', '.join(allowed)}")
