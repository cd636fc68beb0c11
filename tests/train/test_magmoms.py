"""Magnetic moments in the loss (CHGNet)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aldriver.core.errors import AldriverError
from aldriver.testing.small_mace import small_mace
from aldriver.train import train
from aldriver.train.base import make_adapter


def with_moments(frames, value: float):
    """Every second frame carries moments, of alternating sign: only their size counts."""
    for k, atoms in enumerate(frames):
        if k % 2 == 0:
            atoms.calc.results["magmoms"] = value * np.array([1.0, -1.0])
    return frames


def test_the_moments_are_chgnets(chgnet020, fe_frames):
    adapter = make_adapter(chgnet020)
    p = adapter.predict([adapter.graph(a) for a in fe_frames], training=False)
    expected = np.concatenate([q.magmoms for q in chgnet020.evaluate(fe_frames)])
    np.testing.assert_allclose(p.magmoms.numpy(), expected, atol=1e-5)


def test_moments_are_learnt(chgnet020, iron, settings, tmp_path):
    frames = with_moments(iron(4), 1.0)
    s = settings(epochs=6, weights={"magmoms": 5.0})
    result = train(chgnet020, frames, frames, s, tmp_path, seed=0)
    assert result.accepted, result.reason
    assert result.checks["magmoms"]["active"]
    assert result.checks["magmoms"]["frames"] == 2
    assert result.after["magmoms_mae_muB"] < 0.7 * result.before["magmoms_mae_muB"]
    assert all(line["terms"]["magmoms"] > 0 for line in result.history)
    moments = np.concatenate([p.magmoms for p in result.potential.evaluate(frames[::2])])
    assert np.abs(moments - 1.0).mean() == pytest.approx(result.after["magmoms_mae_muB"], rel=1e-3)
    changed = torch.equal(result.potential.module.site_wise.weight, chgnet020.module.site_wise.weight)
    assert not changed


def test_without_the_weight_the_head_stays(chgnet020, iron, settings, tmp_path):
    frames = with_moments(iron(2), 1.0)
    result = train(chgnet020, frames, frames, settings(epochs=2), tmp_path, seed=0)
    assert result.checks["magmoms"] == {"active": False, "reason": "its weight is 0"}
    assert "magmoms_mae_muB" not in result.after
    assert torch.equal(result.potential.module.site_wise.weight, chgnet020.module.site_wise.weight)


def test_a_family_without_moments_says_so(iron, settings, tmp_path):
    frames = with_moments(iron(2), 1.0)
    with pytest.raises(AldriverError, match="mace potentials have no magnetic moments"):
        train(small_mace(), frames, frames, settings(weights={"magmoms": 1.0}), tmp_path, seed=0)
