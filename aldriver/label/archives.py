"""Archives of somebody else's results, unpacked safely: regular files only, nothing outside the folder, within a size.

Owns ``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.bz2``, ``.tar.xz`` and ``.zip``. What the files are is ``finding.py``.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from aldriver.core.errors import AldriverError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
MAX_BYTES = 20 * 1024**3
"""Unpacked size at which an archive is refused (a small file can unpack to fill any disk)."""


class ArchiveError(AldriverError):
    """An archive that cannot, or should not, be unpacked."""


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith(ENDINGS)


def unpack(archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Unpack the regular files of an archive into `folder`; links and devices are left out.

    Raises
    ------
    ArchiveError
        When it is damaged, larger than `max_bytes`, or a name in it points outside of it.
    """
    left = max_bytes
    try:
        for name, handle in _members(archive):
            target = folder / _inside(archive, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with handle, target.open("wb") as out:
                while block := handle.read(1024 * 1024):
                    left -= len(block)
                    if left < 0:
                        raise ArchiveError(f"{archive}: unpacks to more than {max_bytes / 1024**3:.3g} GiB")
                    out.write(block)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ArchiveError(f"{archive}: cannot be unpacked: {error}") from error
    except ArchiveError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                # the upper 16 bits hold the Unix mode: a link's type is 0xA000
                if not info.is_dir() and (info.external_attr >> 16) & 0xF000 != 0xA000:
                    yield info.filename, packed.open(info)
        return
    with tarfile.open(archive) as packed_tar:
        for member in packed_tar:
            if member.isreg():
                handle = packed_tar.extractfile(member)
                assert handle is not None
                yield member.name, handle
        assert packed_tar.fileobj is not None
        while packed_tar.fileobj.read(1024 * 1024):  # the checksum of the whole stands at the very end
            pass


def _inside(archive: Path, name: str) -> PurePosixPath:
    """A member's path, refused when it would leave the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise ArchiveError(f"{archive}: holds the name '{name}', which points outside of it; it is not unpacked")
    return path
