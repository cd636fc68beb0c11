"""The tables of recipe keys in ``docs/recipe.md``, made from the schema so that they cannot go stale.

``python -m aldriver.testing.recipe_docs`` rewrites what is between the markers; the prose around it is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aldriver.core.errors import InputError
from aldriver.core.recipe import json_schema

BEGIN, END = "<!-- keys: begin (made by `python -m aldriver.testing.recipe_docs`) -->", "<!-- keys: end -->"

UNITS = {
    "_meV_A": "meV/Å",
    "_eV_atom": "eV/atom",
    "_eV_A": "eV/Å",
    "_eV": "eV",
    "_muB": "µB",
    "_GPa": "GPa",
    "_GB": "GB",
    "_Ry": "Ry",
    "_fs": "fs",
    "_K_per_ps": "K/ps",
    "_per_ps": "1/ps",
    "_A": "Å",
    "_K": "K",
    "_s": "s",
}
"""Unit by the end of a key; the longest end that fits counts."""

UNITS_OF = {
    "systems[].bulk.a": "Å",
    "systems[].bulk.c": "Å",
    "detect.soap.r_cut": "Å",
    "detect.soap.sigma": "Å",
    "label.core_hours": "core-hours",
    "label.espresso.kspacing_per_A": "1/Å",
    "label.gpaw.kspacing_per_A": "1/Å",
    "label.cp2k.kspacing_per_A": "1/Å",
    "benchmark.cases[].a": "Å",
    "benchmark.reference": "Å, GPa, eV",
}
"""Units of keys whose name does not tell."""

MEANINGS = {
    "name": "name of the campaign",
    "seed": "seed of everything random",
    "systems": "cells in which walkers start",
    "systems[].name": "name of the system",
    "systems[].bulk": "a perfect crystal, instead of `file`",
    "systems[].bulk.element": "chemical symbol",
    "systems[].bulk.lattice": "crystal structure",
    "systems[].supercell": "repeats of the cell along its three vectors",
    "systems[].vacancies": "atoms removed at random sites (drawn from `seed`)",
    "potential": "what to refine: `chgnet:0.3.0`, `sevennet:7net-0`, or the directory of a saved potential",
    "explore": "MD with the current potential: one walker per system × temperature × strain",
    "explore.engine": "what runs the MD",
    "explore.ensemble": "constant energy, constant volume and temperature, or constant pressure and temperature",
    "explore.temperatures_K": "one walker each",
    "explore.pressure_GPa": "target of `npt`",
    "explore.steps": "MD steps of a walker in each generation",
    "explore.timestep_fs": "MD time step",
    "explore.health": "limits outside which a walker has left physics: it ends there and the frames before are kept",
    "explore.health.max_temperature_K": "highest instantaneous temperature",
    "explore.health.max_force_eV_A": "largest force on an atom",
    "detect": "which frames count as extrapolation",
    "detect.signals": "what is measured of each atom",
    "detect.soap": "SOAP descriptor; defaults of Wong & Yang 2026",
    "detect.soap.r_cut": "cutoff radius",
    "detect.soap.n_max": "radial basis functions",
    "detect.soap.l_max": "highest degree of the spherical harmonics",
    "detect.soap.sigma": "width of the Gaussian on each atom",
    "detect.last_layer": "signal `last_layer`: uncertainty of the last layer of the network (CHGNet, MACE)",
    "label": "who labels frames, and how many",
    "label.engine": "who computes the reference energies, forces and stresses",
    "label.espresso": "settings for engine `espresso`",
    "label.espresso.command": "how `pw.x` is started, e.g. `mpirun -np 8 pw.x`",
    "label.espresso.pseudo_dir": "folder of the pseudopotential files",
    "label.espresso.pseudopotentials": "element: file name, one for each element",
    "label.espresso.ecutwfc_Ry": "plane-wave cutoff of the wave functions",
    "label.espresso.ecutrho_Ry": "cutoff of the density; pw.x takes 4 × `ecutwfc_Ry` when it is not given",
    "label.espresso.smearing": "smearing of the occupations",
    "label.espresso.degauss_Ry": "width of the smearing",
    "label.espresso.conv_thr_Ry": "convergence threshold of the SCF",
    "label.espresso.spin": "spin-polarised calculation",
    "label.espresso.starting_magnetization": "element: starting polarisation, −1 to 1",
    "label.espresso.max_scf_steps": "SCF steps after which a label counts as unconverged",
    "label.vasp": "settings for engine `vasp`: pymatgen's MP static set with what force labels need",
    "label.vasp.encut_eV": "plane-wave cutoff",
    "label.vasp.ediff_eV": "the electrons are converged when the energy changes by less",
    "label.vasp.smearing": "of the occupations; tetrahedra are not offered, as their forces are wrong in metals",
    "label.vasp.sigma_eV": "its width",
    "label.vasp.spin": "spin-polarised",
    "label.vasp.max_scf_steps": "electronic steps (NELM) before a run counts as unconverged",
    "label.timeout_s": "longest time of one label",
    "train": "how the potential is refined",
    "train.strategy": "which weights are trained, and how: [strategies](training.md#strategies)",
    "train.start": "weights each generation starts from; all labels so far are used either way",
    "train.epochs": "passes over the training frames",
    "train.learning_rate": "its peak; what decides first how much is forgotten",
    "train.schedule": "course of the learning rate after a short rise: to 1 %, down when validation stalls, or flat",
    "train.batch_size": "frames in a batch",
    "train.weights": "weights of the terms of the loss",
    "train.weights.energy": "weight of the energy (eV/atom)",
    "train.weights.forces": "weight of the forces (eV/Å)",
    "train.weights.stress": "weight of the stress (GPa)",
    "train.huber_delta": "where the Huber loss turns from quadratic to linear, in the unit of each term",
    "train.clip_norm": "largest norm of the gradient",
    "train.ema_decay": "decay of the running average of the weights that is kept in the end",
    "train.dtype": "precision of the training",
    "train.replay": "general knowledge rehearsed in every step: [replay](training.md#replay)",
    "train.lora": "strategy `lora`: low-rank updates beside frozen weights",
    "train.lora.rank": "of each update",
    "train.delta": "strategy `delta`: the network that learns what the foundation misses",
    "train.delta.family": "kind of that network",
    "train.delta.channels": "its width",
    "train.delta.cutoff_A": "its cutoff radius",
    "train.guard": "what a refined potential must not lose: [guards](training.md#guards)",
    "train.fallbacks[].strategy": "as `train.strategy`",
    "train.fallbacks[].learning_rate": "empty = that of `train`",
    "train.fallbacks[].epochs": "empty = that of `train`",
    "train.fallbacks[].replay": "instead of `train.replay`",
    "train.valid_fraction": "share of the labels held out for validation, by trajectory",
    "benchmark": "the suite each generation must pass",
    "benchmark.properties": "what is computed of each case",
    "benchmark.cases": "crystals to benchmark",
    "benchmark.stacking_fault": "options of [`stacking_fault`](benchmark_extended.md#faults)",
    "benchmark.traction": "options of [`traction`](benchmark_extended.md#openings)",
    "benchmark.errors": "options of [`errors`](benchmark_extended.md#errors)",
    "benchmark.forgetting": "options of [`forgetting`](benchmark_extended.md#forgetting)",
    "benchmark.adsorption": "options of [`adsorption`](benchmark_extended.md#adsorption)",
    "benchmark.adsorption.facets": "Miller indices of the surfaces",
    "benchmark.dislocation": "options of [`dislocation`](benchmark_extended.md#dislocations)",
    "benchmark.speed": "options of [`speed`](benchmark_extended.md#speed)",
    "benchmark.cases[].name": "name of the case",
    "benchmark.cases[].element": "chemical symbol",
    "benchmark.cases[].lattice": "crystal structure",
    "benchmark.binding": "property `binding`: [binding energies](benchmark_binding.md#binding-energies)",
    "benchmark.surface": "property `surface`: [surfaces](benchmark_binding.md#surfaces)",
    "benchmark.grain_boundary": "property `grain_boundary`: [grain boundaries](benchmark_binding.md#grain-boundaries)",
    "test": "independent labelled frames no generation trains on: a `file` or `temperatures_K`",
    "test.frames_per_walker": "last frames taken from each walker, evenly spaced",
    "test.steps": "MD steps of each walker",
    "gate": "when a generation is promoted",
    "stop": "when the campaign ends: at the first rule that holds",
    "stop.generations": "most generations",
    "stop.max_labels": "most labels in all",
    "export": "what `aldriver export` makes of the promoted potential: [export](export.md)",
    "export.surrogate": "a fast ML-POD potential fitted to it",
    "resources": "where and how much",
    "resources.categories": "stage: FireWorks category, for workers that take only some stages",
    "resources.device": "where potentials are evaluated and trained",
}
"""Meaning of keys whose field in the schema has no description of its own."""


@dataclass(frozen=True)
class Key:
    """One key of the recipe, as the table shows it."""

    path: str
    kind: str
    unit: str
    default: str
    meaning: str


def all_keys(schema: dict[str, Any] | None = None) -> list[Key]:
    """Every key of a recipe in the order of the schema; keys of a list's items have ``[]`` in their path."""
    schema = schema or json_schema()
    return list(_walk(schema, schema.get("$defs", {}), ""))


def _walk(section: dict[str, Any], defs: dict[str, Any], prefix: str) -> Iterator[Key]:
    for name, field in section["properties"].items():
        path = prefix + name
        inner, suffix = _section(field, defs)
        required = name in section.get("required", [])
        yield Key(
            path=path,
            kind=_kind(field, defs),
            unit=_unit(path),
            default="**required**" if required else _default(field, inner is not None and not suffix),
            meaning=field.get("description") or MEANINGS.get(path, ""),
        )
        if inner is not None:
            yield from _walk(inner, defs, f"{path}{suffix}.")


def _section(field: dict[str, Any], defs: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The block a key opens (or the items of its list are), with ``[]`` for a list."""
    for part in _parts(field):
        if "$ref" in part:
            target = defs[part["$ref"].rsplit("/", 1)[-1]]
            return (target, "") if "properties" in target else (None, "")
        if part.get("type") == "array" and "$ref" in part.get("items", {}):
            return _section(part["items"], defs)[0], "[]"
    return None, ""


def _parts(field: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a field, without `null` (an optional key says so by its default)."""
    return [p for p in field.get("anyOf") or field.get("allOf") or [field] if p.get("type") != "null"]


def _kind(field: dict[str, Any], defs: dict[str, Any]) -> str:
    return " or ".join(_kind_of(part, defs) for part in _parts(field))


def _kind_of(part: dict[str, Any], defs: dict[str, Any]) -> str:
    if "$ref" in part:
        target = defs[part["$ref"].rsplit("/", 1)[-1]]
        return "block" if "properties" in target else _kind(target, defs)
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return ", ".join(f"`{v}`" for v in part["enum"])
    kind = part.get("type", "any")
    if kind == "array":
        if "prefixItems" in part:
            return f"{len(part['prefixItems'])} × {_kind(part['prefixItems'][0], defs)}"
        return f"list of {_kind(part['items'], defs).replace('block', 'blocks')}"
    if kind == "object":
        return "mapping"
    names = {"string": "text", "boolean": "`true`, `false`"}
    return names.get(kind, kind) + _limits(part)


def _limits(part: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {part[key]:g}" for key, sign in signs.items() if key in part]
    return f" {', '.join(limits)}".replace("-", "−") if limits else ""


def _unit(path: str) -> str:
    if path in UNITS_OF:
        return UNITS_OF[path]
    ends = [end for end in UNITS if path.endswith(end)]
    return UNITS[max(ends, key=len)] if ends else ""


def _default(field: dict[str, Any], block: bool) -> str:
    value = field.get("default")
    if block:
        return "off" if value is None else "its defaults"
    if value in ([], {}) or (value is None and "null" not in str(field)):
        return "empty"  # the schema leaves out a default that is made afresh each time
    if value is None:
        return "–"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return f"`{text}`"


HEAD = ["| key | values | unit | default | meaning |", "| --- | --- | --- | --- | --- |"]


def table() -> str:
    """The Markdown tables: the plain keys first, then one for each block of the recipe."""
    found = all_keys()
    tops = [k for k in found if "." not in k.path]
    plain = [k for k in tops if not _opens_block(k)]
    lines = ["### At the top", "", *HEAD, *map(_row, plain)]
    for top in (k for k in tops if _opens_block(k)):
        needed = " Required." if "required" in top.default else ""
        intro = f"{top.meaning[:1].upper()}{top.meaning[1:]}.{needed}"
        inside = [k for k in found if k.path.startswith((f"{top.path}.", f"{top.path}[]."))]
        lines += ["", f"### `{top.path}`", "", intro, "", *HEAD, *map(_row, inside)]
    return "\n".join(lines)


def _opens_block(key: Key) -> bool:
    return key.kind in ("block", "list of blocks")


def _row(key: Key) -> str:
    cells = (f"`{key.path}`", key.kind, key.unit, key.default, key.meaning)
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def updated(text: str) -> str:
    """`text` of ``docs/recipe.md`` with the table between its markers made anew.

    Raises
    ------
    InputError
        When the markers are not there.
    """
    if BEGIN not in text or END not in text:
        raise InputError(f"docs/recipe.md: the markers {BEGIN} and {END} are missing")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n{table().strip()}\n\n{END}{after}"


def main() -> None:
    """Rewrite ``docs/recipe.md`` of this checkout, or the file given as an argument."""
    default = Path(__file__).resolve().parents[2] / "docs" / "recipe.md"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    path.write_text(updated(path.read_text()))


if __name__ == "__main__":
    main()
