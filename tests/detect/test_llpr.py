from __future__ import annotations

import numpy as np
import pytest

from aldriver.core.errors import InputError
from aldriver.detect.committee import spread
from aldriver.detect.llpr import LastLayer

WIDTH = 6


def some_forces(count: int, seed: int, scale: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    widths = np.geomspace(1.0, 0.05, WIDTH) * scale
    return [rng.normal(size=(4, 3, WIDTH)) * widths for _ in range(count)]


@pytest.fixture(scope="module")
def known() -> list[np.ndarray]:
    return some_forces(20, 0)


def test_exact_variance_is_that_of_the_dense_formula(known):
    layer = LastLayer.fit(known)
    rows = np.concatenate(known).reshape(-1, WIDTH)
    covariance = np.linalg.inv(rows.T @ rows + layer.ridge * np.eye(WIDTH))
    new = some_forces(1, 1)[0]
    expected = [np.sqrt(sum(g @ covariance @ g for g in atom)) for atom in new]
    np.testing.assert_allclose(layer.deviations(new), expected, rtol=1e-8)


def test_sampled_layers_estimate_the_exact_variance(known):
    """The relative error of a variance from K samples is about √(2/(3K))."""
    exact, many = LastLayer.fit(known), LastLayer.fit(known, heads=4000, seed=1)
    new = some_forces(1, 2)[0]
    np.testing.assert_allclose(many.deviations(new @ many.directions), exact.deviations(new), rtol=0.05)
    few = [LastLayer.fit(known, heads=4, seed=s) for s in range(300)]
    mean = np.mean([np.square(f.deviations(new @ f.directions)) for f in few], axis=0)
    np.testing.assert_allclose(mean, np.square(exact.deviations(new)), rtol=0.15)  # unbiased


def test_the_noise_scale_is_found_from_held_out_errors(known):
    """Errors drawn from the model itself: α comes back, and standardised errors are standard normal."""
    layer, true = LastLayer.fit(known), 0.037
    held = some_forces(400, 3)
    rng = np.random.default_rng(4)
    root = np.linalg.cholesky(np.linalg.inv(sum(r.reshape(-1, WIDTH).T @ r.reshape(-1, WIDTH) for r in known)))
    errors = [true * np.sqrt(np.square(g @ root).sum(axis=-1)) * rng.normal(size=(4, 3)) for g in held]
    found = layer.calibrated(held, errors)
    assert found.scale == pytest.approx(true, rel=0.05)
    z = np.concatenate([np.linalg.norm(e, axis=1) / found.deviations(g) for e, g in zip(errors, held, strict=True)])
    assert np.mean(z**2) == pytest.approx(1.0, rel=0.1)


def test_calibration_does_not_depend_on_the_unit_of_the_inputs(known):
    held = some_forces(50, 5)
    errors = [0.1 * np.random.default_rng(k).normal(size=(4, 3)) for k in range(50)]
    a = LastLayer.fit(known).calibrated(held, errors).deviations(held[0])
    b = LastLayer.fit([1e3 * g for g in known]).calibrated([1e3 * g for g in held], errors).deviations(1e3 * held[0])
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_more_data_of_a_kind_make_it_surer_and_new_directions_do_not(known):
    new = some_forces(1, 6)[0]
    few, many = (LastLayer.fit(some_forces(n, 7)) for n in (5, 50))
    assert (many.deviations(new) < few.deviations(new)).all()
    flat = [g * np.r_[np.ones(WIDTH - 1), 0.0] for g in known]
    layer = LastLayer.fit(flat)
    inside, outside = np.zeros((2, 1, 3, WIDTH))
    inside[..., 0], outside[..., -1] = 1.0, 1.0
    assert layer.deviations(outside)[0] > 100 * layer.deviations(inside)[0]


def test_what_cannot_be_fitted_or_calibrated_is_refused(known):
    with pytest.raises(InputError, match="at least one known frame"):
        LastLayer.fit([])
    with pytest.raises(InputError, match="not finite"):
        LastLayer.fit([np.full((2, 3, WIDTH), np.nan)])
    layer = LastLayer.fit(known)
    for errors in ([], [np.full((4, 3), np.nan)], [np.zeros((4, 3))]):
        with pytest.raises(InputError, match="held-out"):
            layer.calibrated(known[: len(errors)], errors)


def test_spread_is_the_sample_deviation_and_needs_two():
    rng = np.random.default_rng(0)
    forces = rng.normal(size=(3, 5, 3))
    np.testing.assert_allclose(spread(list(forces)), np.sqrt(forces.var(axis=0, ddof=1).sum(axis=1)))
    assert (spread([forces[0], forces[0]]) == 0).all()
    for members in ([], [forces[0]]):
        with pytest.raises(InputError, match="at least 2 potentials"):
            spread(members)
