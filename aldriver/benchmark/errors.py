"""Errors of energy, forces and stress on labelled frames of a case, as properties.

Protocol: all frames of the file given for the case are evaluated as they are. Labels of another method differ from the
potential by an energy per atom of each element (pseudopotentials, corrections, the atom as zero): the least-squares one
is taken out of the energies first, so that they tell about differences of energy only. There is no numerical error.
The errors themselves are ``evaluate.py``'s; that no frame was trained on is the user's knowledge.
"""

from __future__ import annotations

import hashlib

import numpy as np

from aldriver.benchmark.bench import Bench
from aldriver.benchmark.evaluate import errors, predict
from aldriver.benchmark.measure import Value
from aldriver.core.energy_shift import shift_of
from aldriver.core.errors import InputError
from aldriver.core.frames import label_of, read_frames
from aldriver.core.recipe_benchmark import Case
from aldriver.core.recipe_extended import Errors

VERSION = 1
METRICS = {
    "energy_rmse": ("energy_rmse_meV_atom", "meV/atom"),
    "energy_mae": ("energy_mae_meV_atom", "meV/atom"),
    "force_rmse": ("forces_rmse_meV_A", "meV/Å"),
    "force_mae": ("forces_mae_meV_A", "meV/Å"),
    "stress_rmse": ("stress_rmse_GPa", "GPa"),
}
"""Property: key of :func:`aldriver.benchmark.evaluate.errors`, and unit."""


def units(case: Case, options: Errors) -> dict[str, str]:
    """Names and units of the values."""
    return {name: unit for name, (_, unit) in METRICS.items()}


def content(case: Case, options: Errors) -> str:
    """Digest of the frames: a file that has changed is another property."""
    path = options.frames.get(case.name)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else ""


def compute(bench: Bench, case: Case, a: float, options: Errors) -> list[Value]:
    """Root-mean-square and mean absolute errors; a stress that no frame is labelled with is a reason.

    Raises
    ------
    InputError
        When there is no file for the case, or it is missing, empty or without labels.
    """
    path = options.frames.get(case.name)
    if path is None:
        raise InputError(f"there are no labelled frames for {case.name}: name their file in benchmark.errors.frames")
    frames = read_frames(path, labelled=True)
    if not frames:
        raise InputError(f"{path}: benchmark.errors.frames holds no frames")
    with bench.measure() as cost:
        found = predict(bench.potential, frames)
    counts = np.array([len(frame) for frame in frames])
    difference = (
        np.array([p.energy - float(label_of(f, "energy")) for p, f in zip(found, frames, strict=True)]) / counts
    )
    metrics = errors(frames, found, e0_shift=shift_of(frames, difference))
    values = []
    for name, (key, unit) in METRICS.items():
        value = metrics[key]
        reason = "" if value is not None else f"no frame of {path.name} has a stress label"
        values.append(
            Value(property=name, value=value, unit=unit, error=0.0, converged=not reason, reason=reason, cost=cost)
        )
    return values
