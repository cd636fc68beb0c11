"""Where frames come from while somebody else's run writes them: LAMMPS dumps, extended XYZ, ASE trajectories.

Owns the order of files and the position of the last complete frame; what is done with frames is ``follow.py``'s.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.monitor.lammps_dump import next_frame, to_atoms
from aldriver.monitor.tail import Tail

AT_ONCE = 64
"""Most frames handed out by one look."""

Position = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A frame, or a remark on the source (then `atoms` is None).

    Attributes
    ----------
    position
        Where to go on after it; JSON.
    """

    position: Position
    atoms: Atoms | None = None
    step: int = 0
    note: str = ""


class Source(Protocol):
    """Hands out frames in the order in which they were written."""

    def poll(self) -> list[Found]:
        """What is new and complete, at most about :data:`AT_ONCE` frames; empty when nothing is."""

    def rest(self) -> str:
        """What is left that is not a complete frame, in words; empty when nothing is."""

    def close(self) -> None:
        """Close what is open."""


Parse = Callable[[bytes], tuple[Atoms | str | None, int]]
"""Bytes → the first frame, a remark, or None; and how many bytes are done with."""


def open_source(path: str, elements: Sequence[str] | None = None, position: Position | None = None) -> Source:
    """The source of a path by its name: ``*.traj``, ``*.xyz`` and ``*.extxyz``, all else is a LAMMPS dump.

    Parameters
    ----------
    path
        A file, or a pattern (``dump.*``) of files that follow each other by the numbers in their names. Text may be
        compressed (``.gz``, ``.zst``).
    elements
        Chemical symbol of each atom type of a dump; None to take its column ``element``.
    position
        Of the last frame that was dealt with, to go on after it.

    Raises
    ------
    InputError
        When an element is no chemical symbol, or there is no such file nor a folder it could appear in.
    """
    from ase.data import atomic_numbers

    wrong = [e for e in elements or () if e not in atomic_numbers or e == "X"]
    if wrong or (elements is not None and not elements):
        raise InputError(f"--elements: {', '.join(wrong) or 'nothing'} is no chemical symbol; give e.g. 'Fe Cu'")
    if not Path(path).parent.is_dir():
        raise InputError(f"{path}: there is no folder {Path(path).parent}")
    name = re.sub(r"\.(gz|zst)$", "", path)
    if name.endswith(".traj"):
        return TrajectorySource(Path(path), position)
    if name.endswith((".xyz", ".extxyz")):
        return TextSource(path, _extxyz, position)

    def dump(data: bytes) -> tuple[Atoms | str | None, int]:
        frame, taken = next_frame(data)
        return (frame if frame is None or isinstance(frame, str) else to_atoms(frame, elements)), taken

    return TextSource(path, dump, position)


class TextSource:
    """Frames of a text file, or of several that follow each other."""

    def __init__(self, path: str, parse: Parse, position: Position | None = None) -> None:
        self._path, self._parse = Path(path), parse
        self._tail: Tail | None = None
        self._count = int(position["frames"]) if position else 0
        self._error: InputError | None = None
        if position:
            self._tail = Tail(Path(position["file"]), offset=position["offset"], head=position["head"])

    def poll(self) -> list[Found]:
        """See :class:`Source`; what was found before something that cannot be read is handed out first."""
        found: list[Found] = []
        if self._error is not None:
            raise self._error
        try:
            self._fill(found)
        except InputError as error:
            if not found:
                raise
            self._error = error
        return found

    def _fill(self, found: list[Found]) -> None:
        while len(found) < AT_ONCE:
            if self._tail is None and not self._next_file():
                break
            assert self._tail is not None
            before = len(found)
            self._parse_buffer(found)
            if len(found) > before:
                continue
            grown = self._tail.grow()
            found += [self._found(note=note) for note in self._tail.notes]
            self._tail.notes.clear()
            if not grown and not self._next_file():
                break

    def _parse_buffer(self, found: list[Found]) -> None:
        assert self._tail is not None
        while len(found) < AT_ONCE and self._tail.buffer:
            frame, taken = self._parse(self._tail.buffer)
            if frame is None:
                return
            where = f"{self._tail.path.name}, byte {self._tail.offset}"
            self._tail.done_with(taken)
            if isinstance(frame, str):
                found.append(self._found(note=f"{where}: {frame}"))
            else:
                step = int(frame.info.get("step", self._count))
                self._count += 1
                found.append(self._found(atoms=frame, step=step))

    def _found(self, **what: Any) -> Found:
        assert self._tail is not None
        tail = self._tail
        position = {"file": str(tail.path), "offset": tail.offset, "head": tail.head, "frames": self._count}
        return Found(position=position, **what)

    def _next_file(self) -> bool:
        """Go on to the file after the present one, if there is any."""
        now = self._tail
        pattern = not self._path.exists() and any(c in self._path.name for c in "*?[")
        if now is not None and not pattern:
            return False
        files = [str(self._path)]
        if pattern:
            files = sorted(map(str, self._path.parent.glob(self._path.name)), key=_by_number)
        later = [f for f in files if now is None or _by_number(f) > _by_number(str(now.path))]
        if not later:
            return False
        begun = Tail(Path(later[0]))
        if now is not None:
            if now.buffer.strip():
                begun.notes.append(f"{now.path.name} ends in mid-frame: {len(now.buffer)} bytes are dropped")
            now.close()
        self._tail = begun
        return True

    def rest(self) -> str:
        """See :class:`Source`."""
        if self._tail is None or not self._tail.buffer.strip():
            return ""
        return (
            f"{self._tail.path.name} ends in mid-frame: {len(self._tail.buffer)} bytes after byte {self._tail.offset} "
            "wait for the rest of it"
        )

    def close(self) -> None:
        """See :class:`Source`."""
        if self._tail is not None:
            self._tail.close()


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sorts ``dump.9`` before ``dump.10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _extxyz(data: bytes) -> tuple[Atoms | str | None, int]:
    """The first frame of extended XYZ."""
    from ase.io import read

    end = data.find(b"\n")
    if end < 0:
        return None, 0
    try:
        n_atoms = int(data[:end])
    except ValueError:
        return f"expected a number of atoms, found {data[: min(end, 40)].decode(errors='replace')!r}", end + 1
    for _ in range(n_atoms + 1):
        end = data.find(b"\n", end + 1)
        if end < 0:
            return None, 0
    try:
        atoms: Any = read(io.StringIO(data[: end + 1].decode()), index=0, format="extxyz")
    except Exception as error:  # whatever ASE says of text that is no frame
        return f"a frame cannot be read ({error})", end + 1
    atoms.calc = None
    return atoms, end + 1


class TrajectorySource:
    """Frames of an ASE trajectory (``.traj``); a frame counts once ASE has written its index."""

    def __init__(self, path: Path, position: Position | None = None) -> None:
        self._path = path
        self._index = int(position["index"]) if position else 0

    def poll(self) -> list[Found]:
        """See :class:`Source`."""
        from ase.io import Trajectory

        if not self._path.is_file() or not self._path.stat().st_size:
            return []
        found: list[Found] = []
        try:
            with Trajectory(str(self._path)) as trajectory:
                if len(trajectory) < self._index:
                    note = f"{self._path.name} was replaced by a shorter one: it is read from its beginning"
                    self._index = 0
                    found.append(Found(position={"index": 0}, note=note))
                for k in range(self._index, min(len(trajectory), self._index + AT_ONCE)):
                    atoms = trajectory[k]
                    atoms.calc = None
                    step = int(atoms.info.get("step", k))
                    found.append(Found(position={"index": k + 1}, atoms=atoms, step=step))
        except Exception as error:  # ASE raises many kinds of a file that is no trajectory
            raise InputError(
                f"{self._path}: cannot be read as an ASE trajectory ({type(error).__name__}: {error})"
            ) from error
        self._index = found[-1].position["index"] if found else self._index
        return found

    def rest(self) -> str:
        """See :class:`Source`."""
        return ""

    def close(self) -> None:
        """See :class:`Source`."""
