"""Levels of theory: which settings of a label decide its numbers, and whether two labels belong to one energy surface.

Owns the comparison of what outputs say (``FoundLabel.settings``) with each other and with a recipe's label block. The k
grid is no part of a level: at one density it changes with the cell. It is compared with a recipe's grid where known.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from ase import units

from aldriver.core import recipe_label
from aldriver.core.errors import InputError
from aldriver.core.records import jsonable
from aldriver.label.upf import read_upf

KEYS = ("code", "level", "method", "functional", "xc", "hubbard", "cutoff_eV", "density_cutoff_eV", "smearing",
        "width_eV", "spin", "also", "mode")  # fmt: skip
"""Settings that two labels of one level share; pseudopotentials are compared element by element."""
_TOLERANCE_EV = 0.01


def settings_digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 (8 hex characters) of the settings of one level (pseudopotentials included, structure left out)."""
    content = {k: jsonable(settings[k]) for k in KEYS if k in settings} | {"pseudos": pseudos(settings)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def pseudos(settings: Mapping[str, Any]) -> dict[str, str]:
    """Pseudopotential of each element: of a mapping as it is, of POTCAR titles by the element they name."""
    found = settings.get("pseudopotentials") or {}
    if isinstance(found, Mapping):
        return {str(k): str(v) for k, v in found.items()}
    out = {}
    for title in found:
        name = re.match(r"(?:\S+\s+)?([A-Z][a-z]?)(?:[_.\s]|$)", str(title))
        if name:
            out[name.group(1)] = str(title)
    return out


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between two settings, in words; what one of them does not know is no difference."""
    out = []
    have, want = pseudos(found), pseudos(wanted)
    for key in (*KEYS, "kpoints"):
        value = wanted.get(key)
        if key == "functional" and value is not None:
            value = _with_u_of(str(value), have)
        if found.get(key) is None or value is None or _same(found[key], value):
            continue
        out.append(f"{key} is {_show(found[key])}, not {_show(value)}")
    for element in sorted(set(have) & set(want)):
        if not _same_pseudo(have[element], want[element]):
            out.append(f"the pseudopotential of {element} is {have[element]}, not {want[element]}")
    return out


def _with_u_of(functional: str, elements: Collection[str]) -> str:
    """A functional with the U of those elements alone, in their order, as an output of a cell of theirs names it."""
    match = re.search(r"\+U \(([^)]*)\)", functional)
    if match is None or not elements:
        return functional
    values = dict(word.split() for word in match[1].split(", "))
    named = ", ".join(f"{e} {values[e]}" for e in elements if e in values)
    return functional.replace(match[0], f"+U ({named})" if named else "")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return bool(a) == bool(b)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= _TOLERANCE_EV
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return list(a) == list(b)
    return str(a).casefold() == str(b).casefold()


def _same_pseudo(a: str, b: str) -> bool:
    """By checksum where both have one (the file may be called anything), else by name."""
    sums = [re.search(r"md5:([0-9a-f]{32})", x) for x in (a, b)]
    if all(sums):
        return sums[0].group(1) == sums[1].group(1)  # type: ignore[union-attr]
    if "PAW" not in a or "PAW" not in b:
        return a == b
    words = [x.split() for x in (a, b)]
    known = min(len(w) for w in words)  # without the library a recipe knows no date
    return words[0][:known] == words[1][:known]


def _show(value: Any) -> str:
    return "x".join(str(x) for x in value) if isinstance(value, list | tuple) else f"{value}"


class Levels:
    """Levels met so far. Labels belong to one when nothing they both know differs and they know equally much."""

    def __init__(self) -> None:
        self.members: list[dict[str, Any]] = []

    def index(self, settings: Mapping[str, Any]) -> int:
        """Number of the level of these settings; a new one is added. Elements met later join a level."""
        own = {k: settings[k] for k in KEYS if settings.get(k) is not None} | {"pseudopotentials": pseudos(settings)}
        for k, level in enumerate(self.members):
            alike = level.keys() == own.keys() and level.get("functional") == own.get("functional")
            if alike and not differences(own, level):
                level["pseudopotentials"] |= own["pseudopotentials"]
                return k
        self.members.append(own)
        return len(self.members) - 1


def describe(settings: Mapping[str, Any]) -> str:
    """A level in a line, e.g. ``Quantum ESPRESSO: PBE, 600 eV, gaussian 0.1 eV, spin (1a2b3c4d)``."""
    words = [str(settings[k]) for k in ("level", "method", "functional", "xc", "hubbard") if settings.get(k)]
    if settings.get("cutoff_eV"):
        words.append(f"{settings['cutoff_eV']:g} eV")
    if settings.get("smearing"):
        width = f" {settings['width_eV']:g} eV" if settings.get("width_eV") else ""
        words.append(f"{settings['smearing']}{width}")
    if settings.get("spin") is not None:
        words.append("spin" if settings["spin"] else "no spin")
    if settings.get("also"):
        words.append(str(settings["also"]))
    code = settings.get("code") or "unknown"
    return f"{code}: {', '.join(words) or 'level of theory not stated'} ({settings_digest(settings)})"


def wanted_settings(label: recipe_label.Label) -> dict[str, Any]:
    """What outputs must say to belong to a recipe's label block; only what the block fixes.

    Raises
    ------
    InputError
        When nothing can be compared with this engine (a stand-in).
    """
    if label.engine == "espresso" and label.espresso is not None:
        return _espresso(label.espresso)
    if label.engine == "vasp" and label.vasp is not None:
        return _vasp(label.vasp)
    if label.engine == "gpaw" and label.gpaw is not None:
        return _gpaw(label.gpaw)
    if label.engine == "calculator":
        raise InputError("label.engine 'calculator' is a stand-in: finished DFT outputs do not belong to its labels")
    return {"code": {"cp2k": "CP2K"}.get(label.engine, label.engine)}


def _vasp(v: recipe_label.Vasp) -> dict[str, Any]:
    from aldriver.label.vasp_input import functional_name, potcar_title

    kind = "methfessel-paxton 1" if v.smearing == "methfessel-paxton" else v.smearing
    return {
        "code": "VASP",
        "functional": functional_name(v),
        "cutoff_eV": v.encut_eV,
        "smearing": f"{kind} {v.sigma_eV:g} eV",
        "spin": v.spin,
        "kpoints": None if v.kpoints is None else list(v.kpoints),
        "pseudopotentials": {e: potcar_title(e, v) for e in v.potcars},
    }


def _gpaw(g: recipe_label.Gpaw) -> dict[str, Any]:
    return {
        "code": "GPAW",
        "functional": g.xc,
        "cutoff_eV": g.ecut_eV,
        "spin": g.spin,
        "kpoints": None if g.kpoints is None else list(g.kpoints),
        **({} if g.smearing == "none" else {"smearing": g.smearing, "width_eV": g.width_eV}),
    }


def _espresso(e: recipe_label.Espresso) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "code": "Quantum ESPRESSO",
        "cutoff_eV": round(e.ecutwfc_Ry * units.Ry, 3),
        "density_cutoff_eV": round((e.ecutrho_Ry or 4 * e.ecutwfc_Ry) * units.Ry, 3),
        "spin": e.spin,
        "smearing": "fixed" if e.smearing == "none" else e.smearing,
    }
    kpoints = getattr(e, "kpoints", None)
    if kpoints is not None:
        wanted["kpoints"] = list(kpoints)
    if e.smearing != "none":
        wanted["width_eV"] = round(e.degauss_Ry * units.Ry, 5)
    files = {}
    for element, name in e.pseudopotentials.items():
        try:
            files[element] = f"{name} md5:{read_upf(e.pseudo_dir.expanduser().absolute() / name).md5}"
        except InputError:
            files[element] = name
    return wanted | {"pseudopotentials": files}
