"""The growing end of a file that somebody else writes: plain, gzip or zstd; cut short, replaced or rotated.

Owns bytes and where to go on; what they mean is ``sources.py``'s business.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from aldriver.core.errors import InputError

HEAD = 1024
CHUNK = 1 << 20
"""Bytes read at once, so that a backlog of gigabytes does not fill the memory."""


class Tail:
    """Reads what was added to a file since the last look.

    A file that became shorter, or was replaced by one that begins differently, is read anew from its beginning; of a
    replaced one the rest is read first.

    Parameters
    ----------
    path
        The file; it may appear later.
    offset, head
        Uncompressed bytes that are done with, and :attr:`head` at that time, to go on after an interruption.

    Attributes
    ----------
    buffer
        What was read and is not done with.
    notes
        What happened to the file, in words; the reader empties it.
    """

    def __init__(self, path: Path, *, offset: int = 0, head: str = "") -> None:
        self.path = path
        self.offset = offset
        self.buffer = b""
        self.notes: list[str] = []
        self._wanted = head
        self._handle: BinaryIO | None = None
        self._head, self._read, self._skip = b"", 0, 0
        self._decoder: Any = None

    @property
    def head(self) -> str:
        """Length and hash of the first bytes of the file, by which it is recognised."""
        return f"{len(self._head)}:{hashlib.sha256(self._head).hexdigest()[:16]}"

    def done_with(self, n: int) -> None:
        """Forget the first `n` bytes of the buffer."""
        self.buffer, self.offset = self.buffer[n:], self.offset + n

    def grow(self) -> bool:
        """Read more, at most :data:`CHUNK` bytes of the file; whether there was anything.

        Raises
        ------
        InputError
            When the file cannot be read, or not be decompressed.
        """
        try:
            return self._grow()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error})") from error

    def _grow(self) -> bool:
        if self._handle is None and not self._open():
            return False
        assert self._handle is not None
        found = self._handle.read(CHUNK)
        if found:
            self._take(found)
            return True
        if not self._exchanged():
            return False
        self._handle.close()
        self._handle = None
        return self._grow()

    def _exchanged(self) -> bool:
        """Whether the name now leads to another file, or the file was cut below what we have read."""
        assert self._handle is not None
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return False  # moved away; the new one is not there yet
        mine = os.fstat(self._handle.fileno())
        if (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino) and now.st_size >= self._read:
            return False
        self._wanted = self.head
        return True

    def _open(self) -> bool:
        """Open the file where it is to be read on; False while it is not there."""
        decoder = self._new_decoder()
        try:
            handle = self.path.open("rb")
        except FileNotFoundError:
            return False
        begin = handle.read(HEAD)
        if self._wanted:
            length, _, digest = self._wanted.partition(":")
            same = hashlib.sha256(begin[: int(length)]).hexdigest()[:16] == digest
            size = os.fstat(handle.fileno()).st_size
            if not same or size < int(length) or (not self._compressed and size < self.offset):
                self.notes.append(
                    f"{self.path.name} was cut short or replaced after byte {self.offset}: read from its beginning"
                    + (f"; {len(self.buffer)} bytes of half a frame are dropped" if self.buffer else "")
                )
                self.offset = 0
        self._wanted, self._head, self.buffer = "", b"", b""
        self._decoder = decoder
        if self._compressed:
            self._read, self._skip = 0, self.offset  # from the beginning again: a decompressor cannot jump
        else:
            self._head, self._read, self._skip = begin[: self.offset], self.offset, 0
        handle.seek(self._read)
        self._handle = handle
        return True

    @property
    def _compressed(self) -> bool:
        return self.path.suffix in (".gz", ".zst")

    def _new_decoder(self) -> Any:
        if self.path.suffix == ".gz":
            return zlib.decompressobj(wbits=31)
        return _zstd(self.path) if self.path.suffix == ".zst" else None

    def _take(self, found: bytes) -> None:
        if self._read == len(self._head) < HEAD:
            self._head = (self._head + found)[:HEAD]
        self._read += len(found)
        plain = found if self._decoder is None else self._decompressed(found)
        cut = min(self._skip, len(plain))
        self._skip -= cut
        self.buffer += plain[cut:]

    def _decompressed(self, found: bytes) -> bytes:
        """Decompress; a file may be several gzip members or zstd frames one after the other."""
        out, data = [], found
        try:
            while data:
                out.append(self._decoder.decompress(data))
                if not self._decoder.eof:
                    break
                data = self._decoder.unused_data
                self._decoder = self._new_decoder()
        except Exception as error:  # zlib.error, and whatever the zstd library at hand raises
            raise InputError(
                f"{self.path}: cannot be decompressed ({error}); all up to byte {self.offset} of its text was read"
            ) from error
        return b"".join(out)

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def _zstd(path: Path) -> Any:
    """A decompressor of the standard library (from Python 3.14 on) or of the package zstandard."""
    try:
        from compression.zstd import ZstdDecompressor  # type: ignore[import-not-found,unused-ignore]

        return ZstdDecompressor()
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError as error:
        raise InputError(f"{path}: reading zstd needs a package: pip install zstandard") from error
    return zstandard.ZstdDecompressor().decompressobj()
