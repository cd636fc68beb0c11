"""The program of an engine: found in its command line, named in the keys of its labels, compared with its output.

One rule for all engines: the identity of a code is the version that the recipe names (``version:``), and without one
a hash of the binary found here. On a cluster the binary may be on the compute nodes alone; whoever looks for labels on
the login node finds them by the version, which each output is compared with.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from aldriver.core.errors import InputError
from aldriver.core.store import sha256_file
from aldriver.label.attempts import ABSENT, Ending


@dataclass(frozen=True, kw_only=True)
class Program:
    """The program in a command line such as ``mpirun -np 4 pw.x -nk 2``.

    Attributes
    ----------
    engine
        Of the recipe (``label.<engine>``).
    command, default
        The command line, and what an empty one means.
    pattern
        Regular expression for the file name of the binary, which tells it from its launcher.
    version
        Named by the recipe, or None.
    """

    engine: str
    command: str
    default: str
    pattern: str
    version: str | None = None

    @property
    def words(self) -> list[str]:
        """The command line in words.

        Raises
        ------
        InputError
            When a quotation in it is not closed.
        """
        try:
            return shlex.split(self.command) or [self.default]
        except ValueError as error:
            raise InputError(f"label.{self.engine}.command {self.command!r}: {error}") from error

    @property
    def name(self) -> str:
        """The binary as the command line names it; the last word that looks like it, for options may as well."""
        words = self.words
        alike = [w for w in words if not w.startswith("-") and re.search(self.pattern, Path(w).name)]
        return alike[-1] if alike else words[0]

    @property
    def binary(self) -> Path | None:
        """Where it is; None when it is not on this host."""
        found = shutil.which(self.name)
        return None if found is None else Path(found).resolve()

    @property
    def sha256(self) -> str | None:
        """Hash of the binary."""
        binary = self.binary
        if binary is None:
            return None
        stat = binary.stat()
        return _sha256(binary, stat.st_mtime_ns, stat.st_size)

    @property
    def code_id(self) -> str:
        """Identity of the code, a part of each label's key."""
        if self.version is not None:
            return f"{self.engine}:{self.version}"
        sha256 = self.sha256
        return f"{self.engine}:absent" if sha256 is None else f"{self.engine}:{sha256[:16]}"

    def missing(self) -> list[str]:
        """Launcher and binary that are not on PATH."""
        return [word for word in dict.fromkeys([self.words[0], self.name]) if shutil.which(word) is None]

    def absence(self, ending: Ending) -> dict[str, Any]:
        """Mark of a crash that came about because launcher or binary are not on PATH (a container may hold them)."""
        return {ABSENT: True} if ending.retry and self.missing() else {}


def version_problem(engine: str, wanted: str | None, used: str | None) -> str:
    """Why an output is not by the version the recipe names (6.4 is also 6.4.2, not 6.41); empty when it is."""
    if wanted is None or re.match(rf"{re.escape(wanted)}(?!\d)", used or ""):
        return ""
    return f"{engine} {used or 'of unknown version'} computed it, the recipe says {wanted} (label.{engine}.version)"


@lru_cache(maxsize=16)
def _sha256(path: Path, _mtime_ns: int, _size: int) -> str:
    return sha256_file(path)
