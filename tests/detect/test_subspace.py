from __future__ import annotations

import numpy as np
import pytest

from aldriver.core.errors import InputError
from aldriver.detect.subspace import Subspace


@pytest.fixture
def rotated() -> np.ndarray:
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    return 5.0 + (rng.normal(size=(200, 12)) * np.linspace(3.0, 0.1, 12)) @ axes


def test_agrees_with_the_eigenvectors_of_the_covariance(rotated):
    space = Subspace.fit(rotated, components=4)
    values, vectors = np.linalg.eigh(np.cov(rotated.T))
    values, vectors = values[::-1][:4], vectors[:, ::-1][:, :4]
    assert np.allclose(space.variances, values, rtol=1e-10)
    new = rotated[:7] + 1.0
    z = (new - rotated.mean(axis=0)) @ vectors
    assert np.allclose(np.abs(space.scores(new)), np.abs(z))
    assert np.allclose(space.t2(new), (z**2 / values).sum(axis=1))
    assert np.allclose(space.q_residual(new), ((new - rotated.mean(axis=0) - z @ vectors.T) ** 2).sum(axis=1))


def test_q_and_the_part_inside_add_up_to_the_whole_distance(rotated):
    space = Subspace.fit(rotated, components=5)
    new = np.random.default_rng(2).normal(size=(20, 12)) * 10
    inside = (space.scores(new) ** 2).sum(axis=1)
    assert np.allclose(space.q_residual(new) + inside, ((new - space.mean) ** 2).sum(axis=1))


def test_means_over_the_fitted_rows(rotated):
    """Mean T² = k(n−1)/n, mean Q = what the kept components do not explain."""
    n, k = len(rotated), 5
    space = Subspace.fit(rotated, components=k)
    assert space.t2(rotated).mean() == pytest.approx(k * (n - 1) / n)
    left = space.spread - space.variances.sum()
    assert space.q_residual(rotated).mean() == pytest.approx(left * (n - 1) / n)
    assert space.explained == pytest.approx(space.variances.sum() / np.trace(np.cov(rotated.T)))


def test_the_mean_has_no_novelty(rotated):
    space = Subspace.fit(rotated, components=5)
    assert space.q_residual(space.mean[None]) == pytest.approx(0.0, abs=1e-20)
    assert space.t2(space.mean[None]) == pytest.approx(0.0, abs=1e-20)


def test_t2_of_gaussian_rows_follows_hotelling():
    """T² of a new row ~ k(n²−1)/(n(n−k)) F(k, n−k) when all variance lies in the subspace."""
    from scipy import stats

    rng = np.random.default_rng(3)
    n, k = 60, 3
    scale = np.array([2.0, 1.0, 0.5])
    values = []
    for _ in range(300):
        space = Subspace.fit(rng.normal(size=(n, k)) * scale, components=k)
        values.append(space.t2(rng.normal(size=(1, k)) * scale)[0])
    expected = stats.f(k, n - k, scale=k * (n**2 - 1) / (n * (n - k)))
    assert stats.kstest(values, expected.cdf).pvalue > 1e-3


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_short_data_keep_fewer_components(rotated, n):
    space = Subspace.fit(rotated[:n], components=5)
    assert len(space.components) == min(5, (n - 1) // 2)
    new = rotated[50:60]
    assert np.isfinite(space.q_residual(new)).all() and np.isfinite(space.t2(new)).all()
    if n < 3:
        assert (space.t2(new) == 0).all()
        assert np.allclose(space.q_residual(new), ((new - space.mean) ** 2).sum(axis=1))


def test_directions_without_variance_are_left_to_q():
    rng = np.random.default_rng(4)
    flat = np.outer(rng.normal(size=50), np.ones(6)) + 1000.0
    space = Subspace.fit(flat, components=4)
    assert len(space.components) == 1
    off = flat[:1] + np.array([1.0, -1, 0, 0, 0, 0])
    assert space.q_residual(off)[0] == pytest.approx(2.0, rel=1e-6)
    assert space.t2(off)[0] < 50


def test_identical_rows_are_safe():
    space = Subspace.fit(np.full((30, 4), 7.0), components=2)
    assert len(space.components) == 0 and space.spread > 0
    assert space.q_residual(np.full((1, 4), 7.0))[0] == 0.0


@pytest.mark.parametrize("bad", [np.zeros((0, 4)), np.array([[1.0, np.nan]]), np.array([[1.0, np.inf]])])
def test_unusable_rows_are_refused(bad):
    with pytest.raises(InputError):
        Subspace.fit(bad, components=2)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_share_keeps_the_fewest_components_that_explain_it(rotated, share):
    space = Subspace.fit(rotated, components=share)
    assert space.explained >= share
    fewer = Subspace.fit(rotated, components=len(space.components) - 1) if len(space.components) > 1 else None
    assert fewer is None or fewer.explained < share
