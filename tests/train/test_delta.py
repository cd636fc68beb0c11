"""Δ-learning: the sum is better than the base, the base is untouched, and the sum is saved and stepped as one."""

from __future__ import annotations

import numpy as np
import pytest

from aldriver import load
from aldriver.core.errors import InputError
from aldriver.core.recipe_train import Delta
from aldriver.potentials.bundle import save_bundle
from aldriver.potentials.delta import DeltaPotential
from aldriver.testing.contracts import check_potential
from aldriver.testing.small_mace import small_mace
from aldriver.train import train
from aldriver.train.delta import average_neighbours, errors_of_nothing, fresh_correction, residual_frames


@pytest.fixture(scope="module")
def delta(chgnet020):
    return DeltaPotential(chgnet020, small_mace(("Fe", "Cu")), name="sum")


def test_the_sum_keeps_the_contract(delta, fe_frames):
    check_potential(delta, fe_frames[1:], noise=1e-6, unknown="Ni", finite_differences=False)


def test_forces_and_stress_are_derivatives_of_the_sum(chgnet020_double, fe_frames):
    double = DeltaPotential(chgnet020_double, small_mace(dtype="float64"))
    check_potential(double, fe_frames[1:2], unknown="Cu")


def test_it_is_the_sum_with_features_and_moments_of_the_base(delta, chgnet020, fe_frames):
    both = delta.evaluate(fe_frames, features=True)
    base, rest = chgnet020.evaluate(fe_frames, features=True), delta.correction.evaluate(fe_frames)
    for p, a, b in zip(both, base, rest, strict=True):
        assert p.energy == a.energy + b.energy
        np.testing.assert_array_equal(p.features, a.features)
        np.testing.assert_array_equal(p.magmoms, a.magmoms)
        np.testing.assert_array_equal(p.stress, a.stress + b.stress)


def test_saved_and_loaded(delta, fe_frames, tmp_path):
    loaded = load(save_bundle(delta, tmp_path / "saved"))
    assert loaded.fingerprint == delta.fingerprint and loaded.elements == {"Fe", "Cu"}
    assert loaded.evaluate(fe_frames)[1].energy == pytest.approx(delta.evaluate(fe_frames)[1].energy, abs=1e-4)


def test_only_the_elements_it_was_trained_on(chgnet020, fe_frames):
    narrow = DeltaPotential(chgnet020, small_mace(("Fe", "Cu")), elements={"Fe"})
    assert narrow.elements == {"Fe"}
    with pytest.raises(InputError, match="share no element"):
        DeltaPotential(chgnet020, small_mace(("Fe",)), elements={"Cu"})


def test_residuals_and_base_add_up_to_the_labels(chgnet020, iron):
    frames = iron(3)
    shift = {"Fe": 1.5}
    base = chgnet020.evaluate(frames)
    for atoms, rest, p in zip(frames, residual_frames(chgnet020, frames, shift), base, strict=True):
        total = atoms.get_potential_energy() + 1.5 * len(atoms)
        assert rest.get_potential_energy() + p.energy == pytest.approx(total)
        np.testing.assert_allclose(rest.get_forces() + p.forces, atoms.get_forces())
        np.testing.assert_allclose(rest.get_stress() + p.stress, atoms.get_stress())


def test_errors_without_a_correction_are_those_of_the_base(chgnet020, iron, settings):
    frames = iron(4)
    metrics = errors_of_nothing(residual_frames(chgnet020, frames, None), settings())
    wrong = [p.forces - a.get_forces() for p, a in zip(chgnet020.evaluate(frames), frames, strict=True)]
    assert metrics["forces_mae_meV_A"] == pytest.approx(1e3 * np.abs(np.concatenate(wrong)).mean())


def test_neighbours_of_bcc_iron(fe_cell):
    assert average_neighbours([fe_cell], 2.9) == 14


@pytest.mark.parametrize("family", ["mace", "chgnet"])
def test_a_sum_beats_its_base(family, chgnet020, iron, settings, tmp_path):
    frames = iron(20)
    before = chgnet020.fingerprint
    chosen = settings(
        strategy="delta", epochs=8, learning_rate=1e-2, delta={"family": family, "channels": 8, "cutoff_A": 4.0}
    )
    result = train(chgnet020, frames[:16], frames[16:], chosen, tmp_path, seed=0)
    assert result.accepted, result.reason
    assert result.after["forces_mae_meV_A"] < 0.8 * result.before["forces_mae_meV_A"]
    assert chgnet020.fingerprint == before and result.potential.base is chgnet020
    assert result.potential.elements == {"Fe"}
    wrong = [
        p.forces - a.get_forces() for p, a in zip(result.potential.evaluate(frames[16:]), frames[16:], strict=True)
    ]
    assert 1e3 * np.abs(np.concatenate(wrong)).mean() == pytest.approx(result.after["forces_mae_meV_A"], rel=1e-3)


def test_a_sum_is_trained_further(chgnet020, iron, settings, tmp_path):
    frames = iron(8)
    chosen = settings(strategy="delta", epochs=2, learning_rate=1e-3, delta={"channels": 4, "cutoff_A": 4.0})
    start = DeltaPotential(chgnet020, fresh_correction(residual_frames(chgnet020, frames, None), Delta(), seed=1))
    result = train(start, frames[:6], frames[6:], chosen, tmp_path, seed=0)
    assert result.after["loss"] < result.before["loss"]
    assert result.potential.base is chgnet020
