"""Single point by an ASE calculator in a process of its own: reads ``job.json``, writes ``result.json``.

Started by path (``python ase_run.py job.json result.json``) in whatever Python has the calculator, so nothing here may
import aldriver. What the result is worth is decided by who started it (``label/ase.py``).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

NOT_CONVERGED = ("KohnShamConvergenceError", "SCFError", "ConvergenceError")
WORDS = ("not converge", "did not converge", "no convergence", "convergence failure", "failed to converge")


def main(arguments: list[str]) -> int:
    """``job.json result.json``: compute; ``--probe calculator``: versions and data files as JSON on standard output."""
    if arguments[0] == "--probe":
        print(json.dumps(probe(arguments[1], arguments[2:])))
        return 0
    job = json.loads(Path(arguments[0]).read_text())
    try:
        result = compute(job)
    except MemoryError:
        raise
    except Exception as error:
        result = failure(error)
    if _rank() == 0:
        _write(Path(arguments[1]), result)
    return 0


def compute(job: dict[str, Any]) -> dict[str, Any]:
    """Energy, free energy, forces, and what else the calculator gives, of the job's frame."""
    from ase import Atoms

    atoms = Atoms(job["numbers"], positions=job["positions"], cell=job["cell"], pbc=job["pbc"])
    if job.get("magmoms"):
        atoms.set_initial_magnetic_moments(job["magmoms"])
    module, _, name = job["calculator"].partition(":")
    atoms.calc = getattr(import_module(module), name)(**job["arguments"])
    energy = float(atoms.get_potential_energy())
    forces = atoms.get_forces().tolist()
    return {
        "status": "ok",
        "energy": energy,
        "forces": forces,
        "free_energy": _optional(lambda: float(atoms.get_potential_energy(force_consistent=True))),
        "stress": _optional(lambda: atoms.get_stress(voigt=True).tolist()) if all(job["pbc"]) else None,
        "magmoms": _optional(lambda: atoms.get_magnetic_moments().tolist()),
        "magnetisation": _optional(lambda: float(atoms.get_magnetic_moment())),
        "versions": versions(module),
    }


def failure(error: Exception) -> dict[str, Any]:
    """The result of a calculation that raised: unconverged where the calculator says so, else failed."""
    names = {cls.__name__ for cls in type(error).__mro__}
    said = f"{type(error).__name__}: {error}".strip().splitlines()
    unconverged = bool(names & set(NOT_CONVERGED)) or any(word in str(error).lower() for word in WORDS)
    return {
        "status": "unconverged" if unconverged else "failed",
        "reason": " ".join(said)[:500],
        "traceback": traceback.format_exc()[-4000:],
    }


def probe(calculator: str, elements: list[str]) -> dict[str, Any]:
    """Whether the calculator can be imported, its versions and, for GPAW, its PAW data sets of `elements`.

    Parameters
    ----------
    elements
        For GPAW: ``symbol.xc`` or ``symbol.name.xc``, as its files are called.
    """
    module, _, name = calculator.partition(":")
    try:
        getattr(import_module(module), name)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "python": sys.executable}
    found: dict[str, Any] = {"versions": versions(module), "python": sys.executable}
    if module == "gpaw":
        found["setups"] = {name: _setup(name) for name in elements}
    return found


def versions(module: str) -> dict[str, str]:
    """Of Python, ASE and the package that holds `module`."""
    import ase

    package = module.partition(".")[0]
    known = {"python": sys.version.split()[0], "ase": ase.__version__}
    if package != "ase":
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            known[package] = str(getattr(import_module(package), "__version__", "unknown"))
    return known


def _setup(name: str) -> dict[str, str] | None:
    import gpaw

    for folder in gpaw.setup_paths:
        for path in (Path(folder) / name, Path(folder) / f"{name}.gz"):
            if path.is_file():
                return {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return None


def _optional(value: Any) -> Any:
    """A value that not every calculator has."""
    from ase.calculators.calculator import PropertyNotImplementedError

    try:
        return value()
    except (PropertyNotImplementedError, NotImplementedError, AttributeError):
        return None


def _rank() -> int:
    """Of this process among those of an MPI run."""
    if "gpaw" not in sys.modules and "mpi4py" not in sys.modules:
        return 0
    from ase.parallel import world

    return int(world.rank)


def _write(path: Path, result: dict[str, Any]) -> None:
    """In one step: what is there is complete."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as handle:
        json.dump(result, handle)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
