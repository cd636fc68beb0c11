"""ML-POD potentials (proper orthogonal descriptors), which LAMMPS has as ``pair_style pod``.

Evaluating them is ``classical.py``'s, fitting them ``export/fitpod.py``'s business.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ase.data import atomic_numbers

from aldriver.core.errors import InputError
from aldriver.potentials.classical import LammpsPotential


class PODPotential(LammpsPotential):
    """A linear expansion in proper orthogonal descriptors (Nguyen & Rohskopf, J. Comput. Phys. 480, 112030 (2023)).

    Parameters
    ----------
    param
        File of the descriptors (elements, cutoffs, numbers of functions).
    coefficients
        File of the fitted coefficients.
    name
        As in ``aldriver.load(name)``.

    Raises
    ------
    InputError
        When a file is missing, or is not what LAMMPS' ``fitpod`` reads and writes.
    """

    family = "pod"
    pair_style = "pod"

    def __init__(self, param: str | Path, coefficients: str | Path, *, name: str | None = None) -> None:
        self.param, self.coefficients = Path(param).resolve(), Path(coefficients).resolve()
        self.symbols, self.cutoff = _read_param(self.param)
        _check_coefficients(self.coefficients)
        self.pair_coeff = f'* * "{self.param}" "{self.coefficients}" {" ".join(self.symbols)}'
        self.elements = frozenset(self.symbols)
        self.name = name or f"pod:{self.param.parent}"
        content = b"pod" + self.param.read_bytes() + self.coefficients.read_bytes()
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]


def _read_param(file: Path) -> tuple[list[str], float]:
    """Elements and cutoff (Å)."""
    try:
        lines = [line.split("#")[0].split() for line in file.read_text().splitlines()]
        words = {line[0]: line[1:] for line in lines if line}
        symbols, cutoff = words["species"], float(words["rcut"][0])
        if not symbols or not set(symbols) <= set(atomic_numbers):
            raise ValueError(f"species {' '.join(symbols)}")
    except (OSError, UnicodeDecodeError, KeyError, ValueError, IndexError) as error:
        raise InputError(f"{file}: cannot be read as the parameters of an ML-POD potential: {error}") from error
    return symbols, cutoff


def _check_coefficients(file: Path) -> None:
    """LAMMPS ends the process on some files that are cut short; the first line tells how many numbers must follow."""
    try:
        head, *rest = file.read_text().split("\n")
        count = int(head.split()[1])
        numbers = [float(line) for line in rest if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise InputError(f"{file}: cannot be read as the coefficients of an ML-POD potential: {error}") from error
    if len(numbers) < count:
        raise InputError(f"{file}: holds {len(numbers)} of {count} coefficients: it was cut short")
