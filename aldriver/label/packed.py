"""Files as they lie on disk: plain or packed by gzip, bzip2 or xz, whatever they are called (their first bytes say)."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

MAX_BYTES = 512 * 1024**2
"""What is read of a text at once; what is larger is read as a stream."""


def open_packed(path: Path) -> IO[bytes]:
    """A file opened for reading, unpacked on the way.

    Raises
    ------
    OSError
        When it cannot be opened. Damage shows while reading (``damage_as_oserror``).
    """
    path = Path(path)
    with path.open("rb") as handle:
        start = handle.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if start.startswith(b"BZh"):
        return bz2.open(path, "rb")
    return lzma.open(path, "rb") if start == b"\xfd7zXZ\x00" else path.open("rb")


@contextmanager
def damage_as_oserror(path: Path) -> Iterator[None]:
    """Turn what the unpackers raise for a damaged file into an OSError that names it."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise OSError(f"{path}: the packed file is damaged or breaks off ({error})") from error


def read_text(path: Path) -> str:
    """Text of a file, with Unix ends of lines; bytes that are no text are replaced.

    Raises
    ------
    OSError
        When it cannot be opened or unpacked.
    """
    with damage_as_oserror(path), open_packed(path) as handle:
        text = bytes(handle.read(MAX_BYTES)).decode("utf-8", errors="replace")
    return text.replace("\r\n", "\n")
