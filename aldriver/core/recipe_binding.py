"""Blocks of the benchmark about solutes, surfaces and grain boundaries: ``benchmark.binding`` and its neighbours."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ase.data import atomic_numbers
from pydantic import AfterValidator, Field, field_validator, model_validator

from aldriver.core.section import Positive, Section, unique_names

VACANCY = "vac"
LARGEST_INDEX = 9
"""Of a plane: names are digits."""
LARGEST_SIGMA = 49


def _species(symbol: str) -> str:
    if symbol != VACANCY and (symbol not in atomic_numbers or symbol == "X"):
        raise ValueError(f"'{symbol}' is neither a chemical element nor '{VACANCY}', a vacancy")
    return symbol


Species = Annotated[str, AfterValidator(_species)]


class Binding(Section):
    """Pairs of substitutional solutes; a vacancy is the species ``vac``."""

    solutes: list[Species] = Field(default=[VACANCY], min_length=1, description="elements, and `vac` for a vacancy")
    shells: int = Field(default=5, ge=1, le=5, description="how many shells of neighbours, nearest first")

    @field_validator("solutes")
    @classmethod
    def _unique(cls, solutes: list[str]) -> list[str]:
        unique_names(solutes, "solutes")
        return solutes


Plane = tuple[int, int, int]


def miller(plane: Plane) -> str:
    """Miller indices as they are printed: ``110``, ``1-12``."""
    return "".join(str(k) for k in plane)


def _lattice_plane(plane: Plane) -> Plane:
    if math.gcd(*plane) != 1:
        raise ValueError(f"({miller(plane)}) is no lattice plane: its indices have a common divisor, or are all zero")
    if max(map(abs, plane)) > LARGEST_INDEX:
        raise ValueError(f"({miller(plane)}): indices go up to {LARGEST_INDEX}")
    return plane


class Surface(Section):
    """Faces of slabs."""

    planes: list[Annotated[Plane, AfterValidator(_lattice_plane)]] = Field(
        default=[(1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, 2)], min_length=1, description="Miller indices"
    )
    thickness_A: Positive = Field(default=20.0, description="of the slab, at least")
    vacuum_A: Positive = Field(default=10.0, description="between a slab and its image")

    @field_validator("planes")
    @classmethod
    def _unique(cls, planes: list[Plane]) -> list[Plane]:
        unique_names([miller(plane) for plane in planes], "planes")
        return planes


class KnownBoundary(Section):
    """A cell with grain boundaries from a file; the boundaries lie in the plane of its first two vectors."""

    name: str = Field(pattern=r"^[^(),]+$", description="as the value shows it in parentheses")
    file: Path = Field(description="a structure file")
    frame: int = Field(default=0, ge=0, description="which frame of the file")
    a: Positive = Field(description="lattice constant the cell was made with, Å")
    boundaries: int = Field(default=2, ge=1, description="how many it holds")


def _boundary_name(text: str) -> str:
    parse_boundary(text)
    return text


class GrainBoundary(Section):
    """Symmetric tilt and twist boundaries, and cells of one's own."""

    boundaries: list[Annotated[str, AfterValidator(_boundary_name)]] = Field(
        default=["S3 twist (110)", "S3 tilt (112)[1-10]", "S3 twist (111)", "S5 tilt (210)[001]", "S5 tilt (310)[001]",
                 "S5 twist (100)", "S7 tilt (1-32)[111]", "S7 twist (111)", "S9 tilt (221)[1-10]", "S9 twist (110)"],
        description="`S5 tilt (310)[001]`, `S5 twist (100)`",
    )  # fmt: skip
    structures: list[KnownBoundary] = Field(default_factory=list, description="cells of your own")
    thickness_A: Positive = Field(default=12.0, description="of each of the two grains, at least")
    shifts: int = Field(default=2, ge=1, le=6, description="starts along each vector of the plane, squared in all")

    @model_validator(mode="after")
    def _unique(self) -> GrainBoundary:
        unique_names([*self.boundaries, *(s.name for s in self.structures)], "grain boundaries")
        return self


@dataclass(frozen=True, kw_only=True)
class BoundaryName:
    """What ``S5 tilt (310)[001]`` says."""

    sigma: int
    kind: Literal["tilt", "twist"]
    plane: Plane


def parse_boundary(text: str) -> BoundaryName:
    """Read the name of a symmetric boundary.

    A symmetric tilt boundary on (hkl) joins a crystal to its mirror image, which is it turned by 180° about [hkl]: Σ is
    h² + k² + l², halved where that is even. A twist boundary turns it by 2 arctan(n √(h² + k² + l²)/m): Σ is the odd
    part of m² + n² (h² + k² + l²) (H. Grimmer, W. Bollmann, D. H. Warrington, Acta Cryst. A 30, 197 (1974)).

    Raises
    ------
    ValueError
        When it is no such name, or plane, axis and Σ do not go together.
    """
    match = re.fullmatch(r"S(\d+) (tilt|twist) \(((?:-?\d){3})\)(?:\[((?:-?\d){3})\])?", text)
    if match is None:
        raise ValueError(f"'{text}': a grain boundary is named as in 'S5 tilt (310)[001]' or 'S5 twist (100)'")
    sigma, plane = int(match[1]), _lattice_plane(_indices(match[3]))
    square = sum(k * k for k in plane)
    if match[2] == "twist":
        if match[4] or not 1 < sigma <= LARGEST_SIGMA or twist_angle(sigma, plane) is None:
            raise ValueError(f"'{text}': no rotation about [{miller(plane)}] has Σ = {sigma}, or an axis is given")
        return BoundaryName(sigma=sigma, kind="twist", plane=plane)
    real = square // 2 if square % 2 == 0 else square
    if match[4] is None or sum(h * u for h, u in zip(plane, _indices(match[4]), strict=True)) != 0:
        raise ValueError(f"'{text}': a tilt boundary needs an axis that lies in its plane, as in (310)[001]")
    if real != sigma or sigma == 1:
        raise ValueError(f"'{text}': the symmetric tilt boundary on ({miller(plane)}) has Σ = {real}")
    return BoundaryName(sigma=sigma, kind="tilt", plane=plane)


def twist_angle(sigma: int, plane: Plane) -> float | None:
    """Smallest rotation (radians) about a plane's normal with this Σ, or None."""
    square = sum(k * k for k in plane)
    angles = [
        2 * math.atan2(n * math.sqrt(square), m)
        for m in range(1, 4 * sigma + 1)
        for n in range(1, 4 * sigma + 1)
        if math.gcd(m, n) == 1 and _odd_part(m * m + n * n * square) == sigma
    ]
    return min(angles, default=None)


def _odd_part(number: int) -> int:
    while number % 2 == 0:
        number //= 2
    return number


def _indices(text: str) -> Plane:
    found = [int(k) for k in re.findall(r"-?\d", text)]
    return (found[0], found[1], found[2])
