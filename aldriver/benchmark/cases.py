"""Cases: which crystal a benchmark is made on, by name (``bcc-Fe``) or from a structure file.

What is computed on a crystal is the business of the property modules.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aldriver.core.errors import InputError
from aldriver.core.recipe_benchmark import C_OVER_A, SUPERCELLS, Case, named_case

_CRYSTALS = {(229, 2): "bcc", (225, 4): "fcc", (227, 8): "diamond"}  # space group, atoms per conventional cell
_HEXAGONAL = {
    "hcp": [(1 / 3, 2 / 3, 0.25), (2 / 3, 1 / 3, 0.75)],
    "omega": [(0, 0, 0), (1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5)],
}
"""Sites in units of the cell's vectors, a1 and a2 at 120°: 2c of P6_3/mmc, 1a and 2d of P6/mmm."""


def conventional_cell(case: Case, a: float | None = None) -> Atoms:
    """Cell of a case with lattice constant `a` (Å; default: where the case starts), without moments.

    It is cubic, or hexagonal with the case's c/a and a1 along x and c along z.
    """
    a = case.a if a is None else a
    if case.hexagonal:
        sites = _HEXAGONAL[case.lattice]
        c = a * (case.c_over_a or C_OVER_A[case.lattice])
        cell = [[a, 0, 0], [-a / 2, a * math.sqrt(3) / 2, 0], [0, 0, c]]
        return Atoms(symbols=[case.element] * len(sites), scaled_positions=sites, cell=cell, pbc=True)
    cubic = bulk(case.element, case.lattice, a=a, cubic=True)
    return Atoms(numbers=cubic.numbers, positions=cubic.positions, cell=cubic.cell, pbc=True)


def supercell(case: Case, a: float) -> Atoms:
    """The perfect supercell of a case, in which its defects are made."""
    return conventional_cell(case, a).repeat(case.supercell)


def slot(case: Case, what: str) -> str:
    """Name of a relaxation in a case's supercell, the same for every potential: ``bcc-Fe 4x4x4 vacancy``."""
    return f"{case.name} {times(case.supercell)} {what}"


def times(repeats: tuple[int, int, int]) -> str:
    """Repeats of a cell as they are printed: ``4x4x4``."""
    return "x".join(map(str, repeats))


def case_by_name(name: str | Path, *, supercell: tuple[int, int, int] | None = None) -> Case:
    """Case from a name such as ``bcc-Fe``, ``fcc-Cu``, ``diamond-Si``, ``hcp-Ti`` or ``omega-Ti``, or from a file.

    Parameters
    ----------
    name
        LATTICE-ELEMENT, or a structure file that ASE reads.
    supercell
        For the vacancy, in conventional cells; default 4×4×4 for bcc (128 atoms), 3×3×3 for fcc (108), 2×2×2 for
        diamond (64), 5×5×3 for hcp (150), 3×3×4 for omega (108).

    Raises
    ------
    InputError
        When it is neither, or the file does not hold a bcc, fcc or diamond crystal of one element.
    """
    text = str(name)
    if Path(text).is_file():
        element, lattice, a = _from_file(Path(text))
        fields = {"name": f"{lattice}-{element}", "element": element, "lattice": lattice, "a": a,
                  "supercell": SUPERCELLS[lattice]}  # fmt: skip
    else:
        try:
            fields = named_case(text)
        except ValueError as error:
            raise InputError(f"{error}, or a structure file.") from error
    return Case.model_validate(fields if supercell is None else fields | {"supercell": supercell})


def periodic_cell(path: str | Path, frame: int = -1) -> Atoms:
    """Species, positions and cell of a frame of a structure file, periodic.

    Raises
    ------
    InputError
        When it cannot be read, or has no three-dimensional cell.
    """
    from ase.io import read

    path = Path(path).expanduser()
    try:
        atoms = read(path, index=frame)
    except Exception as error:
        raise InputError(f"{path}: frame {frame} cannot be read as a structure ({error})") from error
    if not isinstance(atoms, Atoms) or atoms.cell.rank < 3:
        raise InputError(f"{path}: has no three-dimensional cell")
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def _from_file(path: Path) -> tuple[str, str, float]:
    import spglib
    from ase.io import read

    try:
        atoms = read(path)
    except Exception as error:
        raise InputError(f"{path}: cannot be read as a structure ({error})") from error
    if not isinstance(atoms, Atoms) or atoms.cell.rank < 3:
        raise InputError(f"{path}: has no three-dimensional cell; a benchmark needs a crystal")
    symbols = set(atoms.get_chemical_symbols())
    crystal: Any = (np.asarray(atoms.cell), atoms.get_scaled_positions(), atoms.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib announces how it will report errors one day
        group = spglib.get_symmetry_dataset(crystal, symprec=1e-3)
    lattice = None if group is None else _CRYSTALS.get((int(group.number), len(group.std_types)))
    if len(symbols) != 1 or group is None or lattice is None:
        found = "no symmetry" if group is None else f"space group {group.international}"
        raise InputError(
            f"{path}: is not a bcc, fcc or diamond crystal of one element "
            f"({atoms.get_chemical_formula()}, {found}); the benchmark knows only these"
        )
    return symbols.pop(), lattice, float(np.abs(np.linalg.det(group.std_lattice)) ** (1 / 3))
