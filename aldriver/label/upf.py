"""Pseudopotential files (UPF 1 and 2): element, functional, valence and hashes. Which file is used is the recipe's."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from aldriver.core.errors import InputError

_NUMBER = r"([-+]?\d+\.?\d*(?:[eEdD][-+]?\d+)?)"


@dataclass(frozen=True, kw_only=True)
class Upf:
    """What a UPF file says of itself.

    Attributes
    ----------
    element
        Chemical symbol.
    functional
        Normalised: ``LDA``, ``PBE``, ``PBEsol``, ... or the file's own words.
    valence
        Electrons in the calculation.
    md5, sha256
        Of the whole file (pw.x prints the MD5).
    """

    element: str
    functional: str
    valence: float | None
    md5: str
    sha256: str


def read_upf(path: Path) -> Upf:
    """Read the header of a UPF file.

    Raises
    ------
    InputError
        When it is missing, unreadable, or names no element.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"pseudopotential {path}: {error.strerror}") from error
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _read(path: Path, _mtime_ns: int, _size: int) -> Upf:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"pseudopotential {path}: {error.strerror}") from error
    text = data[:200_000].decode("utf-8", errors="replace")
    element = _first(
        text, r'element="\s*([A-Z][a-z]?)\s*"', r"(?m)^\s*([A-Z][a-z]?)\s+Element\s*$", r"Element:\s*([A-Z][a-z]?)\b"
    )
    if element is None:
        raise InputError(f"pseudopotential {path}: names no element; is it a UPF file?")
    functional = _first(
        text,
        r'functional="([^"]*)"',
        r"(?m)^\s*((?:\S+\s+){1,5}?\S+)\s+Exchange-Correlation functional",
        r"Functional:\s*([^\n]*)",
    )
    valence = _first(text, rf'z_valence="\s*{_NUMBER}', rf"(?m)^\s*{_NUMBER}\s+Z valence")
    return Upf(
        element=element,
        functional=normalise_functional(functional or "unknown"),
        valence=None if valence is None else float(valence.replace("D", "E").replace("d", "e")),
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _first(text: str, *patterns: str) -> str | None:
    for pattern in patterns:
        match = re.search(pattern, text)
        if match:
            return match.group(1).strip()
    return None


def normalise_functional(words: str) -> str:
    """One name for the spellings of a functional (``SLA PW PBX PBC`` and ``SLA PW PBE PBE`` are PBE)."""
    tokens = words.upper().replace("+", " ").replace("-", " ").split()
    # version 1 of the format repeats the short name after the four components
    core = tokens[:4] if len(tokens) >= 4 else tokens
    known = {
        ("SLA", "PW", "PBE", "PBE"): "PBE",
        ("SLA", "PW", "PBX", "PBC"): "PBE",
        ("PBE",): "PBE",
        ("SLA", "PW", "PSX", "PSC"): "PBEsol",
        ("PBESOL",): "PBEsol",
        ("SLA", "PZ", "NOGX", "NOGC"): "LDA",
        ("SLA", "PZ", "NULL", "NULL"): "LDA",
        ("PZ",): "LDA",
        ("LDA",): "LDA",
        ("B88", "LYP"): "BLYP",
        ("SLA", "LYP", "B88", "BLYP"): "BLYP",
    }
    return known.get(tuple(core), " ".join(tokens))
