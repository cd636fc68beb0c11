from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aldriver.detect.fuse import FEWEST, aggregated, balanced, fitted, single


def made(frames: int, seed: int, powers=(0.6, 0.0), noise: float = 0.3):
    """Frames of 8 atoms whose error is a product of powers of the signals, with scatter; the last signal is noise."""
    rng = np.random.default_rng(seed)
    signals, errors = [], []
    for _ in range(frames):
        hot = rng.lognormal(0.0, 1.0)
        a, b = hot * rng.lognormal(0.0, 0.5, 8), rng.lognormal(0.0, 1.0, 8)
        signals.append({"soap_q": 3.0 * a, "committee": 0.01 * b})
        errors.append(0.2 * a ** powers[0] * b ** powers[1] * rng.lognormal(0.0, noise, 8))
    return signals, errors


def test_finds_the_powers_that_made_the_errors():
    formula = fitted(*made(200, 0, (0.6, 0.3)), "rms")
    assert formula.powers == pytest.approx({"soap_q": 0.6, "committee": 0.3}, abs=0.05)
    signals, errors = made(100, 1, (0.6, 0.3))
    ratio = [formula.frame(formula.atoms(s)) / aggregated(e, "rms") for s, e in zip(signals, errors, strict=True)]
    assert np.exp(np.mean(np.log(ratio))) == pytest.approx(1.0, abs=0.05)  # expected error, in eV/Å
    assert formula.text.count("×") == 2 and "eV/Å" in formula.text


def test_a_signal_that_falls_with_the_error_gets_no_power():
    formula = fitted(*made(200, 2, (0.6, -0.3)), "rms")
    assert formula.powers["committee"] == 0.0 and formula.powers["soap_q"] > 0.4
    assert fitted(*made(200, 2, (-0.6, -0.3)), "rms") is None
    assert fitted(*made(FEWEST - 1, 2), "rms") is None


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(0, 1e6), min_size=6, max_size=6),
    which=st.integers(0, 5),
    factor=st.floats(1.0, 1e6),
    error=st.sampled_from(["rms", "max"]),
)
def test_a_higher_signal_never_lowers_a_score(values, which, factor, error):
    signals = {"soap_q": np.array(values[:3]), "committee": np.array(values[3:])}
    higher = {k: v.copy() for k, v in signals.items()}
    higher[["soap_q", "committee"][which // 3]][which % 3] *= factor
    fit = fitted(*made(20, 3, (0.5, 0.5)), error)
    for formula in (fit, balanced({"soap_q": 2.0, "committee": 0.0}, error), single("committee", error)):
        used = {k: signals[k] for k in formula.powers}
        before, after = formula.atoms(used), formula.atoms({k: higher[k] for k in formula.powers})
        assert (after >= before * (1 - 1e-12)).all()
        assert formula.frame(after) >= formula.frame(before) * (1 - 1e-12)


def test_what_is_infinite_or_no_number_stays_so():
    fit = fitted(*made(50, 4, (0.6, -0.3)), "rms")  # one power is zero: it still says "never seen"
    signals = {"soap_q": np.array([1.0, 1.0, 1.0, 0.0]), "committee": np.array([np.inf, np.nan, 0.1, 0.0])}
    score = fit.atoms(signals)
    assert np.isinf(score[0]) and np.isnan(score[1]) and np.isfinite(score[2:]).all() and score[3] > 0
    assert np.isnan(fit.frame(np.zeros(0)))


def test_without_a_fit_each_signal_counts_the_same():
    """Squared distances count as distances: doubling a distance doubles neither more nor less for Q than for others."""
    formula = balanced({"soap_q": 4.0, "feature_distance": 3.0}, "rms")
    known = {"soap_q": np.array([4.0]), "feature_distance": np.array([3.0])}
    assert formula.atoms(known) == pytest.approx(1.0)
    assert formula.atoms(known | {"soap_q": np.array([16.0])}) == pytest.approx(np.sqrt(2))
    assert formula.atoms(known | {"feature_distance": np.array([6.0])}) == pytest.approx(np.sqrt(2))
