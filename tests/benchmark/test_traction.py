from __future__ import annotations

import numpy as np
import pytest

from aldriver.benchmark import traction
from aldriver.benchmark.bench import Bench
from aldriver.benchmark.lattice import relax_lattice
from aldriver.benchmark.traction import PLANES, opened
from aldriver.core.recipe_extended import Traction

COARSE = Traction(thickness_A=20, step_A=0.25, largest_A=2.0)


def curves(potential, case, options=COARSE):
    values = traction.compute(Bench(potential), case, relax_lattice(potential, case).a, options)
    assert {v.property: v.unit for v in values} == traction.units(case, options)
    return {v.property: v for v in values}


@pytest.mark.parametrize("opening", [0.2, 0.7, 1.6])
@pytest.mark.parametrize("plane", PLANES["fcc"], ids=lambda p: p.name)
def test_traction_is_the_derivative_of_the_energy(cu, fcc_cu, plane, opening):
    """By central differences, also for a crystal whose inner layers are not at rest."""
    step = 1e-4
    cells = [opened(fcc_cu, 3.6, plane, 6, opening + s) for s in (-step, 0.0, step)]
    for cell in cells:
        cell.positions[2] += [0, 0, 0.1]
    low, here, high = cu.evaluate(cells)
    slope = (high.energy - low.energy) / (2 * step) / plane.area(3.6) * 160.21766208
    assert traction.traction(cells[1], here) == pytest.approx(slope, abs=1e-3)


def test_copper_cleaves_into_its_published_surfaces(cu, fcc_cu):
    """Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021), Table 1: 1.24, 1.35 and 1.48 J/m², two a cleavage."""
    found = curves(cu, fcc_cu)
    for plane, published in (("111", 1.24), ("100", 1.35), ("110", 1.48)):
        relaxed, rigid = found[f"cleavage_energy({plane},relaxed)"], found[f"cleavage_energy({plane})"]
        assert relaxed.value / 2 == pytest.approx(published, abs=0.006)
        assert relaxed.converged and relaxed.value < rigid.value


def test_the_area_under_the_curve_is_the_cleavage_energy(fe, bcc_fe):
    plane = PLANES["bcc"][1]
    openings = np.arange(0, 6.0, 0.05)
    cells = [opened(bcc_fe, 2.8553, plane, 10, d) for d in openings]
    found = fe.evaluate(cells)
    curve = [traction.traction(cell, p) for cell, p in zip(cells, found, strict=True)]
    under = np.trapezoid(curve, openings) / 160.21766208  # GPa Å to eV/Å²
    assert under == pytest.approx((found[-1].energy - found[0].energy) / plane.area(2.8553), rel=2e-3)


def test_finer_steps_change_the_maximum_within_its_error(cu, fcc_cu):
    coarse, fine = (
        curves(cu, fcc_cu, Traction(thickness_A=10, step_A=step, largest_A=1.6))["max_traction(111)"]
        for step in (0.2, 0.1)
    )
    assert abs(coarse.value - fine.value) <= 3 * coarse.error + 1e-3
    assert coarse.error < 0.02 * coarse.value


def test_a_maximum_at_the_end_is_none(cu, fcc_cu):
    found = curves(cu, fcc_cu, Traction(thickness_A=10, step_A=0.1, largest_A=0.4))
    assert not found["max_traction(111)"].converged
    assert "still rises" in found["max_traction(111)"].reason


def test_a_step_limit_is_not_convergence(cu, fcc_cu, monkeypatch):
    monkeypatch.setattr(traction, "MAX_STEPS", 1)
    found = curves(cu, fcc_cu, Traction(thickness_A=10, step_A=0.2, largest_A=0.8))
    assert found["max_traction(100)"].converged
    assert not found["max_traction(100,relaxed)"].converged
    assert "stopped after 1 steps" in found["cleavage_energy(100,relaxed)"].reason
