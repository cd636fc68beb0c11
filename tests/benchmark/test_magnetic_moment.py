from __future__ import annotations

import pytest

from aldriver.benchmark import magnetic_moment
from aldriver.benchmark.bench import Bench


def test_iron_as_published(chgnet020, bcc_fe):
    """Mohandas 2026, Table 1: 2.35 µB at the model's own lattice constant."""
    (value,) = magnetic_moment.compute(Bench(chgnet020), bcc_fe, 2.84892)
    assert value.value == pytest.approx(2.35, abs=0.01)
    assert (value.unit, value.converged) == ("µB", True)
    assert value.error < 1e-4  # both atoms are equivalent


def test_a_potential_without_moments_is_a_record(fe, bcc_fe):
    (value,) = magnetic_moment.compute(Bench(fe), bcc_fe, 2.8553)
    assert (value.value, value.converged) == (None, False)
    assert value.reason == "eam:Fe_mm.eam.fs predicts no magnetic moments"
