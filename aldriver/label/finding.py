"""Finds finished DFT outputs under paths a user names: folders, archives and single files, whatever they are called.

Owns which file is an output of which code (by what it holds, not by its name) and which files belong together. Reading
them is ``<code>_output.py``, judging them ``gate.py``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aldriver.label.archives import ArchiveError, is_archive, unpack
from aldriver.label.gpaw_output import is_gpaw
from aldriver.label.packed import damage_as_oserror, open_packed

_HEAD = 64 * 1024
_DEPTH = 3
_OUTPUT_NAMES = re.compile(r"(\.out|\.pwo|\.extxyz|\.xyz|\.log)$|outcar|vasprun|oszicar", re.IGNORECASE)
_OTHERS = (
    (r"oszicar", "an OSZICAR holds no forces: the vasprun.xml or OUTCAR of the run is needed"),
    (r"vaspout.*\.h5$", "HDF5 of VASP is not read: give the vasprun.xml or OUTCAR of the run"),
    (r"\.gpw$", "a binary file of GPAW is not read: give the text log of the run"),
    (r"\.traj$", "a trajectory of ASE is not read: write it as extended XYZ (`ase convert`)"),
)
"""Names of results that are not read, and what to give instead."""
_DATA_FILE = "data file of pw.x: its structure is used, the label is in the output beside"


@dataclass(frozen=True)
class Candidate:
    """A file, and what it is.

    Attributes
    ----------
    path
        Where it can be read now.
    name
        What the user knows it by: ``ARCHIVE!member`` within an archive.
    code
        Whose output it is: ``vasp``, ``espresso``, ``gpaw``, ``extxyz``; empty when it is to be skipped or refused.
    reason
        Why it is skipped or refused; empty for an output.
    refused
        Whether a user would have expected a label from it.
    """

    path: Path
    name: str
    code: str = ""
    reason: str = ""
    refused: bool = False


def find_outputs(paths: Iterable[Path], scratch: Path) -> list[Candidate]:
    """Every file below `paths`, in order of name; archives are unpacked under `scratch`. A file counts once."""
    found: list[Candidate] = []
    seen: set[Path] = set()
    for path in paths:
        for candidate in _walk(Path(path), str(path), scratch, _DEPTH):
            real = Path(os.path.realpath(candidate.path))
            if real not in seen:
                seen.add(real)
                found.append(candidate)
    return _with_companions(found)


def _walk(path: Path, name: str, scratch: Path, depth: int) -> Iterator[Candidate]:
    if path.is_dir():
        visited: set[str] = set()
        for folder, folders, files in os.walk(path, followlinks=True):
            real = os.path.realpath(folder)
            if real in visited:  # a link to a folder above: what is there was seen
                folders.clear()
                continue
            visited.add(real)
            folders.sort()
            for file in sorted(files):
                inner = Path(folder) / file
                yield from _walk(inner, f"{name}/{inner.relative_to(path).as_posix()}", scratch, depth)
        return
    if is_archive(path) and path.is_file():
        yield from _unpacked(path, name, scratch, depth)
        return
    yield _sniff(path, name)


def _unpacked(path: Path, name: str, scratch: Path, depth: int) -> Iterator[Candidate]:
    if depth == 0:
        yield Candidate(path, name, reason=f"an archive more than {_DEPTH} archives deep", refused=True)
        return
    folder = scratch / f"archive-{len(list(scratch.iterdir()))}"
    try:
        unpack(path, folder)
    except ArchiveError as error:
        yield Candidate(path, name, reason=str(error).removeprefix(f"{path}: "), refused=True)
        return
    for inner in sorted(p for p in folder.rglob("*") if p.is_file()):
        member = f"{name}!{inner.relative_to(folder).as_posix()}"
        yield from _walk(inner, member, scratch, depth - 1)


def _sniff(path: Path, name: str) -> Candidate:
    """What a file is, by its first bytes."""
    if not path.exists():
        broken = "a link to nothing" if path.is_symlink() else "no such file"
        return Candidate(path, name, reason=broken, refused=True)
    if not path.is_file():
        return Candidate(path, name, reason="not a regular file")
    plain = re.sub(r"\.(gz|bz2|xz)$", "", path.name)
    likely = bool(_OUTPUT_NAMES.search(plain)) and not re.search(r"\.(in|pwi|inp|err|sh|py)$", plain)
    try:
        head = _head(path).decode("utf-8", errors="replace")
    except OSError as error:
        return Candidate(path, name, reason=f"cannot be read: {error}", refused=True)
    code = _code(head, plain)
    if code:
        return Candidate(path, name, code=code)
    for pattern, reason in _OTHERS:
        if re.search(pattern, plain, re.IGNORECASE):
            return Candidate(path, name, reason=reason, refused=True)
    if re.search(r"(?m)^\s*CP2K\| version string|PROGRAM STARTED AT .*\n.*PROGRAM STARTED ON", head):
        reason = "a log of CP2K is not read (three decimals of the cell): write frames and forces as extended XYZ"
        return Candidate(path, name, reason=reason, refused=True)
    if "<qes:espresso" in head or "<Root>" in head:
        return Candidate(path, name, reason=_DATA_FILE)
    if likely:
        message = re.search(r"(?:Error in routine|from)\s+(\S+).*\n\s*(.*)", head) if "%%%%" in head else None
        said = f"; it says: {' '.join(message.groups())}" if message else ""
        empty = "the file is empty" if not head.strip() else "no output of a DFT code is in it"
        return Candidate(path, name, reason=f"{empty}{said}", refused=True)
    return Candidate(path, name, reason="not an output (input, script or note)")


def _head(path: Path) -> bytes:
    with damage_as_oserror(path), open_packed(path) as handle:
        return bytes(handle.read(_HEAD))


def _code(head: str, name: str) -> str:
    """Whose output begins like this; empty when nobody's."""
    if "<modeling>" in head:
        return "vasp"
    if re.match(r"\s*vasp\.\d", head) or re.match(r"\s*aldriver-stand-in", head):
        return "vasp"
    if re.search(r"Program PWSCF\s", head):
        return "espresso"
    if is_gpaw(head):
        return "gpaw"
    lines = head.split("\n", 2)
    counted = len(lines) > 1 and re.fullmatch(r"\s*\d+\s*", lines[0])
    if counted and (re.search("Properties=|Lattice=", lines[1]) or name.lower().endswith((".extxyz", ".xyz"))):
        return "extxyz"
    # an output of VASP whose beginning is lost is still one, and is to be refused as such
    lower = name.lower()
    if "vasprun" in lower and head.strip():
        return "vasp"
    return "vasp" if "outcar" in lower and head.strip() else ""


def _with_companions(found: list[Candidate]) -> list[Candidate]:
    """Files that are read together with the vasprun.xml or OUTCAR of their run do not count by themselves."""
    runs: dict[tuple[Path, str], Candidate] = {}
    for kind in ("outcar", "vasprun"):
        runs |= {(c.path.parent, k): c for c in found if c.code == "vasp" and (k := _run_key(c.path, kind))}
    out = []
    outputs = {c.path.parent for c in found if c.code == "espresso"}
    for c in found:
        if c.reason == _DATA_FILE and not outputs & {c.path.parent, *c.path.parent.parents}:
            reason = "a data file of pw.x without its output: give the output (standard output) of the run"
            c = Candidate(c.path, c.name, reason=reason, refused=True)
        key = _run_key(c.path, "outcar") or _run_key(c.path, "oszicar")
        twin = runs.get((c.path.parent, key)) if key else None
        if twin is None or twin is c:
            out.append(c)
        else:
            out.append(Candidate(c.path, c.name, reason=f"of the run of {twin.path.name}, which is read"))
    return out


def _run_key(path: Path, kind: str) -> str | None:
    """What is left of a VASP file's name without its kind, suffix and punctuation; None for other kinds."""
    name = path.name.lower()
    if kind not in name:
        return None
    return "run:" + re.sub(r"\.gz$|\.xml|vasprun|outcar|oszicar|[\W_]+", "", re.sub(r"\.gz$", "", name))
