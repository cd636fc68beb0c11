"""From a rough band to the saddle point: the same barrier as that of a band that climbs."""

from __future__ import annotations

import numpy as np
import pytest

from aldriver.benchmark.band import climb
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.migration import vacancy_hop
from aldriver.benchmark.saddle import saddle
from aldriver.benchmark.store import Store


def test_the_dimer_ends_where_the_band_ends(cu, fcc_cu, tmp_path):
    bench = Bench(cu, store=Store(tmp_path))
    hop = vacancy_hop(bench, fcc_cu.model_copy(update={"supercell": (2, 2, 2)}), 3.615)
    rough = climb(bench, hop.start, hop.end, "hop", images=4, fmax=0.3, climb=False)  # none of them in the middle
    found = saddle(bench, rough, "hop, saddle", fmax=0.01, max_steps=50)
    exact = climb(bench, hop.start, hop.end, "hop", fmax=0.01, exchange=hop.exchange)
    assert found.converged and found.curvature < 0
    assert found.energy - hop.relaxation.energy == pytest.approx(exact.barrier, abs=2e-3)
    assert np.linalg.norm(found.mode) == pytest.approx(1)
    energies = [cu.evaluate([found.beside(x)])[0].energy - found.energy for x in (-0.05, 0.05)]
    assert max(energies) < 0
    assert sum(energies) / 0.05**2 == pytest.approx(found.curvature, rel=0.2)
    to_end = [np.linalg.norm(found.beside(x).positions - hop.end.positions) for x in (-0.05, 0.05)]
    assert to_end[1] < to_end[0]
    again = saddle(Bench(cu, store=Store(tmp_path)), rough, "hop, saddle", fmax=0.01, max_steps=50)
    assert again.energy == found.energy
    assert np.abs(again.mode - found.mode).max() < 1e-9
