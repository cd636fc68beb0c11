"""The temperature at which a heated crystal is none any more."""

from __future__ import annotations

import pytest

from aldriver.benchmark import melting
from aldriver.benchmark.bench import Bench
from aldriver.core.recipe_thermal import Melting


def test_copper_is_superheated_and_falls_apart(cu, fcc_cu):
    small = fcc_cu.model_copy(update={"supercell": (2, 2, 2)})
    fast = Melting(start_K=1000, end_K=3500, rate_K_per_ps=400, timestep_fs=3)
    (value,) = melting.compute(Bench(cu), small, 3.615, fast)
    # melting point of this potential 1324 K (Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021), Table 1, EAM); a
    # perfect crystal goes beyond it
    assert 1324 < value.value < 1324 * 2.5
    assert value.error > 400
    assert value.converged


def test_a_crystal_that_holds_is_a_reason(cu, fcc_cu):
    (value,) = melting.compute(Bench(cu), fcc_cu, 3.615, Melting(start_K=300, end_K=320, timestep_fs=4))
    assert value.value is None
    assert "still fcc at 320 K" in value.reason


def test_heating_goes_up():
    with pytest.raises(ValueError, match="end_K"):
        Melting(start_K=500, end_K=400)


def test_heating_too_fast_to_be_watched_is_refused():
    with pytest.raises(ValueError, match="the heating takes 5 steps, and needs 40"):
        Melting(start_K=300, end_K=301, rate_K_per_ps=100)
