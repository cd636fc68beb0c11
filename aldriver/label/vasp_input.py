"""The input of one VASP label: INCAR, KPOINTS, POSCAR and POTCAR, from pymatgen's MP static set and the recipe.

Owns what is asked of VASP, the order of the atoms in its files, and whether what came back was asked for
(:func:`drift`). Runs nothing (``vasp.py``) and reads no results (``vasp_output.py``).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aldriver.core.errors import InputError
from aldriver.core.recipe_label import Vasp
from aldriver.label.packed import open_packed
from aldriver.label.vasp_output import functional

ISMEAR = {"gaussian": 0, "methfessel-paxton": 1, "fermi-dirac": -1}
_PARALLEL = frozenset({"NCORE", "NPAR", "KPAR", "NSIM", "LPLANE", "LSCALAPACK", "LSCALU"})
FREE_TAGS = _PARALLEL | {
    "ALGO", "IALGO", "AMIX", "AMIX_MAG", "BMIX", "BMIX_MAG", "AMIN", "IMIX", "MAXMIX", "NELM", "NELMDL", "NELMIN",
    "ISEARCH", "NBANDS", "TIME", "ISTART", "ICHARG", "LWAVE", "LCHARG", "LORBIT", "SYMPREC", "SYSTEM", "LDAUPRINT",
}  # fmt: skip
"""Tags that decide whether and how fast the electrons converge, not to what."""
_SAME_A = 1e-6


@dataclass(frozen=True, kw_only=True)
class Potcar:
    """One POTCAR of the library: where it is, its TITEL, and the SHA-256 of its text (unpacked)."""

    path: Path
    titel: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The input of one frame.

    Attributes
    ----------
    incar
        As written.
    grid
        Divisions of the Γ-centred grid.
    order
        (N,) atom ``order[i]`` of the frame is atom i of the files: VASP wants each species in one block.
    atoms
        The frame in the order of the files.
    """

    incar: Mapping[str, Any]
    grid: tuple[int, int, int]
    order: NDArray[np.int64]
    atoms: Atoms

    @property
    def species(self) -> list[str]:
        """Elements in the order of the POTCAR."""
        return list(dict.fromkeys(self.atoms.get_chemical_symbols()))

    def back(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Per-atom values in the order of the frame."""
        out = np.empty_like(values)
        out[self.order] = values
        return out


def vasp_inputs(frame: Atoms, settings: Vasp) -> Inputs:
    """Input of one frame; the moments the frame may carry are ignored: every label starts from the same ones.

    Raises
    ------
    InputError
        When the recipe's frozen grid is less dense for this frame than the recipe allows.
    """
    symbols = frame.get_chemical_symbols()
    rank = {symbol: i for i, symbol in enumerate(dict.fromkeys(symbols))}
    order = np.argsort([rank[s] for s in symbols], kind="stable")  # stable: atoms of a species keep their order
    atoms = Atoms(numbers=frame.numbers[order], positions=frame.positions[order], cell=frame.cell, pbc=True)
    return Inputs(incar=_incar(atoms, settings), grid=grid_of(frame, settings), order=order, atoms=atoms)


def _incar(atoms: Atoms, settings: Vasp) -> dict[str, Any]:
    import warnings

    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.vasp.inputs import Kpoints
    from pymatgen.io.vasp.sets import MPStaticSet

    structure = AseAtomsAdaptor.get_structure(atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of POTCARs: those are checked by us
        mp = MPStaticSet(
            structure,
            user_incar_settings=incar_overrides(settings, atoms),
            user_kpoints_settings=Kpoints.gamma_automatic((1, 1, 1)),  # type: ignore[arg-type]
            user_potcar_settings=dict(settings.potcars),
            sort_structure=False,
        )
        return dict(mp.incar)


def incar_overrides(settings: Vasp, atoms: Atoms | None = None) -> dict[str, Any]:
    """What aldriver and the recipe set over the MP static set (None removes a tag of it)."""
    tags: dict[str, Any] = {
        "NSW": 0,
        "IBRION": -1,
        "ISIF": 2,
        "EDIFF": settings.ediff_eV,
        "ENCUT": settings.encut_eV,
        "PREC": "Accurate",
        "LASPH": True,
        "LREAL": False,
        "ISMEAR": ISMEAR[settings.smearing],
        "SIGMA": settings.sigma_eV,
        "ISYM": 0,
        "LWAVE": False,
        "LCHARG": False,
        "NELM": settings.max_scf_steps,
        "LORBIT": 11,
        "ISPIN": 2 if settings.spin else 1,
        "MAGMOM": dict(settings.magmoms) if settings.spin else None,
    }
    return tags | _hubbard(settings, atoms) | {key.upper(): value for key, value in settings.incar.items()}


def _hubbard(settings: Vasp, atoms: Atoms | None) -> dict[str, Any]:
    u = settings.hubbard_u_eV
    present = u if atoms is None else [e for e in u if e in atoms.get_chemical_symbols()]
    if not any(u[e] for e in present):
        # off in so many words: the set would switch it on for oxides and fluorides
        return {"LDAU": False, "LDAUU": None, "LDAUL": None, "LDAUJ": None, "LDAUTYPE": None, "LDAUPRINT": None}
    shell = {e: _hubbard_l(e) for e in present}
    return {
        "LDAU": True,
        "LDAUTYPE": 2,
        "LDAUU": {e: u[e] for e in present},
        "LDAUL": shell,
        "LDAUJ": dict.fromkeys(present, 0),
        "LMAXMIX": 6 if 3 in shell.values() else 4,
    }


def _hubbard_l(element: str) -> int:
    """Shell that gets the U: f of lanthanides and actinides, d of transition metals, else p."""
    z = atomic_numbers[element]
    if 57 <= z <= 71 or 89 <= z <= 103:
        return 3
    return 2 if 21 <= z <= 30 or 39 <= z <= 48 or 72 <= z <= 80 else 1


def grid_of(frame: Atoms, settings: Vasp) -> tuple[int, int, int]:
    """Divisions of the k grid of a frame.

    Raises
    ------
    InputError
        When the frozen grid is less dense for this frame than ``kspacing_per_A`` allows.
    """
    lengths = 2 * np.pi * np.linalg.norm(np.asarray(frame.cell.reciprocal()), axis=1)
    wanted = settings.kspacing_per_A
    if settings.kpoints is None:
        assert wanted is not None
        k1, k2, k3 = (max(1, math.ceil(x / wanted - 1e-6)) for x in lengths)
        return k1, k2, k3
    spacing = lengths / np.array(settings.kpoints)
    if wanted is not None and spacing.max() > wanted * (1 + 1e-6):
        grid = "x".join(str(k) for k in settings.kpoints)
        raise InputError(
            f"the frozen k-grid {grid} puts points {spacing.max():.3f} Å⁻¹ apart in this cell, "
            f"label.vasp.kspacing_per_A allows {wanted:g}: choose a denser label.vasp.kpoints for the whole campaign"
        )
    return settings.kpoints


def numbers(settings: Vasp) -> dict[str, Any]:
    """All that decides the numbers, for the digest of the spec: not where things lie or how VASP runs in parallel."""
    potcars = {e: potcar_identity(symbol, settings.potcar_functional) for e, symbol in sorted(settings.potcars.items())}
    tags = {k: v for k, v in incar_overrides(settings).items() if k not in _PARALLEL and k != "NELM"}
    return {
        "mp_set": "MPStaticSet",
        "incar": tags,
        "kpoints": settings.kpoints,
        "kspacing_per_A": settings.kspacing_per_A if settings.kpoints is None else None,
        "potcars": potcars,
    }


def functional_name(settings: Vasp, elements: Iterable[str] | None = None) -> str:
    """The functional in words, as it is read from a result (``vasp_output.functional``).

    Parameters
    ----------
    elements
        Those of a cell, whose U is named; by default all that have one.
    """
    u = settings.hubbard_u_eV
    named = tuple(u) if elements is None else tuple(elements)
    tags = {key.upper(): value for key, value in settings.incar.items()}
    values = [u.get(e, 0.0) for e in named]
    return functional({**tags, "LDAU": any(values), "LDAUU": values}, (potcar_title("", settings),), named)


def potcar_title(element: str, settings: Vasp) -> str:
    """TITEL of an element's POTCAR, or how it begins where the library is not here."""
    symbol = settings.potcars.get(element, element)
    found = find_potcar(symbol, settings.potcar_functional) if symbol else None
    library = settings.potcar_functional.upper()
    kind = "PAW_PBE" if "PBE" in library else "PAW_GGA" if "PW91" in library else "PAW"
    return f"{kind} {symbol}" if found is None else found.titel


def potcar_identity(symbol: str, functional: str) -> str:
    """Hash of a POTCAR, or its name where the library is not here."""
    found = find_potcar(symbol, functional)
    return f"{functional} {symbol}" if found is None else found.sha256


def find_potcar(symbol: str, functional: str) -> Potcar | None:
    """A POTCAR of the library below ``PMG_VASP_PSP_DIR``, or None."""
    root = os.environ.get("PMG_VASP_PSP_DIR")
    if not root:
        return None
    names = (f"POTCAR.{symbol}", f"POTCAR.{symbol}.gz", f"{symbol}/POTCAR", f"{symbol}/POTCAR.gz")
    for folder in _libraries(Path(root), functional):
        for name in names:
            path = folder / name
            if path.is_file():
                stat = path.stat()
                return _read_potcar(path, stat.st_mtime_ns, stat.st_size)
    return None


def _libraries(root: Path, functional: str) -> list[Path]:
    """Where pymatgen keeps the POTCARs of a functional, and the folder itself if it is laid out flat."""
    try:
        from pymatgen.io.vasp.inputs import PotcarSingle

        named = [root / PotcarSingle.functional_dir[functional]]
    except (ImportError, KeyError):
        named = []
    return [*named, root / functional, root]


@lru_cache(maxsize=64)
def _read_potcar(path: Path, _mtime_ns: int, _size: int) -> Potcar:
    with open_packed(path) as handle:
        data = handle.read()
    titel = re.search(rb"TITEL\s*=\s*([^\n]+)", data)
    name = titel.group(1).decode(errors="replace").strip() if titel else path.name
    return Potcar(path=path, titel=name, sha256=hashlib.sha256(data).hexdigest())


def write_inputs(folder: Path, inputs: Inputs, settings: Vasp, *, comment: str, potcars: bool) -> dict[str, Any]:
    """Write the files of one label; returns the POTCARs by element (symbol, TITEL, SHA-256).

    Parameters
    ----------
    comment
        First line of the POSCAR.
    potcars
        Whether POTCAR itself is written; otherwise only POTCAR.spec, which names them.
    """
    from pymatgen.io.vasp.inputs import Incar

    Incar(dict(inputs.incar)).write_file(str(folder / "INCAR"))
    grid = " ".join(str(k) for k in inputs.grid)
    (folder / "KPOINTS").write_text(f"frozen grid\n0\nGamma\n{grid}\n0 0 0\n")
    (folder / "POSCAR").write_text(_poscar(inputs, comment))
    chosen = {e: settings.potcars[e] for e in inputs.species if e in settings.potcars}
    (folder / "POTCAR.spec").write_text("".join(f"{chosen.get(e, e)}\n" for e in inputs.species))
    record: dict[str, Any] = {}
    pieces = []
    for element in inputs.species:
        symbol = chosen.get(element, element)
        found = find_potcar(symbol, settings.potcar_functional)
        record[element] = {"symbol": symbol, "library": settings.potcar_functional}
        if found is None:
            if potcars:
                raise InputError(f"no POTCAR '{symbol}' for {element} below PMG_VASP_PSP_DIR")
            continue
        record[element] |= {"titel": found.titel, "sha256": found.sha256}
        if potcars:
            with open_packed(found.path) as handle:
                pieces.append(handle.read())
    if potcars:
        (folder / "POTCAR").write_bytes(b"".join(pieces))
    return record


def _poscar(inputs: Inputs, comment: str) -> str:
    atoms = inputs.atoms
    symbols = atoms.get_chemical_symbols()
    lines = [comment, "1.0"]
    lines += [" ".join(f"{x:.16f}" for x in row) for row in np.asarray(atoms.cell)]
    lines += [" ".join(inputs.species), " ".join(str(symbols.count(s)) for s in inputs.species), "direct"]
    lines += [" ".join(f"{x:.16f}" for x in row) for row in atoms.get_scaled_positions(wrap=False)]
    return "\n".join(lines) + "\n"


def drift(intended: Mapping[str, Any], actual: Mapping[str, Any], *, subset: bool = False) -> str:
    """What differs between two INCARs and decides numbers, as a sentence; empty when nothing does.

    Parameters
    ----------
    subset
        Compare only tags that both have (for what VASP printed, which leaves out and adds tags).
    """
    tags = (intended.keys() & actual.keys() if subset else intended.keys() | actual.keys()) - FREE_TAGS
    changed = [t for t in sorted(tags) if not _same(intended.get(t), actual.get(t))]
    words = [f"{t} {_shown(intended.get(t))} became {_shown(actual.get(t))}" for t in changed]
    return "; ".join(words)


def _shown(value: Any) -> str:
    return "(not set)" if value is None else str(value)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)):
        left, right = list(np.atleast_1d(a)), list(np.atleast_1d(b))
        return len(left) == len(right) and all(_same(x, y) for x, y in zip(left, right, strict=True))
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-6, abs_tol=1e-8)
    except (TypeError, ValueError):
        words = [str(x).strip(". ").upper() for x in (a, b)]
        short = {"T": "TRUE", "F": "FALSE", ".T": "TRUE", ".F": "FALSE"}
        left_word, right_word = (short.get(w, w) for w in words)
        return left_word == right_word


def same_structure(a: Atoms, b: Atoms) -> bool:
    """Whether two structures are the same atom by atom, up to the lattice (VASP may wrap)."""
    if len(a) != len(b) or (a.numbers != b.numbers).any():
        return False
    same_A = _SAME_A + 2e-8 * float(np.linalg.norm(np.asarray(a.cell), axis=1).max())  # files have eight decimals
    if np.abs(np.asarray(a.cell) - np.asarray(b.cell)).max() > same_A:
        return False
    shift = np.linalg.solve(np.asarray(a.cell).T, (a.positions - b.positions).T).T
    return bool(np.abs((shift - np.round(shift)) @ np.asarray(a.cell)).max() < same_A)
