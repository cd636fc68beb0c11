from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark


@pytest.fixture
def frames(fe, fe_frames):
    """Labelled by the potential itself, with another zero of energy and a force error of known size."""
    out, rng = [], np.random.default_rng(1)
    for atoms, p in zip(fe_frames, fe.evaluate(fe_frames), strict=True):
        labelled = atoms.copy()
        noise = 0.1 * rng.choice([-1.0, 1.0], p.forces.shape)
        labelled.calc = SinglePointCalculator(
            labelled, energy=p.energy + 123.0 * len(atoms), forces=p.forces + noise, stress=p.stress
        )
        out.append(labelled)
    return out


def measured(potential, path, cache=None):
    settings = Benchmark(properties=["errors"], cases=["bcc-Fe"], errors={"frames": {"bcc-Fe": path}})
    return {r.property: r for r in run_suite(potential, settings, cache_dir=cache)}


def test_errors_of_known_size(fe, frames, tmp_path):
    write(tmp_path / "frames.extxyz", frames)
    found = measured(fe, tmp_path / "frames.extxyz")
    assert all(r.converged and r.reason == "" for r in found.values())
    assert found["energy_rmse"].value == pytest.approx(0.0, abs=1e-2)  # a zero of energy is no error
    assert found["force_rmse"].value == pytest.approx(100.0, rel=1e-4)
    assert found["force_mae"].value == pytest.approx(100.0, rel=1e-4)
    assert found["stress_rmse"].value == pytest.approx(0.0, abs=1e-4)
    assert found["force_rmse"].force_calls == len(frames)


def test_other_frames_in_the_file_are_another_property(fe, frames, tmp_path):
    path = tmp_path / "frames.extxyz"
    write(path, frames)
    measured(fe, path, tmp_path)
    for atoms in frames:
        atoms.calc.results["forces"] = atoms.calc.results["forces"] + 0.5
    write(path, frames)
    assert measured(fe, path, tmp_path)["force_rmse"].value > 400


def test_without_stress_labels(fe, frames, tmp_path):
    for atoms in frames:
        atoms.calc.results.pop("stress")
    write(tmp_path / "frames.extxyz", frames)
    found = measured(fe, tmp_path / "frames.extxyz")
    assert found["stress_rmse"].value is None and "stress label" in found["stress_rmse"].reason
    assert found["force_rmse"].converged


@pytest.mark.parametrize("content", ["missing", "empty", "unlabelled", "unnamed"])
def test_bad_input_is_a_reason(fe, frames, tmp_path, content):
    path = tmp_path / "frames.extxyz"
    if content == "empty":
        path.touch()
    elif content == "unlabelled":
        write(path, [atoms.copy() for atoms in frames])
    if content == "unnamed":
        records = run_suite(fe, Benchmark(properties=["errors"], cases=["bcc-Fe"]), cache_dir=None)
        assert all("benchmark.errors.frames" in r.reason for r in records)
    else:
        records = list(measured(fe, path).values())
        assert all(str(path) in r.reason for r in records)
    assert all(r.value is None and not r.converged for r in records)


def test_a_potential_of_copper_on_dft(cu, shared_data):
    """On DFT frames, against the errors computed here by hand."""
    path = shared_data / "mlearn" / "Cu_test.extxyz"
    settings = Benchmark(properties=["errors"], cases=["fcc-Cu"], errors={"frames": {"fcc-Cu": path}})
    found = {r.property: r.value for r in run_suite(cu, settings, cache_dir=None)}
    labelled = read(path, ":")
    predicted = cu.evaluate([a.copy() for a in labelled])
    off = np.concatenate([(p.forces - a.get_forces()).ravel() for a, p in zip(labelled, predicted, strict=True)])
    assert found["force_rmse"] == pytest.approx(1e3 * np.sqrt(np.mean(off**2)), rel=1e-6)
    per_atom = np.array(
        [(p.energy - a.get_potential_energy()) / len(a) for a, p in zip(labelled, predicted, strict=True)]
    )
    assert found["energy_rmse"] == pytest.approx(1e3 * per_atom.std(), rel=1e-3)
