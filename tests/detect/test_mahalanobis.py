from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aldriver.core.errors import InputError
from aldriver.detect.mahalanobis import Gaussian


def test_equals_the_textbook_distance_with_the_shrunk_covariance():
    from sklearn.covariance import LedoitWolf

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6))
    model, reference = Gaussian.fit(x), LedoitWolf().fit(x / x.std(axis=0))
    new = rng.normal(size=(10, 6)) * 3
    assert np.allclose(model.distance(new) ** 2, reference.mahalanobis(new / x.std(axis=0)))
    assert model.shrinkage == pytest.approx(reference.shrinkage_)


def test_squared_distance_of_gaussian_rows_is_chi_squared():
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(4, 4))
    model = Gaussian.fit(rng.normal(size=(20000, 4)) @ mixing)
    squared = model.distance(rng.normal(size=(1000, 4)) @ mixing) ** 2
    assert stats.kstest(squared, stats.chi2(4).cdf).pvalue > 1e-3


def test_units_of_the_columns_do_not_matter():
    rng = np.random.default_rng(4)
    x, new, units = rng.normal(size=(30, 6)), rng.normal(size=(5, 6)), 10.0 ** np.arange(-1.0, 2.0, 0.5)
    assert np.allclose(Gaussian.fit(x * units).distance(new * units), Gaussian.fit(x).distance(new))


def test_a_column_that_never_varied_counts_when_it_does():
    rng = np.random.default_rng(5)
    x = np.column_stack([rng.normal(size=(40, 3)), np.full(40, 2.0)])
    model = Gaussian.fit(x)
    assert 1e2 < model.distance(np.array([[0.0, 0.0, 0.0, 3.0]]))[0] < np.inf


def test_more_columns_than_rows_is_safe():
    rng = np.random.default_rng(2)
    model = Gaussian.fit(rng.normal(size=(10, 64)))
    assert 0 < model.shrinkage <= 1
    assert np.isfinite(model.distance(rng.normal(size=(5, 64)) * 100)).all()


def test_one_or_identical_rows_are_safe():
    for x in (np.ones((1, 3)), np.ones((9, 3))):
        model = Gaussian.fit(x)
        assert model.distance(np.ones((1, 3)))[0] == 0
        assert 1e3 < model.distance(2 * np.ones((1, 3)))[0] < np.inf


def test_farther_along_any_direction_is_stranger():
    rng = np.random.default_rng(3)
    model = Gaussian.fit(rng.normal(size=(50, 5)))
    direction = rng.normal(size=5)
    d = model.distance(model.mean + np.outer(np.arange(5.0), direction))
    assert np.allclose(np.diff(d), d[1])


@pytest.mark.parametrize("bad", [np.zeros((0, 4)), np.array([[1.0, np.nan]])])
def test_unusable_rows_are_refused(bad):
    with pytest.raises(InputError):
        Gaussian.fit(bad)
