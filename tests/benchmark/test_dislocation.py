from __future__ import annotations

import numpy as np
import pytest

from aldriver.benchmark import dislocation
from aldriver.benchmark.band import Band, climb
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.dislocation import cylinders, without_tilt
from aldriver.benchmark.suite import run_suite
from aldriver.core.recipe_benchmark import Benchmark
from aldriver.core.recipe_extended import Dislocation

A = 2.8553
CONSTANTS = {"c11": 243.4, "c12": 145.0, "c44": 116.0}  # M. I. Mendelev et al., Philos. Mag. 83, 3977 (2003)
SMALL = Dislocation(kinds=["screw"], radius_A=17, images=5)


@pytest.mark.parametrize(("kind", "burgers"), [("screw", A * 3**0.5 / 2), ("edge", A)])
def test_a_circuit_around_the_line_closes_by_a_burgers_vector(bcc_fe, kind, burgers):
    """The line is one b long, in both kinds; the relative shift of neighbouring atoms sums up to b around the core."""
    start, end = cylinders(bcc_fe, A, kind, CONSTANTS, 22.0)
    assert start.cell[2, 2] == pytest.approx(burgers, rel=1e-6)
    assert len(start) == len(end) and (start.cell == end.cell).all()
    held = start.constraints[0].index
    assert (held == end.constraints[0].index).all()
    assert np.abs(start.positions[held] - end.positions[held]).max() < 1e-9
    away = start.positions[:, :2] - start.cell.diagonal()[:2] / 2
    radius, angle = np.linalg.norm(away, axis=1), np.arctan2(away[:, 1], away[:, 0])
    ring = np.flatnonzero((radius > 14) & (radius < 18))
    ring = ring[np.argsort(angle[ring])]
    along, spacing = (2, burgers / 3) if kind == "screw" else (0, A / 2)  # of the planes that the circuit crosses
    phase = 2 * np.pi * start.positions[[*ring, ring[0]], along] / spacing
    steps = np.diff(phase)
    shift = spacing * (steps - 2 * np.pi * np.round(steps / (2 * np.pi))).sum() / (2 * np.pi)
    assert abs(shift) == pytest.approx(burgers, abs=1e-6)


def test_as_many_atoms_at_any_lattice_constant(bcc_fe):
    sizes = {len(cylinders(bcc_fe, a, "screw", CONSTANTS, 20.0)[0]) for a in (2.80, 2.85, 2.95)}
    assert len(sizes) == 1


def test_the_way_of_a_screw_is_symmetric_and_has_two_humps(fe, bcc_fe, monkeypatch):
    """Symmetry makes both valleys, and both halves of the way, equal; this potential has a hollow in its middle."""
    bands = []

    def kept(*args, **options):
        bands.append(climb(*args, **options))
        return bands[-1]

    monkeypatch.setattr(dislocation, "climb", kept)
    (value,) = dislocation.compute(Bench(fe), bcc_fe, A, SMALL.model_copy(update={"images": 7}))
    (band,) = bands
    assert band.energies == pytest.approx(band.energies[::-1], abs=value.error)
    assert band.energies[4] < band.energies.max() - value.error
    assert (value.property, value.unit) == ("peierls_barrier(screw)", "eV/b")
    assert value.converged and value.reason == ""
    assert value.error < 2e-3
    assert 1e-3 < value.value < 0.03


def test_the_tilt_of_a_path_is_taken_out(fe_cell):
    images = []
    for k in range(5):
        images.append(fe_cell.copy())
        images[-1].positions[0, 0] += 0.1 * k
    energies = np.array([0.0, 0.01, 0.02, 0.01, 0.0]) + 0.002 * np.arange(5)
    band = Band(images=images, energies=energies, fmax=0.0, steps=1, converged=True)
    barrier, tilt = without_tilt(band)
    assert (barrier, tilt) == (pytest.approx(0.02), pytest.approx(0.008))


def test_what_is_no_path_is_a_reason(fe, bcc_fe, monkeypatch):
    bench = Bench(fe)
    monkeypatch.setattr(dislocation, "MOVED", 9.0)
    (value,) = dislocation.compute(bench, bcc_fe, A, SMALL)
    assert value.value is None and "same place" in value.reason
    monkeypatch.setattr(dislocation, "MAX_STEPS", 1)
    (value,) = dislocation.compute(bench, bcc_fe, A, SMALL)
    assert value.value is None and "stopped after 1 steps" in value.reason


def test_a_band_that_stops_early_says_so(fe, bcc_fe, monkeypatch):
    monkeypatch.setattr(dislocation, "climb", lambda *ends, **settings: climb(*ends, **settings | {"max_steps": 2}))
    (value,) = dislocation.compute(Bench(fe), bcc_fe, A, SMALL)
    assert not value.converged
    assert "the band stopped after 2 steps" in value.reason


def test_unequal_valleys_are_not_trusted(fe, bcc_fe, monkeypatch):
    def tilted(*args, **options):
        energies = np.linspace(0.0, 0.5, len(images))
        return Band(images=images, energies=energies, fmax=0.0, steps=1, converged=True)

    images = list(cylinders(bcc_fe, A, "screw", CONSTANTS, 17.0))
    monkeypatch.setattr(dislocation, "climb", tilted)
    (value,) = dislocation.compute(Bench(fe), bcc_fe, A, SMALL)
    assert not value.converged and "dislocation.radius_A" in value.reason


def test_fcc_is_a_record_with_a_reason(cu):
    records = run_suite(cu, Benchmark(properties=["dislocation"], cases=["fcc-Cu"]), cache_dir=None)
    assert {r.property for r in records} == {"peierls_barrier(screw)", "peierls_barrier(edge)"}
    assert all(r.value is None and "bcc metals" in r.reason for r in records)
