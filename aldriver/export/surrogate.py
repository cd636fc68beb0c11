"""The native surrogate: an ML-POD potential distilled from a refined one, measured, and refused where it is far off.

Owns the measure and the verdict. Which configurations there are, and what a benchmark is, its caller knows; the fit
itself is ``fitpod.py``'s, the files and their runs in LAMMPS are ``pod_form.py``'s. The idea is Radova et al., npj
Comput. Mater. (2025), doi:10.1038/s41524-025-01727-x: label many configurations by the refined network, fit a linear
expansion to them.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aldriver.core.errors import InputError
from aldriver.core.frames import bare, frame_hash, label_of, read_frames, with_labels, write_frames
from aldriver.core.records import PropertyRecord, dumps
from aldriver.core.store import atomic_write
from aldriver.core.units import EV_A3_TO_GPA
from aldriver.export.fitpod import fit_pod, shortest
from aldriver.export.form import Form
from aldriver.export.pod_form import pod_forms, speeds
from aldriver.potentials.base import Potential

OnProgress = Callable[[str, int, int], None]
"""(what is done, steps done, all steps)."""
CHUNK = 32
"""Frames labelled at a time; each chunk is kept, so that an interrupted export goes on where it was."""
CLOSE = 0.8
"""Frames with atoms nearer than this share of the usual nearest-neighbour distance are left out: a few of them would
set the inner cutoff, and the resolution everywhere else."""
RATTLED_EVERY, RATTLE_A = 6, 0.12
"""One learnt configuration of so many is also learnt rattled (standard deviation of a coordinate), so that distances
shorter than those of the configurations are known: below the shortest one learnt, errors reach eV/Å."""
HELD_OUT_EVERY = 4
"""One configuration (or trajectory) of so many is held out, where the caller knows nothing better."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a surrogate is made from and judged by.

    Attributes
    ----------
    learn, heldout
        Configurations to fit to, and others (of other trajectories) to judge it by; the parent labels both.
    labelled
        Frames with the reference's own forces: here the parent's own error is known. May be empty.
    max_force_rmse_meV_A
        Largest force error tolerated; None for `max_force_ratio` times the parent's own error on `labelled`.
    measure
        Benchmark of a potential; None where there is none.
    parent_records
        The parent's benchmark.
    cache
        Folder that keeps the parent's labels; None for none.
    """

    learn: Sequence[Atoms]
    heldout: Sequence[Atoms]
    labelled: Sequence[Atoms] = ()
    max_force_ratio: float = 2.0
    max_force_rmse_meV_A: float | None = None
    measure: Callable[[Potential], list[PropertyRecord]] | None = None
    parent_records: Sequence[PropertyRecord] = ()
    cache: Path | None = None


def distil(
    parent: Potential, material: Material, folder: Path, cell: Atoms, on_progress: OnProgress | None = None
) -> tuple[list[Form], dict[str, Any]]:
    """Fit, measure and judge a surrogate, and write it to `folder`: a saved potential with ``in.pod``, if fit for use.

    Parameters
    ----------
    cell
        Structure of the runs in LAMMPS.

    Returns
    -------
    tuple
        The forms (on one MPI rank, on two), and what ``surrogate.json`` holds.

    Raises
    ------
    InputError
        When no tolerance can be told, or there are no configurations.
    AldriverError
        When LAMMPS cannot fit or run it.
    """
    tell = on_progress or (lambda note, done, total: None)
    learn, heldout = physical([*material.learn, *_rattled(material.learn)]), physical(material.heldout)
    if not learn or not heldout:
        raise InputError("a surrogate needs configurations to learn from and others to be judged by; there are none")
    tolerance, own = _tolerance(parent, material)
    began = time.monotonic()
    known = _labelled(parent, learn, material.cache, lambda k: tell("labelling by the potential", k, len(learn)))
    judge = _labelled(parent, heldout, material.cache, lambda k: tell("labelling held-out frames", k, len(heldout)))
    with tempfile.TemporaryDirectory(prefix="aldriver-pod-") as scratch:
        tell("fitting (fitpod)", 0, 1)
        pod = fit_pod(known, Path(scratch) / "fit", name=f"pod of {parent.name}")
        tell("measuring", 0, 1)
        report: dict[str, Any] = {
            "parent": parent.fingerprint,
            "frames": {"learnt": len(known), "held_out": len(judge), "labelled": len(material.labelled)},
            "cutoff_A": pod.cutoff,
            "shortest_A": min(shortest(atoms) for atoms in learn),
            "tolerance_meV_A": tolerance,
            "parent_force_rmse_meV_A": own,
            "from_parent": {"learnt": _errors(pod, known), "held_out": _errors(pod, judge)},
            "force_rmse_meV_A": force_rmse(pod, material.labelled) if material.labelled else None,
            "benchmark": _benchmark(pod, material),
        }
        report["reason"] = verdict(report)
        tell("running and timing", 0, 1)
        made = Path(scratch) / "made"
        forms = pod_forms(parent, pod, made, cell)
        report["speed"] = speeds(parent, made, cell)
        report["seconds"] = time.monotonic() - began
        if report["reason"]:
            forms = [Form(form="pair_style pod", status="refused", reason=report["reason"])]
        elif all(form.status != "failed" for form in forms):
            shutil.copytree(made, folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "surrogate.json", dumps(report))
    return forms, report


def verdict(report: dict[str, Any]) -> str:
    """Why the surrogate must not be used, in words; empty when it may.

    Its forces may be off by the tolerance: from the parent on held-out configurations, from the reference where frames
    are labelled by it. A number that is not finite is too far off.
    """
    tolerance = report["tolerance_meV_A"]
    found = [("the potential, on held-out configurations", report["from_parent"]["held_out"]["forces_rmse_meV_A"])]
    if report["force_rmse_meV_A"] is not None:
        found.append(("the reference, on its labelled frames", report["force_rmse_meV_A"]))
    for what, value in found:
        if not value <= tolerance:
            return (
                f"not for use: its forces are off from {what} by {value:.1f} meV/Å, tolerated are {tolerance:.1f}. "
                "More configurations (export.surrogate.frames) or a larger tolerance (export.surrogate) may help."
            )
    lost = [name for name, row in report["benchmark"].items() if row["surrogate"] is None and row["parent"] is not None]
    return f"not for use: it has no {', '.join(lost)}, which the potential has" if lost else ""


def physical(frames: Sequence[Atoms]) -> list[Atoms]:
    """Periodic frames without atoms far closer than nearest neighbours usually are (:data:`CLOSE`)."""
    frames = [atoms for atoms in frames if atoms.cell.rank == 3 and atoms.pbc.all()]
    nearest = np.array([shortest(atoms) for atoms in frames])
    usual = float(np.median(nearest)) if len(nearest) else 0.0
    return [bare(atoms) for atoms, d in zip(frames, nearest, strict=True) if d >= CLOSE * usual]


def _rattled(frames: Sequence[Atoms]) -> list[Atoms]:
    """Rattled copies of some frames, drawn at random, so that no regularity of their order matters."""
    drawn = np.random.default_rng(0).permutation(len(frames))[: len(frames) // RATTLED_EVERY]
    copies = [frames[int(i)].copy() for i in drawn]
    for seed, atoms in enumerate(copies):
        atoms.rattle(RATTLE_A, seed=seed)
    return copies


def force_rmse(potential: Potential, frames: Sequence[Atoms]) -> float:
    """Root-mean-square error of force components against the frames' labels, meV/Å."""
    found = potential.evaluate(frames, stress=False)
    off = [p.forces - label_of(atoms, "forces") for p, atoms in zip(found, frames, strict=True)]
    return float(np.sqrt(np.mean(np.concatenate(off) ** 2)) * 1e3)


def _tolerance(parent: Potential, material: Material) -> tuple[float, float | None]:
    """Tolerated force error, and the parent's own where it is known; meV/Å."""
    own = force_rmse(parent, material.labelled) if material.labelled else None
    if material.max_force_rmse_meV_A is not None:
        return material.max_force_rmse_meV_A, own
    if own is None:
        raise InputError(
            f"{parent.name}: there are no labelled frames that tell its own error, so nothing tells which error a "
            "surrogate may have; name it (--tolerance, or export.surrogate.max_force_rmse_meV_A in a recipe)"
        )
    return material.max_force_ratio * own, own


def _labelled(
    parent: Potential, frames: Sequence[Atoms], cache: Path | None, done: Callable[[int], None]
) -> list[Atoms]:
    """Frames with the parent's energies, forces and stresses, read where an interrupted export left them."""
    out: list[Atoms] = []
    for start in range(0, len(frames), CHUNK):
        done(start)
        chunk = frames[start : start + CHUNK]
        key = hashlib.sha256("".join(map(frame_hash, chunk)).encode()).hexdigest()[:16]
        kept = None if cache is None else cache / parent.fingerprint / f"{key}.extxyz"
        if kept is not None and kept.is_file():
            out += read_frames(kept, labelled=True)
            continue
        found = [
            with_labels(a, energy=p.energy, forces=p.forces, stress=p.stress)
            for a, p in zip(chunk, parent.evaluate(chunk), strict=True)
        ]
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(f".{time.time_ns()}.extxyz")
            write_frames(part, found)
            part.replace(kept)
        out += found
    done(len(frames))
    return out


def _errors(pod: Potential, frames: Sequence[Atoms]) -> dict[str, float]:
    """Root-mean-square deviations from the parent's labels."""
    found = pod.evaluate(frames)
    energy = np.array([(p.energy - label_of(a, "energy")) / len(a) for p, a in zip(found, frames, strict=True)])
    forces = np.concatenate([(p.forces - label_of(a, "forces")).ravel() for p, a in zip(found, frames, strict=True)])
    stress = np.array([p.stress - label_of(a, "stress") for p, a in zip(found, frames, strict=True)])
    return {
        "energy_rmse_meV_atom": float(np.sqrt(np.mean(energy**2)) * 1e3),
        "forces_rmse_meV_A": float(np.sqrt(np.mean(forces**2)) * 1e3),
        "stress_rmse_GPa": float(np.sqrt(np.mean(stress**2)) * EV_A3_TO_GPA),
    }


def _benchmark(pod: Potential, material: Material) -> dict[str, dict[str, Any]]:
    """``case/property``: the parent's value and the surrogate's, with the unit."""
    if material.measure is None:
        return {}
    parent = {f"{r.case}/{r.property}": r for r in material.parent_records}
    rows: dict[str, dict[str, Any]] = {}
    for record in material.measure(pod):
        name = f"{record.case}/{record.property}"
        before = parent.get(name)
        rows[name] = {
            "unit": record.unit,
            "parent": before.value if before is not None and before.converged else None,
            "surrogate": record.value if record.converged else None,
            "reason": record.reason,
        }
    return rows
